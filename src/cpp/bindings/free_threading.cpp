#include "free_threading.hpp"

#ifdef Py_GIL_DISABLED

#include <pthread.h>

#include <cstdint>

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

}  // namespace

std::mutex& mutex_of(const void* guarded) {
  const std::uint64_t mixed = reinterpret_cast<std::uintptr_t>(guarded) * 0x9E3779B97F4A7C15u;
  return stripes[mixed >> (64 - stripe_bits)].mutex;
}

}  // namespace convkit::bindings

#endif
