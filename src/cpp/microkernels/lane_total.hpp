// The sum of a register's lanes.
#pragma once
#include "isa/vec.hpp"

namespace convkit::CONVKIT_ISA {

template <class T>
CONVKIT_INLINE T lane_total(typename Vec<T>::Reg v) {
  T lanes[Vec<T>::lanes], sum = 0;
  Vec<T>::store(lanes, v);
  CONVKIT_UNROLL
  for (int i = 0; i < Vec<T>::lanes; ++i) sum += lanes[i];
  return sum;
}

}  // namespace convkit::CONVKIT_ISA
