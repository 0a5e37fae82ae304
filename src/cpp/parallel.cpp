#include "parallel.hpp"

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>

#ifdef CONVKIT_STD_THREADS
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>
#else
#include <omp.h>
#endif

namespace convkit {

namespace {

std::atomic<long> teams{0};
std::atomic<int> cpus{0};           // 0: not read yet
std::atomic<bool> orphaned{false};  // a child of a process that had started a team: libgomp's workers are gone
thread_local bool inside_team = false;

void after_fork_in_child() {
  cpus.store(0);
  if (teams.load() > 0) orphaned.store(true);
}

const int fork_guard = pthread_atfork(nullptr, nullptr, after_fork_in_child);

// CPUs of the cgroup's quota, rounded up; a large number if there is none.
double quota_of(const char* quota_path, const char* period_path) {
  double quota = -1, period = -1;
  if (FILE* file = std::fopen(quota_path, "re")) {
    const int read = std::fscanf(file, "%lf %lf", &quota, &period);  // cgroup v2 has both in one file; "max" reads none
    std::fclose(file);
    if (read < 1) return 1e9;
  }
  if (period_path) {
    if (FILE* file = std::fopen(period_path, "re")) {
      if (std::fscanf(file, "%lf", &period) != 1) period = -1;
      std::fclose(file);
    }
  }
  return quota > 0 && period > 0 ? quota / period : 1e9;
}

int read_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  int count = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  const double quotas[] = {quota_of("/sys/fs/cgroup/cpu.max", nullptr),
                           quota_of("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us")};
  for (const double quota : quotas) {
    if (quota < count) count = static_cast<int>(quota + 0.999);
  }
  return count < 1 ? 1 : count;
}

}  // namespace

int available_cpus() {
  int count = cpus.load(std::memory_order_relaxed);
  if (count == 0) {
    count = read_cpus();
    cpus.store(count, std::memory_order_relaxed);
  }
  return count;
}

long teams_started() { return teams.load(std::memory_order_relaxed); }

#ifdef CONVKIT_STD_THREADS

namespace {

struct Barrier {
  std::mutex mutex;
  std::condition_variable all_here;
  int size, waiting = 0;
  long phase = 0;
};

thread_local Barrier* barrier = nullptr;

}  // namespace

int default_threads() {
  if (inside_team) return 1;
  const char* limit = std::getenv("OMP_NUM_THREADS");
  const int asked = limit ? std::atoi(limit) : 0;
  return asked > 0 && asked < available_cpus() ? asked : available_cpus();
}

void run_team(int threads, TeamFunction function, void* context) {
  if (threads <= 1 || inside_team) return function(context, 0, 1);
  teams.fetch_add(1, std::memory_order_relaxed);
  Barrier shared;
  shared.size = threads;
  const auto member = [&](int index) {
    inside_team = true;
    barrier = &shared;
    function(context, index, threads);
    barrier = nullptr;
    inside_team = false;
  };
  std::vector<std::thread> workers;
  for (int index = 1; index < threads; ++index) workers.emplace_back(member, index);
  member(0);
  for (std::thread& worker : workers) worker.join();
}

void team_barrier() {
  if (!barrier) return;
  std::unique_lock<std::mutex> lock(barrier->mutex);
  const long phase = barrier->phase;
  if (++barrier->waiting == barrier->size) {
    barrier->waiting = 0;
    ++barrier->phase;
    barrier->all_here.notify_all();
  } else {
    barrier->all_here.wait(lock, [&] { return barrier->phase != phase; });
  }
}

#else

int default_threads() {
  if (inside_team || orphaned.load(std::memory_order_relaxed) || omp_in_parallel()) return 1;
  const int limit = omp_get_max_threads(), available = available_cpus();
  return limit < available ? limit : available;
}

void run_team(int threads, TeamFunction function, void* context) {
  if (threads <= 1 || inside_team || orphaned.load(std::memory_order_relaxed) || omp_in_parallel()) {
    return function(context, 0, 1);
  }
  teams.fetch_add(1, std::memory_order_relaxed);
#pragma omp parallel num_threads(threads)
  {
    inside_team = true;
    function(context, omp_get_thread_num(), omp_get_num_threads());
    inside_team = false;
  }
}

void team_barrier() {
  if (!inside_team) return;
#pragma omp barrier
}

#endif

}  // namespace convkit
