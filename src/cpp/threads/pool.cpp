#include "threads/pool.hpp"

#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <climits>
#include <cstdint>
#include <mutex>
#include <new>

namespace convkit::pool {
namespace {

// Waking a thread that sleeps takes 20 to 35 microseconds; one that has just worked looks out for more before it sleeps.
constexpr long spin_nanoseconds = 50000;
constexpr int pauses_per_look = 64;
// musl's default of 128 KiB would do, glibc's of 8 MiB is wasted.
constexpr std::size_t stack_bytes = std::size_t{1} << 20;
constexpr int most_idle_at_least = 16;

long nanoseconds() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000000000L + now.tv_nsec;
}

// A number that grows, and threads that wait for it to do so.
class Signal {
 public:
  std::uint32_t value() const { return value_.load(std::memory_order_acquire); }

  void raise() {
    value_.fetch_add(1);
    if (sleepers_.load() > 0) futex(FUTEX_WAKE_PRIVATE, INT_MAX);
  }

  // Returns when the value is not `old` any more.
  void wait(std::uint32_t old, bool spin) {
    if (spin) {
      const long end = nanoseconds() + spin_nanoseconds;
      do {
        for (int i = 0; i < pauses_per_look; ++i) {
          if (value() != old) return;
          __builtin_ia32_pause();
        }
      } while (nanoseconds() < end);
    }
    sleepers_.fetch_add(1);
    while (value_.load() == old) futex(FUTEX_WAIT_PRIVATE, static_cast<int>(old));
    sleepers_.fetch_sub(1);
  }

 private:
  void futex(int operation, int argument) {
    static_assert(sizeof value_ == 4, "the kernel compares four bytes");
    syscall(SYS_futex, &value_, operation, argument, nullptr, nullptr, 0);
  }

  std::atomic<std::uint32_t> value_{0};
  std::atomic<int> sleepers_{0};
};

// One team at work. Never freed but used again, as a worker is: who raises a signal may still touch it after those who
// waited have gone on.
struct Team {
  TeamFunction function = nullptr;
  void* context = nullptr;
  int size = 0;
  bool spin = false;
  std::atomic<int> unfinished{0}, waiting{0};
  Signal passed, finished;
  Team* next = nullptr;

  void work(int index);
  void wait_for_all();
};

struct Worker {
  Signal called;
  std::uint32_t calls = 0;  // of `called`, when its thread begins
  Team* team = nullptr;     // null: to end
  int index = 0;
  Worker* next = nullptr;
};

thread_local Team* inside = nullptr;

void Team::work(int index) {
  inside = this;
  function(context, index, size);
  inside = nullptr;
}

void Team::wait_for_all() {
  const std::uint32_t before = passed.value();
  if (waiting.fetch_add(1) + 1 < size) return passed.wait(before, spin);
  waiting.store(0);
  passed.raise();
}

template <class Item>
Item* pop(Item*& list) {
  Item* const item = list;
  if (item) list = item->next;
  return item;
}

template <class Item>
void push(Item*& list, Item* item) {
  item->next = list;
  list = item;
}

struct Lists {
  std::mutex mutex;
  Worker* idle = nullptr;
  int idle_count = 0;
  Worker* ended = nullptr;  // without a thread
  Team* teams = nullptr;
};

Lists& lists() {
  static auto* const instance = new Lists;  // outlives threads that still run at exit
  return *instance;
}

void* run_worker(void* data) {
  auto* const self = static_cast<Worker*>(data);
  bool spin = true;
  for (std::uint32_t calls = self->calls;; ++calls) {
    self->called.wait(calls, spin);
    Team* const team = self->team;
    if (!team) break;
    spin = team->spin;
    team->work(self->index);
    if (team->unfinished.fetch_sub(1) == 1) team->finished.raise();
  }
  const std::lock_guard<std::mutex> lock(lists().mutex);
  push(lists().ended, self);
  return nullptr;
}

// Python's signal handlers run in Python's threads; what a worker does wrong itself stays its own.
sigset_t signals_of_others() {
  sigset_t set;
  sigfillset(&set);
  for (const int own : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS, SIGPROF}) sigdelset(&set, own);
  return set;
}

bool start(Worker* worker) {
  worker->calls = worker->called.value();
  pthread_attr_t attributes;
  if (pthread_attr_init(&attributes) != 0) return false;
  pthread_attr_setstacksize(&attributes, stack_bytes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  const sigset_t blocked = signals_of_others();
  sigset_t before;
  pthread_sigmask(SIG_SETMASK, &blocked, &before);
  pthread_t thread;
  const bool started = pthread_create(&thread, &attributes, run_worker, worker) == 0;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_attr_destroy(&attributes);
  return started;
}

struct Crew {
  Team* team = nullptr;  // null: no memory
  Worker* workers = nullptr;
  int count = 0;
};

Crew gather(int workers) {
  Crew crew;
  Lists& all = lists();
  {
    const std::lock_guard<std::mutex> lock(all.mutex);
    crew.team = pop(all.teams);
    for (; crew.count < workers && all.idle; ++crew.count) push(crew.workers, pop(all.idle));
    all.idle_count -= crew.count;
  }
  if (!crew.team) crew.team = new (std::nothrow) Team;
  for (; crew.team && crew.count < workers; ++crew.count) {
    Worker* worker;
    {
      const std::lock_guard<std::mutex> lock(all.mutex);
      worker = pop(all.ended);
    }
    if (!worker) worker = new (std::nothrow) Worker;
    if (!worker) break;
    if (!start(worker)) {
      const std::lock_guard<std::mutex> lock(all.mutex);
      push(all.ended, worker);
      break;
    }
    push(crew.workers, worker);
  }
  return crew;
}

void dismiss(Crew crew) {
  const int most_idle = std::max(most_idle_at_least, 2 * available_cpus());
  Lists& all = lists();
  Worker* ending = nullptr;
  {
    const std::lock_guard<std::mutex> lock(all.mutex);
    if (crew.team) push(all.teams, crew.team);
    while (Worker* const worker = pop(crew.workers)) {
      if (all.idle_count < most_idle) {
        push(all.idle, worker);
        ++all.idle_count;
      } else {
        push(ending, worker);
      }
    }
  }
  while (Worker* const worker = pop(ending)) {
    worker->team = nullptr;
    worker->called.raise();
  }
}

}  // namespace

int run_team(int threads, TeamFunction function, void* context) {
  const Crew crew = gather(threads - 1);
  const int size = 1 + crew.count;
  if (size == 1) {
    dismiss(crew);
    function(context, 0, 1);
    return 1;
  }
  Team& team = *crew.team;
  team.function = function;
  team.context = context;
  team.size = size;
  team.spin = size <= available_cpus();
  team.unfinished.store(crew.count);
  team.waiting.store(0);
  const std::uint32_t before = team.finished.value();
  int index = 0;
  for (Worker* worker = crew.workers; worker; worker = worker->next) {
    worker->team = &team;
    worker->index = ++index;
    worker->called.raise();
  }
  team.work(0);
  team.finished.wait(before, team.spin);
  dismiss(crew);
  return size;
}

void barrier() {
  if (inside) inside->wait_for_all();
}

void before_fork() { lists().mutex.lock(); }

void after_fork(bool in_child) {
  if (in_child) {  // where no worker has a thread any more
    lists().idle = nullptr;
    lists().idle_count = 0;
  }
  lists().mutex.unlock();
}

}  // namespace convkit::pool
