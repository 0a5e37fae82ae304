// What ran, for how long: one record a call, kept while somebody profiles. Everything here needs the GIL, or takes a guard.
#pragma once
#include <chrono>

#include "plan.hpp"

namespace convkit::bindings {

using ProfileClock = std::chrono::steady_clock;

// True while at least one profile is open: the only question that an unprofiled call asks.
extern Shared<bool> profiling;

void record_call(const Plan& plan, ProfileClock::time_point start, ProfileClock::time_point end);

}  // namespace convkit::bindings
