#include <cstdlib>
#include <string>

#include "../cpu/features.hpp"
#include "../cpu/fma_peak.hpp"
#include "../cpu/limits.hpp"
#include "../parallel.hpp"
#include "../threads/handover.hpp"
#include "../workspace.hpp"
#include "gil.hpp"
#include "module_parts.hpp"
#include "outputs.hpp"
#include "run.hpp"

namespace py = pybind11;

namespace convkit::bindings {
namespace {

py::dict counters_dict() {
  const auto c = total_counts();
  py::dict all;
  all["calls"] = c.calls;
  all["plan_hits"] = c.plan_hits;
  all["plan_misses"] = c.plan_misses;
  all["outputs_recycled"] = c.outputs_recycled;
  all["teams_started"] = teams_started();
  all["free_workspace_bytes"] = workspace_pool().free_bytes();
  all["free_output_bytes"] = output_pool().free_bytes();
  all["most_output_bytes"] = output_pool().most_bytes();
  return all;
}

py::dict build_info() {
  py::dict facts;
  facts["version"] = CONVKIT_VERSION;
#ifdef __clang__
  facts["compiler"] = "Clang " __clang_version__;
#else
  facts["compiler"] = "GCC " __VERSION__;
#endif
#ifdef NDEBUG
  facts["assertions"] = false;
#else
  facts["assertions"] = true;
#endif
  py::list isas;
  for (int i = 0; i < isa_count; ++i) isas.append(isa_name(static_cast<Isa>(i)));
  facts["isas"] = isas;
  return facts;
}

py::dict group_limits_dict(const std::string& root) {
  const GroupLimits limits = group_limits(root);
  py::dict all;
  all["cpus"] = limits.cpus;
  all["memory"] = limits.memory;
  return all;
}

double measure_fma_peak(const std::string& dtype, int threads, double seconds) {
  if (dtype != "float32" && dtype != "float64") throw py::value_error("dtype must be float32 or float64, not " + dtype);
  if (threads < 1) throw py::value_error("threads must be at least 1");
  const ReleasedGil released;
  return fma_peak(dtype == "float32" ? Dtype::f32 : Dtype::f64, threads, seconds);
}

double measure_handover(int threads) {
  if (threads < 1) throw py::value_error("threads must be at least 1");
  const ReleasedGil released;
  return handover_seconds(threads);
}

void clear_memory() {
  workspace_pool().clear();
  clear_kept_arena();
  clear_kept_outputs();
}

void change_workspace_limit(std::int64_t bytes) {
  if (bytes < 0) throw py::value_error("the workspace limit must be at least 0 bytes, not " + std::to_string(bytes));
  set_workspace_limit(bytes);
  clear_plans();  // they were chosen under the old limit
}

// The __exit__ of a lock that runs what waited for its end. Python looks for Ctrl-C before it runs code of its own, not
// before this: so the lock is always freed.
void leave(const py::object& lock, const py::args&) {
  lock.attr("release")();
  if (py::len(lock.attr("_tasks")) > 0) lock.attr("_run")();
}

}  // namespace

void add_process(py::module_& module) {
  module.def("clear_plans", clear_plans, "Forgets every plan, so that the next calls ask the chooser again.");
  module.def("plan_count", plan_count, "Plans kept for conv2d.");
  module.def("counters", counters_dict, "What this process did so far.");
  module.def("clear_workspaces", clear_memory,
             "Returns the memory kept for later calls (workspaces and large outputs) to the operating system.");
  module.def("workspace_limit", workspace_limit, "Bytes of workspace that a call may use where it does not say.");
  module.def("set_workspace_limit", change_workspace_limit, py::arg("bytes"), "Changes workspace_limit().");
  module.def("default_threads", default_team, "The team that a call gets where it does not say.");
  module.def("available_cpus", available_cpus, "CPUs of the affinity mask, bounded by the cgroup's quota.");
  module.def("thread_runtime", thread_runtime,
             "File of the OpenMP runtime that teams run on; empty if they run on convkit's own threads.");
  module.def("group_limits", group_limits_dict, py::arg("root") = "",
             "CPUs and bytes of memory that the control groups leave this process; `root` is put in front of /proc and "
             "of their mounts.");
  module.def("fma_peak", measure_fma_peak, py::arg("dtype"), py::arg("threads") = 1, py::arg("seconds") = 0.1,
             "Measures how many multiply-adds a second the instruction set in force reaches.");
  module.def("handover", measure_handover, py::arg("threads"),
             "Seconds in which the members of a team hand a word on to each other: how far their CPUs are apart.");
  module.def("build_info", build_info, "Version, compiler and options of this build.");
  module.attr("leave") = py::cpp_function(leave, py::name("leave"), py::scope(module), py::is_method(module),
                                          "Frees a lock at the end of a with block, and runs what waited for that.");
}

}  // namespace convkit::bindings
