// The measured FMA peak: the limit beside every speed that convkit prints.
#pragma once
#include "problem.hpp"

namespace convkit {

// Multiply-adds a second that `threads` cores reach together with the instruction set in force. Measures for about
// `seconds`, in short rounds, and adds the best round of each member: the limit is what nothing else disturbed.
double fma_peak(Dtype dtype, int threads, double seconds);

}  // namespace convkit
