// Sums of taps over lines: one line of results from as many lines as there are taps. Neighbouring rows of an image are such
// lines, and so is one row read from neighbouring columns.
//
// Sums are taken in order. Symmetric taps begin in the middle and go on with pairs from the ends, as SciPy's do. In double
// products are rounded before they are added, so that results are SciPy's bit for bit: an integer that a sum just reaches or
// misses is cut to another one.
#pragma once
#include "isa/apart.hpp"

namespace convkit::CONVKIT_ISA {

enum class Symmetry : std::int32_t { none, even, odd };

// Taps of one axis in the computing type.
template <class T>
struct Taps {
  Symmetry symmetry;
  std::int64_t count;
  const T* values;
};

template <class T>
CONVKIT_INLINE typename Vec<T>::Reg multiply_add(typename Vec<T>::Reg a, typename Vec<T>::Reg b,
                                                 typename Vec<T>::Reg sum) {
  if constexpr (sizeof(T) == 8) {
    return apart(a * b) + sum;
  } else {
    return a * b + sum;
  }
}

template <class T>
void sum_tap_lines(const Taps<T>& taps, const T* const* lines, std::int64_t width, T* out);

}  // namespace convkit::CONVKIT_ISA
