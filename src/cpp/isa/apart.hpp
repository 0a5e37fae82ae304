// Products that are rounded before they are added.
#pragma once
#include "isa/vec.hpp"

namespace convkit::CONVKIT_ISA {

// A product that the compiler is not to make one instruction with the sum it is added to.
template <class Reg>
CONVKIT_INLINE Reg apart(Reg product) {
  __asm__("" : "+v"(product));
  return product;
}

}  // namespace convkit::CONVKIT_ISA
