// What an input gradient does to pixels of dx, channels last, beside the products that reach them.
#pragma once
#include "algorithms/gemm.hpp"

namespace convkit::CONVKIT_ISA {

// Bias and residual, as where nothing is added, or nothing yet: the residual may be the pixels themselves.
template <class T>
void fill_pixels(std::int64_t pixels, const T* bias, const T* residual, int valid, T* to, std::ptrdiff_t stride) {
  using V = Vec<T>;
  for (int j = 0; j < valid; j += V::lanes) {
    const int n = smaller(valid - j, V::lanes);
    const auto value = bias ? V::load(bias + j, n) : V::zero();
    for (std::int64_t i = 0; i < pixels; ++i) {
      V::store(to + i * stride + j, residual ? value + V::load(residual + i * stride + j, n) : value, n);
    }
  }
}

// The activation, on `rows` runs of `columns` values.
template <class T>
void finish_rows(const Finish<T>& finish, std::int64_t rows, std::int64_t columns, T* y, std::ptrdiff_t stride) {
  using V = Vec<T>;
  if (finish.clamp) {
    const auto lo = V::set1(finish.lo), hi = V::set1(finish.hi);
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t i = 0; i < columns; i += V::lanes) {
        const int n = static_cast<int>(smaller<std::int64_t>(columns - i, V::lanes));
        V::store(y + r * stride + i, V::min(hi, V::max(lo, V::load(y + r * stride + i, n))), n);
      }
    }
  }
  if (finish.after) activate_rows(y, rows, stride, columns, *finish.after);
}

}  // namespace convkit::CONVKIT_ISA
