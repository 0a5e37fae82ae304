#include "threads/startable.hpp"

#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cctype>
#include <cerrno>
#include <cstdlib>
#include <limits>
#include <memory>
#include <mutex>
#include <new>

namespace convkit {
namespace {

// What a thread allocates before it does anything, its thread-local variables for instance: glibc aborts where it cannot.
constexpr std::size_t first_allocations = std::size_t{16} << 10;
constexpr int patience = 1 << 16;
// Address space that stays free beside the threads: other callers allocate until the runtime has started them, and glibc
// takes 128 MiB for a moment when a thread allocates for the first time.
constexpr std::size_t spare = std::size_t{256} << 20;

// OMP_STACKSIZE as libgomp reads it: a number, in KiB unless a unit follows; 0 if it says nothing.
std::size_t stack_named_by(const char* variable) {
  const char* text = std::getenv(variable);
  if (!text) return 0;
  char* end;
  errno = 0;
  const unsigned long number = std::strtoul(text, &end, 10);
  if (end == text || errno) return 0;
  while (std::isspace(static_cast<unsigned char>(*end))) ++end;
  int shift = 10;
  if (*end) {
    switch (std::tolower(static_cast<unsigned char>(*end++))) {
      case 'b': shift = 0; break;
      case 'k': break;
      case 'm': shift = 20; break;
      case 'g': shift = 30; break;
      default: return 0;
    }
  }
  while (std::isspace(static_cast<unsigned char>(*end))) ++end;
  return *end || number > std::numeric_limits<std::size_t>::max() >> shift ? 0 : number << shift;
}

std::size_t named_stack() {
  const std::size_t bytes = stack_named_by("OMP_STACKSIZE");
  return bytes ? bytes : stack_named_by("GOMP_STACKSIZE");
}

// Read when this library is loaded, as the runtime does: later, another thread may be changing the environment.
const std::size_t stack_bytes = named_stack();

struct Started {
  pthread_t thread;
  pid_t id = 0;
  bool ready = false;
  std::mutex* gate;
};

void* wait_at_gate(void* context) {
  auto* self = static_cast<Started*>(context);
  self->id = static_cast<pid_t>(syscall(SYS_gettid));
  void* volatile memory = std::malloc(first_allocations);
  self->ready = memory != nullptr;
  const std::lock_guard<std::mutex> all_started(*self->gate);
  std::free(memory);
  return nullptr;
}

// A thread counts against the limits of its user and its control group for a moment after it was joined.
void wait_until_gone(pid_t id) {
  for (int i = 0; i < patience && syscall(SYS_tgkill, getpid(), id, 0) == 0; ++i) sched_yield();
}

// Starts that many threads, all at once, and ends them; how many came.
int started_at_once(int wanted) {
  const std::unique_ptr<Started[]> all(new (std::nothrow) Started[static_cast<std::size_t>(wanted)]);
  pthread_attr_t attributes;
  if (!all || pthread_attr_init(&attributes) != 0) return 0;
  if (stack_bytes) pthread_attr_setstacksize(&attributes, stack_bytes);  // refused: OpenMP's default, too
  std::mutex gate;
  int started = 0, ready = 0;
  {
    const std::lock_guard<std::mutex> closed(gate);
    for (; started < wanted; ++started) {
      all[started].gate = &gate;
      if (pthread_create(&all[started].thread, &attributes, wait_at_gate, &all[started]) != 0) break;
    }
  }
  for (int i = 0; i < started; ++i) {
    pthread_join(all[i].thread, nullptr);
    ready += all[i].ready;
  }
  for (int i = 0; i < started; ++i) wait_until_gone(all[i].id);
  pthread_attr_destroy(&attributes);
  return ready;
}

}  // namespace

int startable_threads(int wanted) noexcept {
  void* const kept_free = mmap(nullptr, spare, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (kept_free == MAP_FAILED) return 0;
  const int startable = started_at_once(wanted);
  munmap(kept_free, spare);
  return startable;
}

}  // namespace convkit
