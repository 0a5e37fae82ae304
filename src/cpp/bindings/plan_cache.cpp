#include "plan_cache.hpp"

#include "plan.hpp"

namespace convkit::bindings {
namespace {

constexpr std::size_t most_plans = 4096;
Shared<std::uint64_t> generation{1};

PlanCache<PlanPointer>& plan_cache() {
  static auto* const cache = new PlanCache<PlanPointer>(most_plans);  // outlives the interpreter's last call
  return *cache;
}

#ifdef Py_GIL_DISABLED

// The plan that this thread found last, so that most calls take no lock. It is not owned: a thread may end without the
// interpreter, which a plan's end needs.
struct Last {
  std::uint64_t generation = 0;
  Key key;
  std::weak_ptr<const Plan> plan;
};
thread_local Last last;

constexpr unsigned counter_count = 64;
struct alignas(64) OwnCounters : Counters {};
OwnCounters all_counters[counter_count];
std::atomic<unsigned> threads_counting{0};

#endif

}  // namespace

void Key::add(const Operands& o) { add_arrays(o.x, o.w, o.bias, o.residual, o.out, o.scale, o.shift); }

void Key::add(const Options& o) {
  add(static_cast<int>(o.layout) | static_cast<int>(o.activation) << 8 | o.algorithm.kind << 12 |
      o.accuracy.kind << 16 | o.workspace_limit.kind << 20 | static_cast<int>(o.op) << 24 |
      static_cast<int>(o.transposed) << 26 | o.scale.kind << 27 | o.shift.kind << 29 |
      static_cast<std::int64_t>(o.residual_after) << 31);
  static_assert(sizeof(Window) % sizeof words_[0] == 0);
  std::memcpy(words_ + used_, static_cast<const Window*>(&o), sizeof(Window));
  used_ += sizeof(Window) / sizeof words_[0];
  if (o.algorithm.kind) add(o.algorithm.bits);
  if (o.accuracy.kind) add(o.accuracy.bits);
  if (o.workspace_limit.kind) add(o.workspace_limit.bits);
}

std::size_t Key::hash() const {
  // Two multiplicative chains, so that half of the latency of one is hidden.
  std::uint64_t a = 0x9E3779B97F4A7C15u, b = used_;
  for (std::size_t i = 0; i + 1 < used_; i += 2) {
    a = (a ^ static_cast<std::uint64_t>(words_[i])) * 0xFF51AFD7ED558CCDu;
    a ^= a >> 29;
    b = (b ^ static_cast<std::uint64_t>(words_[i + 1])) * 0xC4CEB9FE1A85EC53u;
    b ^= b >> 29;
  }
  if (used_ % 2) a = (a ^ static_cast<std::uint64_t>(words_[used_ - 1])) * 0xFF51AFD7ED558CCDu;
  return static_cast<std::size_t>(a ^ (b << 1) ^ (a >> 32));
}

PlanPointer kept_plan(const Key& key) {
#ifdef Py_GIL_DISABLED
  Last& last = convkit::bindings::last;
  const std::uint64_t now = generation;
  if (last.generation == now && last.key == key) {
    if (PlanPointer plan = last.plan.lock()) return plan;
  }
#endif
  PlanPointer plan;
  {
    const Guard guard(&generation);
    if (const PlanPointer* const found = plan_cache().find(key)) plan = *found;
  }
#ifdef Py_GIL_DISABLED
  if (plan) last = {now, key, plan};
#endif
  return plan;
}

void keep_plan(const Key& key, const PlanPointer& plan, std::uint64_t made_in) {
  PlanCache<PlanPointer>::Entries dropped;
  const Guard guard(&generation);
  if (made_in == generation) dropped = plan_cache().insert(key, plan);
}

std::size_t plan_count() {
  const Guard guard(&generation);
  return plan_cache().size();
}

std::uint64_t plan_generation() { return generation; }

void clear_plans() {
  PlanCache<PlanPointer>::Entries dropped;
  const Guard guard(&generation);
  ++generation;
  dropped = plan_cache().take_all();
}

#ifdef Py_GIL_DISABLED

Counters& counters() {
  thread_local const unsigned own = threads_counting++ % counter_count;
  return all_counters[own];
}

CountersOf<std::uint64_t> total_counts() {
  CountersOf<std::uint64_t> total{};
  for (const Counters& own : all_counters) {
    total.calls += own.calls;
    total.plan_hits += own.plan_hits;
    total.plan_misses += own.plan_misses;
    total.outputs_recycled += own.outputs_recycled;
  }
  return total;
}

#else

Counters& counters() {
  static Counters instance{};
  return instance;
}

CountersOf<std::uint64_t> total_counts() { return counters(); }

#endif

}  // namespace convkit::bindings
