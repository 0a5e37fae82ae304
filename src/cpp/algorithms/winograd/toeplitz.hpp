// Which problems a tile takes beyond its filter: most take any size, Toeplitz2 only the image it was made for.
#pragma once
#include "algorithms/sharing.hpp"
#include "microkernels/toeplitz_transforms.hpp"

namespace convkit::CONVKIT_ISA {

template <class F>
CONVKIT_INLINE bool suits(const ConvProblem&) {
  return true;
}

template <>
CONVKIT_INLINE bool suits<Toeplitz2>(const ConvProblem& p) {
  return p.h == 2 && p.w == 2 && p.oh == 2 && p.ow == 2 && p.pad_top == 1 && p.pad_left == 1 && p.dilation_h == 1 &&
         p.dilation_w == 1;
}

}  // namespace convkit::CONVKIT_ISA
