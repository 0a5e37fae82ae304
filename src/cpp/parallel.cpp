#include "parallel.hpp"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>

#include "cpu/limits.hpp"
#include "threads/openmp.hpp"
#include "threads/pool.hpp"
#include "threads/startable.hpp"

namespace convkit {
namespace {

std::atomic<long> teams{0};
std::atomic<int> cpus{0};                     // 0: not read yet
thread_local void (*barrier)() = nullptr;     // of the team that this thread is in, from whichever runtime it has
constexpr std::uint32_t sticky_flags = 0x3f;  // of MXCSR: what went wrong so far; the rest says how to compute

// The runtime for a new team, or null for the pool.
const OpenMp* usable(const OpenMpView& view) {
  return view.used && !view.used->lost.load(std::memory_order_relaxed) ? view.used : nullptr;
}

bool in_a_region(const OpenMpView& view) {
  for (const OpenMp* runtime : view.loaded) {
    if (runtime->in_parallel()) return true;
  }
  return false;
}

// CPUs of the mask that this process was given. OpenMP may have bound the calling thread to one of them since, and alone
// knows the others.
int unbound_cpus() {
  const OpenMp* runtime = openmp().used;
  const int places = runtime ? runtime->num_places() : 0;
  if (places == 0) return allowed_cpus();
  int in_places = 0;
  for (int place = 0; place < places; ++place) in_places += runtime->place_num_procs(place);
  return std::max(1, std::min(in_places, runtime->num_procs()));
}

__attribute__((noinline, cold)) int read_cpus() {
  const double quota = std::ceil(group_limits().cpus);
  const int count = unbound_cpus();
  const int available = quota < count ? std::max(1, static_cast<int>(quota)) : count;
  cpus.store(available, std::memory_order_relaxed);
  return available;
}

// What an OpenMP runtime would make of it.
__attribute__((noinline, cold)) int named_limit() {
  static const int limit = [] {
    const char* text = std::getenv("OMP_NUM_THREADS");
    const long number = text ? std::strtol(text, nullptr, 10) : 0;
    return number >= 1 && number < 1 << 20 ? static_cast<int>(number) : 1 << 20;
  }();
  return limit;
}

std::mutex growing;  // from asking for threads until the team runs: no two callers are promised the same ones

// What OpenMP keeps for a thread that starts teams: the workers of its last one. A smaller team, of any library that
// shares the runtime, ends those that it does not need.
struct Caller {
  const OpenMp* runtime = nullptr;
  std::shared_ptr<std::atomic<int>> workers;  // alive, of those that ran for convkit
  int last = 1;

  int members() const { return std::min(last, 1 + workers->load(std::memory_order_relaxed)); }
};

// A worker's part in the count of its caller, who may end first.
class Worker {
 public:
  ~Worker() { leave(); }
  void join(const std::shared_ptr<std::atomic<int>>& workers) {
    if (workers == joined_) return;
    leave();
    joined_ = workers;
    joined_->fetch_add(1, std::memory_order_relaxed);
  }

 private:
  void leave() {
    if (joined_) joined_->fetch_sub(1, std::memory_order_relaxed);
  }
  std::shared_ptr<std::atomic<int>> joined_;
};

thread_local Caller this_caller;
thread_local Worker this_worker;

struct Job {
  TeamFunction function;
  void* context;
  void (*barrier)();
  std::uint32_t control;  // the caller's MXCSR: rounding, and what becomes of subnormals

  const OpenMp* runtime = nullptr;
  Caller* caller = nullptr;
  std::unique_lock<std::mutex>* lock = nullptr;
};

void run_member(const Job& job, int index, int size) {
  const std::uint32_t own = __builtin_ia32_stmxcsr();
  const bool differs = ((own ^ job.control) & ~sticky_flags) != 0;
  if (differs) __builtin_ia32_ldmxcsr((job.control & ~sticky_flags) | (own & sticky_flags));
  barrier = job.barrier;
  job.function(job.context, index, size);
  barrier = nullptr;
  if (differs) __builtin_ia32_ldmxcsr(own);
}

void pool_member(void* context, int index, int size) { run_member(*static_cast<const Job*>(context), index, size); }

void openmp_member(void* context) noexcept {
  const Job& job = *static_cast<const Job*>(context);
  const int index = job.runtime->thread_num(), size = job.runtime->num_threads();
  if (index > 0) {
    this_worker.join(job.caller->workers);
  } else {
    job.caller->last = size;
    if (job.lock->owns_lock()) job.lock->unlock();
  }
  run_member(job, index, size);
}

// The team that can be had: libgomp ends the process if it cannot start a thread. A team that has to grow leaves `lock`
// locked.
int team_to_be_had(int threads, const OpenMp* runtime, Caller& caller, std::unique_lock<std::mutex>& lock) {
  threads = std::min(threads, runtime->thread_limit());
  if (caller.runtime != runtime) {
    try {
      caller = {runtime, std::make_shared<std::atomic<int>>(0), 1};
    } catch (const std::bad_alloc&) {
      return 1;
    }
  }
  const int had = caller.members();
  if (threads <= had) return threads;
  lock = std::unique_lock<std::mutex>(growing);
  threads = had + startable_threads(threads - had);
  if (threads == had) lock.unlock();
  return threads;
}

void run_openmp_team(const OpenMp* runtime, int threads, Job& job) {
  std::unique_lock<std::mutex> lock;
  Caller& caller = this_caller;
  threads = team_to_be_had(threads, runtime, caller, lock);
  if (threads <= 1) return job.function(job.context, 0, 1);
  teams.fetch_add(1, std::memory_order_relaxed);
  job.barrier = runtime->barrier;
  job.runtime = runtime;
  job.caller = &caller;
  job.lock = &lock;
  runtime->parallel(openmp_member, &job, static_cast<unsigned>(threads), 0);
}

void before_fork() {
  if (before_fork_openmp()) this_caller.last = 1;
  growing.lock();
  pool::before_fork();
}

void after_fork(bool in_child) {
  pool::after_fork(in_child);
  growing.unlock();
  if (in_child) {
    cpus.store(0);
    this_caller = {};
  }
  after_fork_openmp(in_child);
}

const int fork_guard = pthread_atfork(before_fork, [] { after_fork(false); }, [] { after_fork(true); });

}  // namespace

int available_cpus() {
  const int count = cpus.load(std::memory_order_relaxed);
  return count ? count : read_cpus();
}

long teams_started() { return teams.load(std::memory_order_relaxed); }

int default_threads() {
  if (barrier) return 1;
  const OpenMpView& view = openmp();
  if (in_a_region(view)) return 1;
  return std::min(view.used ? view.used->max_threads() : named_limit(), available_cpus());
}

void run_team(int threads, TeamFunction function, void* context) {
  const OpenMpView* view = nullptr;
  if (threads > 1 && !barrier) view = &openmp();
  if (!view || in_a_region(*view)) return function(context, 0, 1);
  Job job{function, context, pool::barrier, __builtin_ia32_stmxcsr()};
  if (const OpenMp* runtime = usable(*view)) return run_openmp_team(runtime, threads, job);
  if (pool::run_team(threads, pool_member, &job) > 1) teams.fetch_add(1, std::memory_order_relaxed);
}

void team_barrier() {
  if (barrier) barrier();
}

const char* thread_runtime() {
  const OpenMp* runtime = usable(openmp());
  return runtime ? runtime->path.c_str() : "";
}

void look_for_runtime() { look_for_openmp(); }

}  // namespace convkit
