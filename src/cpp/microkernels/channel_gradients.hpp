// Weight gradients of a 3x3 depthwise convolution, NHWC, for 32 registers: lanes on channels, nine sums.
//
// A tile of output pixels keeps its gradients in registers while the columns of x under it pass by, each loaded once. The
// sums of a vector of channels are loaded and stored once a tile, all vectors of a tile come one after the other: what lies
// together in memory is read together.
#pragma once
#include "microkernels/lines_ahead.hpp"

namespace convkit::CONVKIT_ISA {

inline constexpr int gradient_rows = 4, gradient_columns = 4;

template <class T>
struct ChannelGradients {
  const T *x, *dy;             // of the tile's first pixels; of x: under the first filter row and column
  std::ptrdiff_t row, column;  // of x
  std::ptrdiff_t dy_row;       // of dy; its columns are as far apart as those of x
  std::int64_t first, width;   // column of x under the first filter column, columns that exist
  bool top, bottom;            // the first and the last row of x exist
  T* sums;                     // [9][lanes]
  bool ahead;                  // prefetch the next group of rows into L2
};

// Rows x count outputs. Inside: count is gradient_columns, and all rows and columns of x exist.
template <class T, int S, int Rows, bool Inside>
CONVKIT_INLINE void add_channel_tile(const ChannelGradients<T>& p, std::int64_t count) {
  using V = Vec<T>;
  using Reg = typename V::Reg;
  constexpr int rows = (Rows - 1) * S + 3, columns = (gradient_columns - 1) * S + 3;
  Reg sums[9];
  CONVKIT_UNROLL
  for (int i = 0; i < 9; ++i) sums[i] = V::load(p.sums + i * V::lanes);
  Reg g[gradient_columns][Rows];
  CONVKIT_UNROLL
  for (int q = 0; q < gradient_columns; ++q) {
    CONVKIT_UNROLL
    for (int r = 0; r < Rows; ++r) {
      g[q][r] = V::zero();
      if (Inside || q < count) g[q][r] = V::load(p.dy + r * p.dy_row + q * p.column);
    }
  }
  // Addresses that the compiler sees through it computes beforehand, all of them, and keeps on the stack.
  const std::ptrdiff_t row = p.row, three_rows = 3 * row;
  const T* top = p.x;
  CONVKIT_UNROLL
  for (int j = 0; j < columns; ++j, top += p.column) {
    asm("" : "+r"(top));
    if (!Inside && static_cast<std::uint64_t>(p.first + j) >= static_cast<std::uint64_t>(p.width)) continue;
    const T* from = top;
    Reg x[rows];
    CONVKIT_UNROLL
    for (int i = 0; i < rows; ++i) {
      if (i > 0 && i % 3 == 0) {
        from += three_rows;
        asm("" : "+r"(from));
      }
      if (!Inside && ((i == 0 && !p.top) || (i == rows - 1 && !p.bottom))) {
        x[i] = V::zero();
        continue;
      }
      x[i] = V::load(from + i % 3 * row);
      if (Inside) __builtin_prefetch(from + i % 3 * row + 2 * V::lanes - 1);
    }
    CONVKIT_UNROLL
    for (int q = 0; q < gradient_columns; ++q) {
      const int kx = j - q * S;
      if (kx < 0 || kx >= 3 || (!Inside && q >= count)) continue;
      CONVKIT_UNROLL
      for (int i = 0; i < rows; ++i) {
        if (!Inside && ((i == 0 && !p.top) || (i == rows - 1 && !p.bottom))) continue;
        CONVKIT_UNROLL
        for (int r = 0; r < Rows; ++r) {
          const int ky = i - r * S;
          if (ky >= 0 && ky < 3) sums[ky * 3 + kx] = x[i] * g[q][r] + sums[ky * 3 + kx];
        }
      }
    }
  }
  CONVKIT_UNROLL
  for (int i = 0; i < 9; ++i) V::store(p.sums + i * V::lanes, sums[i]);
}

// One group of output rows, `outputs` columns wide, and `blocks` vectors of channels; p describes its first tile.
template <class T, int S, int Rows>
void add_channels(const ChannelGradients<T>& p, std::int64_t outputs, std::int64_t blocks) {
  constexpr int columns = (gradient_columns - 1) * S + 3;
  // The rows of the next group, which follow.
  const std::int64_t visits = (outputs + gradient_columns - 1) / gradient_columns * blocks;
  LinesAhead<T, 2> ahead_x(p.x + ((Rows - 1) * S + 3) * p.row, Rows * S * p.row, visits);
  LinesAhead<T, 2> ahead_dy(p.dy + Rows * p.dy_row, Rows * p.dy_row, visits);
  for (std::int64_t o = 0; o < outputs; o += gradient_columns) {
    ChannelGradients<T> tile = p;
    tile.x += o * S * p.column;
    tile.dy += o * p.column;
    tile.first += o * S;
    const bool inside =
        p.top && p.bottom && tile.first >= 0 && tile.first + columns <= p.width && outputs - o >= gradient_columns;
    for (std::int64_t block = 0; block < blocks; ++block) {
      if (p.ahead) ahead_x.advance(), ahead_dy.advance();
      if (inside) {
        add_channel_tile<T, S, Rows, true>(tile, gradient_columns);
      } else {
        add_channel_tile<T, S, Rows, false>(tile, outputs - o);
      }
      tile.x += Vec<T>::lanes;
      tile.dy += Vec<T>::lanes;
      tile.sums += 9 * Vec<T>::lanes;
    }
  }
}

}  // namespace convkit::CONVKIT_ISA
