// Rectangular transposes through registers, for layouts that meet in L1.
#pragma once
#include "isa/vec.hpp"

namespace convkit::CONVKIT_ISA {

// Consecutive columns of a row.
struct EveryColumn {
  static constexpr int step = 1;
  template <class T>
  static CONVKIT_INLINE typename Vec<T>::Reg load(const T* row, std::int64_t column) {
    return Vec<T>::load(row + column);
  }
  template <class T>
  static CONVKIT_INLINE typename Vec<T>::Reg load(const T* row, std::int64_t column, int count) {
    return Vec<T>::load(row + column, count);
  }
};

// Column j is element 2 * j of the row.
struct EverySecondColumn {
  static constexpr int step = 2;
  template <class T>
  static CONVKIT_INLINE typename Vec<T>::Reg load(const T* row, std::int64_t column) {
    return Vec<T>::even(row + 2 * column);
  }
  template <class T>
  static CONVKIT_INLINE typename Vec<T>::Reg load(const T* row, std::int64_t column, int count) {
    return Vec<T>::even(row + 2 * column, count);
  }
};

// to[j * to_stride + i] = column j of row i of `from`, for i < rows, j < columns. Reads and writes nothing else. `fetched`
// rows of `from`, at least `rows`, are worth fetching into L2 on the way: those of a tensor, which the hardware fetches too
// late because it meets so many rows at once.
template <class T, class Columns = EveryColumn>
__attribute__((noinline)) void transpose_block(const T* from, std::ptrdiff_t from_stride, std::int64_t rows,
                                               std::int64_t columns, T* to, std::ptrdiff_t to_stride, Columns = {},
                                               std::int64_t fetched = 0) {
  using V = Vec<T>;
  constexpr int n = V::lanes;
  for (std::int64_t i = 0; i < rows; i += n) {
    const int height = static_cast<int>(smaller<std::int64_t>(rows - i, n));
    for (std::int64_t j = 0; j < columns; j += n) {
      const int width = static_cast<int>(smaller<std::int64_t>(columns - j, n));
      const T* source = from + i * from_stride;
      T* target = to + j * to_stride + i;
      typename V::Reg r[n];
      if (i + 2 * n <= fetched) {
        const T* const next = source + n * from_stride + Columns::step * j;
        CONVKIT_UNROLL
        for (int q = 0; q < n; ++q) __builtin_prefetch(next + q * from_stride, 0, 2);
      }
      if (height == n && width == n) {
        CONVKIT_UNROLL
        for (int q = 0; q < n; ++q) r[q] = Columns::load(source + q * from_stride, j);
        V::transpose(r);
        CONVKIT_UNROLL
        for (int q = 0; q < n; ++q) V::store(target + q * to_stride, r[q]);
      } else {
        CONVKIT_UNROLL
        for (int q = 0; q < n; ++q) {
          r[q] = q < height ? Columns::load(source + q * from_stride, j, width) : V::zero();
        }
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
