#include "parallel.hpp"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "cpu/limits.hpp"
#include "startable.hpp"

#ifndef CONVKIT_STD_THREADS
#include <omp.h>
#endif

namespace convkit {

namespace {

std::atomic<long> teams{0};
std::atomic<int> cpus{0};  // 0: not read yet
thread_local bool inside_team = false;

// CPUs of the mask that this process was given. OpenMP may have bound the calling thread to one of them since, and alone
// knows the others.
int unbound_cpus() {
#ifndef CONVKIT_STD_THREADS
  if (const int places = omp_get_num_places(); places > 0) {
    int in_places = 0;
    for (int place = 0; place < places; ++place) in_places += omp_get_place_num_procs(place);
    return std::max(1, std::min(in_places, omp_get_num_procs()));
  }
#endif
  return allowed_cpus();
}

int read_cpus() {
  const double quota = std::ceil(group_limits().cpus);
  const int count = unbound_cpus();
  return quota < count ? std::max(1, static_cast<int>(quota)) : count;
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

const int fork_guard = pthread_atfork(nullptr, nullptr, [] { cpus.store(0); });

struct Barrier {
  std::mutex mutex;
  std::condition_variable all_here;
  int size = 1, waiting = 0;
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
  const auto member = [&](int index) {
    inside_team = true;
    barrier = &shared;
    function(context, index, shared.size);
    barrier = nullptr;
    inside_team = false;
  };
  std::vector<std::thread> workers;
  {
    // They wait here until it is known how many they are.
    const std::lock_guard<std::mutex> gate(shared.mutex);
    try {
      workers.reserve(static_cast<std::size_t>(threads - 1));
      for (int index = 1; index < threads; ++index) {
        workers.emplace_back([&, index] {
          std::unique_lock<std::mutex>(shared.mutex).unlock();
          member(index);
        });
      }
    } catch (const std::exception&) {
      // The team is as many as could be started.
    }
    shared.size = 1 + static_cast<int>(workers.size());
  }
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

namespace {

std::atomic<bool> orphaned{false};  // a child of a process that had started a team: libgomp's workers are gone
std::mutex growing;  // from asking for threads until the team runs: no two callers are promised the same ones

const int fork_guard = pthread_atfork([] { growing.lock(); }, [] { growing.unlock(); },
                                      [] {
                                        growing.unlock();
                                        cpus.store(0);
                                        if (teams.load() > 0) orphaned.store(true);
                                      });

// What OpenMP keeps for a thread that starts teams: the workers of its last one. A smaller team, of any library that
// shares the runtime, ends those that it does not need.
struct Caller {
  std::shared_ptr<std::atomic<int>> workers;  // alive, of those that ran for convkit
  int last = 1;

  int members() const { return workers ? std::min(last, 1 + workers->load(std::memory_order_relaxed)) : 1; }
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

// The team that can be had: libgomp ends the process if it cannot start a thread. A team that has to grow leaves `lock`
// locked.
int team_to_be_had(int threads, Caller& caller, std::unique_lock<std::mutex>& lock) {
  threads = std::min(threads, omp_get_thread_limit());
  const int had = caller.members();
  if (threads <= had) return threads;
  if (!caller.workers) {
    try {
      caller.workers = std::make_shared<std::atomic<int>>(0);
    } catch (const std::bad_alloc&) {
      return 1;
    }
  }
  lock = std::unique_lock<std::mutex>(growing);
  threads = had + startable_threads(threads - had);
  if (threads == had) lock.unlock();
  return threads;
}

}  // namespace

int default_threads() {
  if (inside_team || orphaned.load(std::memory_order_relaxed) || omp_in_parallel()) return 1;
  const int limit = omp_get_max_threads(), available = available_cpus();
  return limit < available ? limit : available;
}

void run_team(int threads, TeamFunction function, void* context) {
  if (threads <= 1 || inside_team || orphaned.load(std::memory_order_relaxed) || omp_in_parallel()) {
    return function(context, 0, 1);
  }
  Caller& caller = this_caller;
  std::unique_lock<std::mutex> lock;
  threads = team_to_be_had(threads, caller, lock);
  if (threads <= 1) return function(context, 0, 1);
  teams.fetch_add(1, std::memory_order_relaxed);
#pragma omp parallel num_threads(threads)
  {
    const int index = omp_get_thread_num(), size = omp_get_num_threads();
    inside_team = true;
    if (index > 0) {
      this_worker.join(caller.workers);
    } else {
      caller.last = size;
      if (lock.owns_lock()) lock.unlock();
    }
    function(context, index, size);
    inside_team = false;
  }
}

void team_barrier() {
  if (!inside_team) return;
#pragma omp barrier
}

#endif

}  // namespace convkit
