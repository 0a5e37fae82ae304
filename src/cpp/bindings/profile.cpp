#include "profile.hpp"

#include <pthread.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <vector>

#include "chooser.hpp"
#include "module_parts.hpp"

namespace py = pybind11;

namespace convkit::bindings {

Shared<bool> profiling{false};

namespace {

struct CallRecord {
  const Kernel* kernel;
  ConvProblem problem;
  Parameters parameters;
  int threads;
  unsigned long thread;
  double start, seconds;  // of the steady clock, which Python calls time.perf_counter
};

// Some hundred megabytes; beyond that calls are only counted.
constexpr std::size_t most_records = 1'000'000;

std::vector<CallRecord> records;
std::size_t dropped = 0;
int open_profiles = 0;
thread_local int own_profiles = 0;  // of them, opened by this thread

// What other threads opened, nobody closes in a child.
void begin_child() {
  open_profiles = std::min(open_profiles, own_profiles);
  if (open_profiles > 0) return;
  profiling = false;
  dropped = 0;
  std::vector<CallRecord>().swap(records);
}

const int fork_guard = pthread_atfork(nullptr, nullptr, begin_child);

std::size_t open_profile() {
  const Guard guard(&records);
  ++open_profiles;
  ++own_profiles;
  profiling = true;
  return records.size();
}

std::size_t record_count() {
  const Guard guard(&records);
  return records.size();
}

// Records since `first`, as (kernel, problem, parameters, threads, thread, start, seconds); the last profile to close
// frees them.
py::tuple close_profile(std::size_t first) {
  std::vector<CallRecord> found;
  std::size_t lost;
  {
    const Guard guard(&records);
    if (open_profiles == 0) throw py::value_error("no profile is open");
    lost = dropped;
    own_profiles = std::max(0, own_profiles - 1);  // another thread may close it
    if (--open_profiles == 0) {
      profiling = false;
      dropped = 0;
      found.swap(records);
    } else {
      found = records;
    }
  }
  py::list calls;
  for (std::size_t i = first; i < found.size(); ++i) {
    const CallRecord& r = found[i];
    py::list parameters;
    for (int p = 0; p < max_parameters && r.kernel->schema[p].name; ++p) parameters.append(r.parameters.value[p]);
    const Reference problem = problem_tuple(r.problem);
    calls.append(py::make_tuple(r.kernel->name, py::reinterpret_borrow<py::object>(problem.get()),
                                py::tuple(parameters), r.threads, r.thread, r.start, r.seconds));
  }
  return py::make_tuple(calls, lost);
}

double seconds_of(ProfileClock::duration duration) { return std::chrono::duration<double>(duration).count(); }

}  // namespace

void record_call(const Plan& plan, ProfileClock::time_point start, ProfileClock::time_point end) {
  const Guard guard(&records);
  if (!profiling) return;  // the last profile closed while the kernel ran
  if (records.size() >= most_records) {
    ++dropped;
    return;
  }
  records.push_back({plan.kernel, plan.problem, plan.parameters, plan.threads, PyThread_get_thread_ident(),
                     seconds_of(start.time_since_epoch()), seconds_of(end - start)});
}

void add_profile(py::module_& module) {
  module.def("open_profile", open_profile, "Begins to record calls; returns the number of the first record.");
  module.def("profile_position", record_count, "Number of the next record.");
  module.def("close_profile", close_profile, py::arg("first"),
             "Ends a profile; returns its records and how many calls were not kept.");
}

}  // namespace convkit::bindings
