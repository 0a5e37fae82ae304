// A filter of three taps over a whole image of two pixels with a zero on either side: a 2 x 2 Toeplitz matrix,
//
//   y0 = g1 d0 + g2 d1        p = g1 (d0 + d1)    q = (g2 - g1) d1    s = (g0 - g1) d0
//   y1 = g0 d0 + g1 d1        y0 = p + q          y1 = p + s
//
// in three multiplications where F(2, 3) takes four, because the outermost inputs of its tile are known to be zero. In two
// dimensions that is 9 instead of 16, and the transformed filter is no larger than the filter.
#pragma once
#include "microkernels/winograd_adjoint.hpp"

namespace convkit::CONVKIT_ISA {

// As a Winograd tile: the second to last of its inputs are the pixels, what lies before them is padding and not looked at.
struct Toeplitz2 {
  static constexpr int m = 2, r = 3, n = 3;
};

}  // namespace convkit::CONVKIT_ISA
