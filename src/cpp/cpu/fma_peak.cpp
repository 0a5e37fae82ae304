#include "cpu/fma_peak.hpp"

#include <algorithm>
#include <chrono>

#include "cpu/features.hpp"
#include "parallel.hpp"

namespace convkit {

#define CONVKIT_ISA_ENTRY(isa, level)                 \
  namespace isa {                                     \
  double fma_chains(Dtype dtype, std::int64_t steps); \
  }
#include "isa/isa.def"
#undef CONVKIT_ISA_ENTRY

namespace {

using Clock = std::chrono::steady_clock;
using Chains = double (*)(Dtype, std::int64_t);

constexpr Chains chains_of[isa_count] = {
#define CONVKIT_ISA_ENTRY(isa, level) isa::fma_chains,
#include "isa/isa.def"
#undef CONVKIT_ISA_ENTRY
};

struct Round {
  Chains chains;
  Dtype dtype;
  std::int64_t steps;
  double fmas, seconds;  // of the whole team, without the time it takes to start it
};

void run_round(void* context, int index, int size) {
  Round& round = *static_cast<Round*>(context);
  round.chains(round.dtype, round.steps / 16);
  team_barrier();
  const Clock::time_point begin = Clock::now();
  const double fmas = round.chains(round.dtype, round.steps);
  team_barrier();
  if (index == 0) {
    round.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    round.fmas = fmas * size;
  }
}

}  // namespace

double fma_peak(Dtype dtype, int threads, double seconds) {
  Round round{chains_of[static_cast<int>(active_isa())], dtype, 1 << 16, 0, 0};
  double best = 0;
  const Clock::time_point begin = Clock::now();
  do {
    run_team(threads, run_round, &round);
    best = std::max(best, round.fmas / round.seconds);
  } while (std::chrono::duration<double>(Clock::now() - begin).count() < seconds);
  return best;
}

}  // namespace convkit
