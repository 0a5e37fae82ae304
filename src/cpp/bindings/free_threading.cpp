#include "free_threading.hpp"

#ifdef Py_GIL_DISABLED

#include <pthread.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <new>

namespace convkit::bindings {
namespace {

struct alignas(64) Stripe {
  std::mutex mutex;
};

constexpr int stripe_bits = 5;
Stripe stripes[1 << stripe_bits];

void lock_all() {
  for (Stripe& stripe : stripes) stripe.mutex.lock();
}

void unlock_all() {
  for (Stripe& stripe : stripes) stripe.mutex.unlock();
}

const int fork_guard = pthread_atfork(lock_all, unlock_all, unlock_all);

pybind11::detail::internals* internals_of_pybind11 = nullptr;

void renew(pybind11::detail::pymutex& mutex) { new (&mutex) pybind11::detail::pymutex; }

// CPython stops all threads before it forks, and nobody lets go of the interpreter under a mutex of pybind11. So whoever
// holds one then was handed it while waiting, and has not begun. In the child that thread is gone: every call would wait.
void renew_mutexes_of_pybind11() {
  renew(internals_of_pybind11->mutex);
  renew(internals_of_pybind11->exception_translator_mutex);
  for (std::size_t i = 0; i <= internals_of_pybind11->instance_shards_mask; ++i) {
    renew(internals_of_pybind11->instance_shards[i].mutex);
  }
}

}  // namespace

void keep_mutexes_of_pybind11_free_in_children() {
  internals_of_pybind11 = &pybind11::detail::get_internals();
  pthread_atfork(nullptr, nullptr, renew_mutexes_of_pybind11);
}

std::mutex& mutex_of(const void* guarded) {
  const std::uint64_t mixed = reinterpret_cast<std::uintptr_t>(guarded) * 0x9E3779B97F4A7C15u;
  return stripes[mixed >> (64 - stripe_bits)].mutex;
}

}  // namespace convkit::bindings

#endif
