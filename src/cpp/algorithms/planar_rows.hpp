// Rows of one NCHW plane copied so that the window's loads are whole vectors: padding becomes zeros, and a row of stride S
// becomes S blocks of every S-th pixel.
#pragma once
#include "algorithms/sharing.hpp"
#include "problem.hpp"

namespace convkit::CONVKIT_ISA {

// Rows of x, and the rows of blocks that they are copied to. All loops run down the rows, so that what differs along a
// row is decided once.
template <class T>
struct PlanarRows {
  using V = Vec<T>;
  const T* x;
  T* to;
  std::int64_t rows;
  std::ptrdiff_t x_row, to_row, block;

  CONVKIT_INLINE void clear(std::int64_t begin, std::int64_t end) const {
    for (std::int64_t i = begin; i < end; i += V::lanes) {
      for (std::int64_t r = 0; r < rows; ++r) V::store(to + r * to_row + i, V::zero());
    }
  }
  CONVKIT_INLINE void vector(std::int64_t i, std::int64_t j, std::int64_t count) const {
    const T* from = x + j;
    T* target = to + i;
    if (count >= V::lanes) {
      for (std::int64_t r = 0; r < rows; ++r) V::store(target + r * to_row, V::load(from + r * x_row));
    } else {
      const int n = static_cast<int>(count);
      for (std::int64_t r = 0; r < rows; ++r) V::store(target + r * to_row, V::load(from + r * x_row, n));
    }
  }
  // Pixels j, j + 2, ... to one block, those between them to the next.
  CONVKIT_INLINE void pairs(std::int64_t i, std::int64_t j, std::int64_t count) const {
    const T* from = x + j;
    T* target = to + i;
    const int low = static_cast<int>(smaller<std::int64_t>(count, V::lanes));
    const int high = static_cast<int>(smaller<std::int64_t>(count - low, V::lanes));
    for (std::int64_t r = 0; r < rows; ++r, from += x_row, target += to_row) {
      const auto a = low == V::lanes ? V::load(from) : V::load(from, low);
      const auto b = high == V::lanes ? V::load(from + V::lanes) : high ? V::load(from + V::lanes, high) : V::zero();
      V::store(target, V::even(a, b));
      V::store(target + block, V::odd(a, b));
    }
  }

  // What a strip from output o on needs: element i < width of block f is padded pixel (o + i) * stride + f. Writes up to
  // a vector of zeros behind that.
  void strip(const ConvProblem& p, std::int64_t o, std::int64_t width) const {
    const std::int64_t stride = p.stride_w;
    if (stride == 1) {
      std::int64_t i = larger<std::int64_t>(p.pad_left - o, 0);
      const std::int64_t end = smaller(width, p.w + p.pad_left - o);
      clear(0, smaller(i, width));
      for (; i < end; i += V::lanes) vector(i, o + i - p.pad_left, end - i);
      clear(i, width);
    } else if (stride == 2) {
      std::int64_t i = larger<std::int64_t>(p.pad_left - 2 * o, 0) / 2, j = (o + i) * 2 - p.pad_left;
      const PlanarRows odd{x, to + block, rows, x_row, to_row, block};
      clear(0, smaller(i + 1, width));
      odd.clear(0, smaller(i + 1, width));
      if (j < 0 && i < width) {
        for (std::int64_t r = 0; r < rows; ++r) to[r * to_row + block + i] = x[r * x_row];
        ++i;
        j += 2;
      }
      for (; i < width && j < p.w; i += V::lanes, j += 2 * V::lanes) pairs(i, j, p.w - j);
      clear(i, width);
      odd.clear(i, width);
    } else {
      for (std::int64_t r = 0; r < rows; ++r) {
        for (std::int64_t f = 0; f < stride; ++f) {
          for (std::int64_t i = 0; i < width; ++i) {
            const std::int64_t j = (o + i) * stride + f - p.pad_left;
            to[r * to_row + f * block + i] = j >= 0 && j < p.w ? x[r * x_row + j] : T(0);
          }
        }
      }
    }
  }
};

}  // namespace convkit::CONVKIT_ISA
