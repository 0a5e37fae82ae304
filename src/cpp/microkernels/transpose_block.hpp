// Rectangular transposes through registers, for layouts that meet in L1.
#pragma once
#include "isa/vec.hpp"

namespace convkit::CONVKIT_ISA {

// to[j * to_stride + i] = from[i * from_stride + j] for i < rows, j < columns. Reads and writes nothing else.
template <class T>
CONVKIT_INLINE void transpose_block(const T* from, std::ptrdiff_t from_stride, std::int64_t rows, std::int64_t columns,
                                    T* to, std::ptrdiff_t to_stride) {
  using V = Vec<T>;
  constexpr int n = V::lanes;
  for (std::int64_t i = 0; i < rows; i += n) {
    const int height = static_cast<int>(smaller<std::int64_t>(rows - i, n));
    for (std::int64_t j = 0; j < columns; j += n) {
      const int width = static_cast<int>(smaller<std::int64_t>(columns - j, n));
      const T* source = from + i * from_stride + j;
      T* target = to + j * to_stride + i;
      typename V::Reg r[n];
      if (height == n && width == n) {
        CONVKIT_UNROLL
        for (int q = 0; q < n; ++q) r[q] = V::load(source + q * from_stride);
        V::transpose(r);
        CONVKIT_UNROLL
        for (int q = 0; q < n; ++q) V::store(target + q * to_stride, r[q]);
      } else {
        CONVKIT_UNROLL
        for (int q = 0; q < n; ++q) r[q] = q < height ? V::load(source + q * from_stride, width) : V::zero();
        V::transpose(r);
        CONVKIT_UNROLL
        for (int q = 0; q < n; ++q) {
          if (q < width) V::store(target + q * to_stride, r[q], height);
        }
      }
    }
  }
}

}  // namespace convkit::CONVKIT_ISA
