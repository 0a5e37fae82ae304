#include "cpu/fma_peak.hpp"

#include <algorithm>
#include <chrono>
#include <numeric>

#include "cpu/features.hpp"
#include "parallel.hpp"

namespace convkit {

#define CONVKIT_ISA_ENTRY(isa, bytes, features, flags) \
  namespace isa {                                      \
  double fma_chains(Dtype dtype, std::int64_t steps);  \
  }
#include "isa/built.def"
#undef CONVKIT_ISA_ENTRY

namespace {

using Clock = std::chrono::steady_clock;
using Chains = double (*)(Dtype, std::int64_t);

constexpr Chains chains_of[isa_count] = {
#define CONVKIT_ISA_ENTRY(isa, bytes, features, flags) isa::fma_chains,
#include "isa/built.def"
#undef CONVKIT_ISA_ENTRY
};

constexpr int most_members = 1024;

struct Race {
  Chains chains;
  Dtype dtype;
  double seconds;
  double best[most_members];  // multiply-adds a second of each member
};

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

// Every member for itself, without a barrier: rounds are shorter than a time slice, so that on a busy machine most are
// not interrupted and the best one is not.
void run_member(void* context, int index, int) {
  Race& race = *static_cast<Race*>(context);
  const Clock::time_point begin = Clock::now();
  double best = 0;
  do {
    const Clock::time_point round = Clock::now();
    const double fmas = race.chains(race.dtype, 1 << 12);
    best = std::max(best, fmas / seconds_since(round));
  } while (seconds_since(begin) < race.seconds);
  race.best[index] = best;
}

}  // namespace

double fma_peak(Dtype dtype, int threads, double seconds) {
  Race race{chains_of[static_cast<int>(active_isa())], dtype, seconds, {}};
  run_team(std::min(threads, most_members), run_member, &race);
  return std::accumulate(race.best, race.best + most_members, 0.0);
}

}  // namespace convkit
