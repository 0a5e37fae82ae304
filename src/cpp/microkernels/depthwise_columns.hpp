// Depthwise windows over NHWC: lanes on channels (the windows themselves: sliding.hpp).
//
//   slide_columns  Rows output rows at once, sliding along columns; rows that do not exist are skipped
//   tile_columns   the same for 3x3 in tiles of a few columns, all vectors of channels of a tile one after the other: what
//                  lies together in memory is read together, and vectors across two lines find the first one in L1
//   any_columns    any filter, stride and dilation: one output row, several columns at once
#pragma once
#include "microkernels/sliding.hpp"

namespace convkit::CONVKIT_ISA {

template <class T>
struct ColumnsIn {
  const T* x;                  // first step that exists of input row 0
  std::ptrdiff_t row, column;  // from input row to input row, from step to step
  int rows_begin, rows_end;    // input rows that exist, of Rows * S + K - S
  std::int64_t before, existing;
  const T* w;                // [K][K][lanes]
  const T* bias;             // [lanes]
  std::ptrdiff_t bias_step;  // to the next block's
  std::ptrdiff_t ahead;      // prefetch Rows * S rows from here on into L2; 0: do not
};

template <class T, int K, int S, int Rows, bool Whole>
CONVKIT_INLINE void slide_block(const ColumnsIn<T>& source, std::int64_t outputs, const SlideOut<T>& sink) {
  using V = Vec<T>;
  using Reg = typename V::Reg;
  constexpr int live = Window<K, S>::live, rows = Rows * S + K - S;
  constexpr bool held = filter_held<T, K>;
  constexpr bool rows_held = !held && Whole && live * Rows + rows + 1 <= V::registers;
  const Reg bias = V::load(source.bias);
  Reg a[live][Rows];
  CONVKIT_UNROLL
  for (int t = 0; t < live; ++t) {
    CONVKIT_UNROLL
    for (int r = 0; r < Rows; ++r) a[t][r] = bias;
  }
  Reg k[held ? K * K : 1];
  if constexpr (held) {
    CONVKIT_UNROLL
    for (int i = 0; i < K * K; ++i) k[i] = V::load(source.w + i * V::lanes);
  }
  const auto feed = [&](auto phase, std::int64_t step) CONVKIT_LAMBDA {
    const T* p = source.x + step * source.column;
    if (source.ahead) {
      CONVKIT_UNROLL
      for (int r = 0; r < Rows * S; ++r) __builtin_prefetch(p + source.ahead + r * source.row, 0, 2);
    }
    if constexpr (rows_held) {
      Reg x[rows];
      CONVKIT_UNROLL
      for (int i = 0; i < rows; ++i) x[i] = V::load(p + i * source.row);
      CONVKIT_UNROLL
      for (int ky = 0; ky < K; ++ky) {
        CONVKIT_UNROLL
        for (int t = 0; t < live; ++t) {
          constexpr int p_ = decltype(phase)::value;
          const int kx = tap_of<K, S>(p_, t);
          if (kx < 0) continue;
          const Reg w = V::load(source.w + (ky * K + kx) * V::lanes);
          CONVKIT_UNROLL
          for (int r = 0; r < Rows; ++r) a[t][r] = x[r * S + ky] * w + a[t][r];
        }
      }
    } else {
      CONVKIT_UNROLL
      for (int i = 0; i < rows; ++i) {
        if (!Whole && (i < source.rows_begin || i >= source.rows_end)) continue;
        const Reg x = V::load(p + i * source.row);
        CONVKIT_UNROLL
        for (int r = 0; r < Rows; ++r) {
          const int ky = i - r * S;
          if (ky < 0 || ky >= K) continue;
          CONVKIT_UNROLL
          for (int t = 0; t < live; ++t) {
            constexpr int p_ = decltype(phase)::value;
            const int kx = tap_of<K, S>(p_, t);
            if (kx < 0) continue;
            if constexpr (held) {
              a[t][r] = x * k[ky * K + kx] + a[t][r];
            } else {
              a[t][r] = x * V::load(source.w + (ky * K + kx) * V::lanes) + a[t][r];
            }
          }
        }
      }
    }
  };
  const auto emit = [&](std::int64_t o) CONVKIT_LAMBDA {
    if (o >= 0) {
      finish<T, Rows, false>(a[0], sink, o * sink.column, sink.row);
    }
    CONVKIT_UNROLL
    for (int r = 0; r < Rows; ++r) {
      CONVKIT_UNROLL
      for (int t = 0; t < live - 1; ++t) a[t][r] = a[t + 1][r];
      a[live - 1][r] = bias;
    }
  };
  slide<K, S>(outputs, source.before, source.existing, feed, emit);
}

template <class T>
CONVKIT_INLINE void next_block(ColumnsIn<T>& source, SlideOut<T>& sink, int taps) {
  source.x += Vec<T>::lanes;
  source.w += taps * Vec<T>::lanes;
  source.bias += source.bias_step;
  sink.y += Vec<T>::lanes;
  if (sink.residual) sink.residual += Vec<T>::lanes;
}

template <class T, int K, int S, int Rows, bool Whole>
void slide_columns(std::int64_t blocks, const ColumnsIn<T>& in, std::int64_t outputs, const SlideOut<T>& out) {
  // Local copies: stores of T through `out` could change what is behind a reference.
  ColumnsIn<T> source = in;
  SlideOut<T> sink = out;
  for (; blocks > 0; --blocks) {
    slide_block<T, K, S, Rows, Whole>(source, outputs, sink);
    next_block(source, sink, K * K);
  }
}

inline constexpr int tile_width = 4;

// A tile of Rows x tile_width outputs of a 3x3 window. Inside: all of them and all columns of x exist. Whole: all rows of x
// exist; else the first and the last one may not. Ahead: prefetch the next block's lines.
template <class T, int S, int Rows, bool Whole, bool Inside, bool Ahead>
CONVKIT_INLINE void column_tile(const ColumnsIn<T>& source, std::int64_t first, std::int64_t count,
                                const SlideOut<T>& sink) {
  using V = Vec<T>;
  using Reg = typename V::Reg;
  constexpr int rows = (Rows - 1) * S + 3, columns = (tile_width - 1) * S + 3;
  Reg k[9];
  CONVKIT_UNROLL
  for (int i = 0; i < 9; ++i) k[i] = V::load(source.w + i * V::lanes);
  const Reg bias = V::load(source.bias);
  Reg a[tile_width][Rows];
  CONVKIT_UNROLL
  for (int q = 0; q < tile_width; ++q) {
    CONVKIT_UNROLL
    for (int r = 0; r < Rows; ++r) a[q][r] = bias;
  }
  // Addresses that the compiler sees through it computes beforehand, all of them, and keeps on the stack.
  const std::ptrdiff_t row = source.row, three_rows = 3 * row;
  const T* top = source.x + first * source.column;
  CONVKIT_UNROLL
  for (int j = 0; j < columns; ++j, top += source.column) {
    asm("" : "+r"(top));
    if (!Inside && static_cast<std::uint64_t>(first + j) >= static_cast<std::uint64_t>(source.existing)) continue;
    const T* p = top;
    CONVKIT_UNROLL
    for (int i = 0; i < rows; ++i) {
      if (i > 0 && i % 3 == 0) {
        p += three_rows;
        asm("" : "+r"(p));
      }
      if (!Whole && i == 0 && source.rows_begin > 0) continue;
      if (!Whole && i == rows - 1 && source.rows_end < rows) continue;
      const Reg x = V::load(p + i % 3 * row);
      // The vector behind this one may end a line further on.
      if (Ahead) __builtin_prefetch(p + i % 3 * row + 2 * V::lanes - 1);
      CONVKIT_UNROLL
      for (int r = 0; r < Rows; ++r) {
        const int ky = i - r * S;
        if (ky < 0 || ky >= 3) continue;
        CONVKIT_UNROLL
        for (int q = 0; q < tile_width; ++q) {
          const int kx = j - q * S;
          if (kx >= 0 && kx < 3) a[q][r] = x * k[ky * 3 + kx] + a[q][r];
        }
      }
    }
  }
  CONVKIT_UNROLL
  for (int q = 0; q < tile_width; ++q) {
    if (Inside || q < count) finish<T, Rows, false>(a[q], sink, q * sink.column, sink.row);
  }
}

// What slide_columns does, in the same order of summation, tile by tile.
template <class T, int S, int Rows, bool Whole>
void tile_columns(std::int64_t blocks, const ColumnsIn<T>& in, std::int64_t outputs, const SlideOut<T>& out) {
  if (!Whole && (in.rows_begin > 1 || in.rows_end < (Rows - 1) * S + 2)) {
    return slide_columns<T, 3, S, Rows, Whole>(blocks, in, outputs, out);
  }
  constexpr int columns = (tile_width - 1) * S + 3;
  for (std::int64_t o = 0; o < outputs; o += tile_width) {
    const std::int64_t first = o * S - in.before, count = outputs - o;
    ColumnsIn<T> source = in;
    SlideOut<T> sink = out;
    sink.y += o * sink.column;
    if (sink.residual) sink.residual += o * sink.column;
    const bool inside = Whole && first >= 0 && first + columns <= in.existing && count >= tile_width;
    for (std::int64_t block = 0; block < blocks; ++block) {
      if (inside && in.ahead) {
        column_tile<T, S, Rows, Whole, Whole, Whole>(source, first, count, sink);
      } else if (inside) {
        column_tile<T, S, Rows, Whole, Whole, false>(source, first, count, sink);
      } else {
        column_tile<T, S, Rows, Whole, false, false>(source, first, count, sink);
      }
      next_block(source, sink, 9);
    }
  }
}

// One output row of any window. Columns near the edges are done one by one with the taps that exist.
template <class T>
struct AnyIn {
  const T* x;                                 // column 0 of the first input row that exists
  std::ptrdiff_t row, column, filter_column;  // from filter row to filter row, input column to column, tap to tap
  const T* w;                                 // first filter row that exists, [KH][KW][lanes]
  const T* bias;                              // [lanes]
  std::int64_t filter_rows, filter_columns;   // rows that exist
};

template <class T, int P>
CONVKIT_INLINE void any_tile(const AnyIn<T>& in, const T* x, std::ptrdiff_t step, std::int64_t first, std::int64_t last,
                             const SlideOut<T>& out, std::ptrdiff_t at) {
  using V = Vec<T>;
  typename V::Reg a[P];
  CONVKIT_UNROLL
  for (int i = 0; i < P; ++i) a[i] = V::load(in.bias);
  for (std::int64_t ky = 0; ky < in.filter_rows; ++ky) {
    for (std::int64_t kx = first; kx < last; ++kx) {
      const T* p = x + ky * in.row + kx * in.filter_column;
      const auto w = V::load(in.w + (ky * in.filter_columns + kx) * V::lanes);
      CONVKIT_UNROLL
      for (int i = 0; i < P; ++i) a[i] = V::load(p + i * step) * w + a[i];
    }
  }
  finish<T, P, false>(a, out, at, out.column);
}

template <class T>
void any_columns(const AnyIn<T>& in, std::int64_t width, std::int64_t stride, std::int64_t dilation,
                 std::int64_t before, std::int64_t outputs, const SlideOut<T>& out) {
  constexpr int wide = many_registers<T> ? 8 : 4;
  const std::int64_t reach = (in.filter_columns - 1) * dilation;
  const auto column = [&](std::int64_t o) CONVKIT_LAMBDA { return in.x + (o * stride - before) * in.column; };
  for (std::int64_t o = 0; o < outputs;) {
    const std::int64_t j = o * stride - before;
    if (j >= 0 && j + (wide - 1) * stride + reach < width && o + wide <= outputs) {
      any_tile<T, wide>(in, column(o), stride * in.column, 0, in.filter_columns, out, o * out.column);
      o += wide;
    } else {
      const std::int64_t first = j < 0 ? (-j + dilation - 1) / dilation : 0;
      const std::int64_t last = j >= width ? 0 : (width - 1 - j) / dilation + 1;
      any_tile<T, 1>(in, column(o), 0, smaller(first, in.filter_columns), smaller(last, in.filter_columns), out,
                     o * out.column);
      ++o;
    }
  }
}

}  // namespace convkit::CONVKIT_ISA
