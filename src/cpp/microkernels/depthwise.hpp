// Depthwise sliding windows: one filter, one channel, no reduction over channels.
//
// slide_columns and slide_rows hold the outputs that the window still touches in registers and slide along one axis of the image: every
// input vector is loaded once and meets all outputs that need it, so that loads stay well under one per FMA.
//
//   slide_columns  lanes on channels (NHWC), Rows output rows at once, sliding along columns
//   tile_columns   the same for 3x3 in tiles of a few columns, all vectors of channels of a tile one after the other: what
//                  lies together in memory is read together, and vectors across two lines find the first one in L1
//   slide_rows     lanes on pixels (NCHW), NV neighbouring vectors of one plane, sliding down rows
//   any_columns    lanes on channels, any filter, stride and dilation: one output row, several columns at once
//
// "Steps" are taken along the sliding axis: with dilation d the caller runs d interleaved problems whose steps are d
// pixels apart. Steps outside the image contribute nothing and cost nothing; across the axis rows that do not exist are
// skipped too (slide_columns) or are zeros that the caller provides (slide_rows).
//
// Register budget: with 32 registers a 3x3 filter stays in nine of them; otherwise its vectors are read from L1, once for
// all outputs of a step where the input rows fit beside the accumulators, as memory operands where not.
#pragma once
#include "isa/vec.hpp"

namespace convkit::CONVKIT_ISA {

// What both kernels do to a finished output.
template <class T>
struct SlideOut {
  T* y;
  const T* residual;           // like y, or null
  std::ptrdiff_t row, column;  // between output rows and along a row, elements
  T lo, hi;
  bool clamp;
  int valid;  // lanes to store: of every vector (slide_columns), of the last one (slide_rows)
};

template <int K, int S>
struct Window {
  static constexpr int live = S == 1 ? K : (K + 1) / 2;  // outputs under way along the sliding axis
};

template <int Value>
struct Phase {
  static constexpr int value = Value;
};

// Finishes Count vectors, `step` apart; the last one is `valid` lanes wide, the others too unless they are Whole.
template <class T, int Count, bool Whole>
CONVKIT_INLINE void finish(const typename Vec<T>::Reg (&a)[Count], const SlideOut<T>& out, std::ptrdiff_t at,
                           std::ptrdiff_t step) {
  using V = Vec<T>;
  typename V::Reg v[Count];
  CONVKIT_UNROLL
  for (int i = 0; i < Count; ++i) v[i] = a[i];
  if (out.residual) {
    CONVKIT_UNROLL
    for (int i = 0; i < Count; ++i) {
      v[i] += V::load(out.residual + at + i * step, Whole && i < Count - 1 ? V::lanes : out.valid);
    }
  }
  if (out.clamp) {
    const auto lo = V::set1(out.lo), hi = V::set1(out.hi);
    CONVKIT_UNROLL
    for (int i = 0; i < Count; ++i) v[i] = V::min(hi, V::max(lo, v[i]));
  }
  if (out.valid == V::lanes) {
    CONVKIT_UNROLL
    for (int i = 0; i < Count; ++i) V::store(out.y + at + i * step, v[i]);
  } else {
    CONVKIT_UNROLL
    for (int i = 0; i < Count; ++i) {
      V::store(out.y + at + i * step, v[i], Whole && i < Count - 1 ? V::lanes : out.valid);
    }
  }
}

// Finishes a vector whose halves belong to two planes, `second` apart.
template <class T>
CONVKIT_INLINE void finish_pair(typename Vec<T>::Reg v, const SlideOut<T>& out, std::ptrdiff_t at,
                                std::ptrdiff_t second) {
  using V = Vec<T>;
  constexpr int half = V::lanes / 2;
  const auto low = V::between(0, out.valid), high = V::between(half, half + out.valid);
  if (out.residual) {
    const T* r = out.residual + at;
    v += V::load_masked(r + second - half, high, V::load_masked(r, low));
  }
  if (out.clamp) v = V::min(V::set1(out.hi), V::max(V::set1(out.lo), v));
  V::store_masked(out.y + at, v, low);
  V::store_masked(out.y + at + second - half, v, high);
}

// Walks `outputs` outputs of a window of K taps and stride S. Input step q counts from the first padded one; those in
// [before, before + existing) are fed. feed(Phase<q % S>, q - before) adds to the live outputs, emit(o) finishes the
// oldest (o < 0: it lies before the image) and makes room for a new one.
template <int K, int S, class Feed, class Emit>
CONVKIT_INLINE void slide(std::int64_t outputs, std::int64_t before, std::int64_t existing, const Feed& feed,
                          const Emit& emit) {
  constexpr int live = Window<K, S>::live;
  const std::int64_t end = outputs + live - 1;
  for (std::int64_t m = 0; m < end; ++m) {
    const std::int64_t q = m * S - before;
    if (static_cast<std::uint64_t>(q) < static_cast<std::uint64_t>(existing)) feed(Phase<0>{}, q);
    emit(m - (live - 1));
    if constexpr (S == 2) {
      if (static_cast<std::uint64_t>(q + 1) < static_cast<std::uint64_t>(existing)) feed(Phase<1>{}, q + 1);
    }
  }
}

// Live output t meets this tap of a step in phase P, or none (-1). With stride 1 and in phase 0 the oldest output, t = 0,
// meets the last tap; phase 1 comes after the oldest has left.
template <int K, int S>
constexpr int tap_of(int phase, int t) {
  constexpr int live = Window<K, S>::live;
  if (S == 1) return K - 1 - t;
  if (phase == 0) return 2 * (live - 1 - t);
  return t < live - 1 ? 2 * (live - 2 - t) + 1 : -1;
}

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
  constexpr bool held = V::registers == 32 && K == 3;
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

// How slide_rows gets at the pixels under a filter column.
//   blocks  from a copy that holds the padding; column kx is offset[kx] away, whatever the stride
//   masked  from the image, lanes outside it masked off
//   paired  likewise from two planes, one in each half of the vector
enum class Pixels { blocks, masked, paired };

template <class T>
struct RowsIn {
  const T* x;          // blocks: lane 0 under the first filter column; else: pixel 0; of the first step that exists
  std::ptrdiff_t row;  // from step to step
  const std::ptrdiff_t* offset;        // blocks: [K]
  std::ptrdiff_t plane;                // paired: from plane to plane
  std::int64_t left, width, dilation;  // masked, paired: pixel of lane 0 under the first filter column; pixels in a row
  std::int64_t before, existing;
  const T* w;     // [K][K], the second plane's behind it
  const T* bias;  // one value a plane
};

// How many planes, or pairs of planes, and the steps between them.
struct Planes {
  std::int64_t count;
  std::ptrdiff_t x, w, bias, y;
};

template <class T, int K, int S, int NV, Pixels From>
struct PixelLoads;

template <class T, int K, int S, int NV>
struct PixelLoads<T, K, S, NV, Pixels::blocks> {
  using V = Vec<T>;
  static constexpr bool beyond = false;
  std::ptrdiff_t offset[K];
  CONVKIT_INLINE PixelLoads(const RowsIn<T>& in, int) {
    CONVKIT_UNROLL
    for (int kx = 0; kx < K; ++kx) offset[kx] = in.offset[kx];
  }
  struct Row {
    const PixelLoads& loads;
    const T* p;
    CONVKIT_INLINE typename V::Reg operator()(int kx, int v) const {
      return V::load(p + loads.offset[kx] + v * V::lanes);
    }
  };
  template <bool Beyond>
  CONVKIT_INLINE Row row(const T* p) const {
    return {*this, p};
  }
};

template <class T, int K, int NV>
struct PixelLoads<T, K, 1, NV, Pixels::masked> {
  using V = Vec<T>;
  static constexpr bool beyond = false;
  std::ptrdiff_t left, dilation;
  typename V::Mask mask[K][NV];
  CONVKIT_INLINE PixelLoads(const RowsIn<T>& in, int) : left(in.left), dilation(in.dilation) {
    CONVKIT_UNROLL
    for (int kx = 0; kx < K; ++kx) {
      CONVKIT_UNROLL
      for (int v = 0; v < NV; ++v) {
        const std::int64_t pixel = left + kx * dilation + v * V::lanes;
        mask[kx][v] = V::between(-pixel, in.width - pixel);
      }
    }
  }
  struct Row {
    const PixelLoads& loads;
    const T* p;
    CONVKIT_INLINE typename V::Reg operator()(int kx, int v) const {
      return V::load_masked(p + loads.left + kx * loads.dilation + v * V::lanes, loads.mask[kx][v]);
    }
  };
  template <bool Beyond>
  CONVKIT_INLINE Row row(const T* p) const {
    return {*this, p};
  }
};

// Stride 2: the even pixels are under filter column 0, the odd ones under column 1, and under the columns behind are the
// same, some lanes on.
template <class T, int K, int NV>
struct PixelLoads<T, K, 2, NV, Pixels::masked> {
  using V = Vec<T>;
  std::ptrdiff_t left;
  bool beyond;  // outputs meet pixels behind those of NV vectors
  typename V::Mask mask[2 * NV + 1];
  CONVKIT_INLINE PixelLoads(const RowsIn<T>& in, int valid) : left(in.left), beyond(valid + K / 2 > V::lanes) {
    CONVKIT_UNROLL
    for (int v = 0; v < 2 * NV + 1; ++v) {
      const std::int64_t pixel = left + v * V::lanes;
      mask[v] = V::between(-pixel, in.width - pixel);
    }
  }
  struct Row {
    typename V::Reg even[NV + 1], odd[NV + 1];
    CONVKIT_INLINE typename V::Reg operator()(int kx, int v) const {
      const auto& from = kx % 2 ? odd : even;
      switch (kx / 2) {
        case 0: return from[v];
        case 1: return V::template after<1>(from[v], from[v + 1]);
        case 2: return V::template after<2>(from[v], from[v + 1]);
        default: return V::template after<3>(from[v], from[v + 1]);
      }
    }
  };
  template <bool Beyond>
  CONVKIT_INLINE Row row(const T* p) const {
    Row r;
    p += left;
    CONVKIT_UNROLL
    for (int v = 0; v < NV; ++v) {
      const auto a = V::load_masked(p + v * 2 * V::lanes, mask[2 * v]);
      const auto b = V::load_masked(p + (v * 2 + 1) * V::lanes, mask[2 * v + 1]);
      r.even[v] = V::even(a, b);
      r.odd[v] = V::odd(a, b);
    }
    r.even[NV] = r.odd[NV] = V::zero();
    if (Beyond) {
      const auto a = V::load_masked(p + NV * 2 * V::lanes, mask[2 * NV]);
      r.even[NV] = V::even(a, a);
      if (K > 3) r.odd[NV] = V::odd(a, a);
    }
    return r;
  }
};

template <class T, int K>
struct PixelLoads<T, K, 1, 1, Pixels::paired> {
  using V = Vec<T>;
  static constexpr int half = V::lanes / 2;
  static constexpr bool beyond = false;
  std::ptrdiff_t left, dilation, plane;
  typename V::Mask first[K], second[K];
  CONVKIT_INLINE PixelLoads(const RowsIn<T>& in, int) : left(in.left), dilation(in.dilation), plane(in.plane - half) {
    CONVKIT_UNROLL
    for (int kx = 0; kx < K; ++kx) {
      const std::int64_t pixel = left + kx * dilation;
      first[kx] = V::between(-pixel, smaller<std::int64_t>(half, in.width - pixel));
      second[kx] = V::between(half + larger<std::int64_t>(0, -pixel), half + in.width - pixel);
    }
  }
  struct Row {
    const PixelLoads& loads;
    const T* p;
    CONVKIT_INLINE typename V::Reg operator()(int kx, int) const {
      const T* from = p + loads.left + kx * loads.dilation;
      return V::load_masked(from + loads.plane, loads.second[kx], V::load_masked(from, loads.first[kx]));
    }
  };
  template <bool Beyond>
  CONVKIT_INLINE Row row(const T* p) const {
    return {*this, p};
  }
};

template <class T, int K>
struct PixelLoads<T, K, 2, 1, Pixels::paired> {
  using V = Vec<T>;
  std::ptrdiff_t left, plane;
  bool beyond;  // outputs meet pixels behind those of a vector
  typename V::Mask mask[(K + 1) / 2];
  CONVKIT_INLINE PixelLoads(const RowsIn<T>& in, int valid)
      : left(in.left), plane(in.plane), beyond(valid + K / 2 > V::lanes / 2) {
    CONVKIT_UNROLL
    for (int t = 0; t < (K + 1) / 2; ++t) mask[t] = V::between(-(left + 2 * t), in.width - (left + 2 * t));
  }
  template <bool Beyond>
  struct Row {
    const PixelLoads& loads;
    const T* p;
    typename V::Reg even, odd;
    CONVKIT_INLINE typename V::Reg operator()(int kx, int) const {
      if (kx < 2) return kx ? odd : even;
      if (!Beyond) {
        const auto from = kx % 2 ? odd : even;
        return kx < 4   ? V::template after<1>(from, from)
               : kx < 6 ? V::template after<2>(from, from)
                        : V::template after<3>(from, from);
      }
      const T* from = p + kx / 2 * 2;
      const auto a = V::load_masked(from, loads.mask[kx / 2]);
      const auto b = V::load_masked(from + loads.plane, loads.mask[kx / 2]);
      return kx % 2 ? V::odd(a, b) : V::even(a, b);
    }
  };
  template <bool Beyond>
  CONVKIT_INLINE Row<Beyond> row(const T* p) const {
    p += left;
    const auto a = V::load_masked(p, mask[0]), b = V::load_masked(p + plane, mask[0]);
    return {*this, p, V::even(a, b), V::odd(a, b)};
  }
};

// One plane or, paired, two of them.
template <class T, int K, int S, int NV, Pixels From, bool Beyond>
CONVKIT_INLINE void slide_plane(const RowsIn<T>& in, const PixelLoads<T, K, S, NV, From>& pixels, std::int64_t outputs,
                                const SlideOut<T>& sink, std::ptrdiff_t second) {
  using V = Vec<T>;
  using Reg = typename V::Reg;
  constexpr int live = Window<K, S>::live;
  constexpr bool held = V::registers == 32 && K == 3, paired = From == Pixels::paired;
  // One value a plane: of the first in the lower half, of the second in the upper.
  const auto spread = [](const T* low, const T* high) CONVKIT_LAMBDA {
    if constexpr (paired) {
      return V::load_splat(high, V::between(V::lanes / 2, V::lanes), V::broadcast(low));
    } else {
      return V::broadcast(low);
    }
  };
  const Reg bias = spread(in.bias, in.bias + 1);
  Reg a[live][NV];
  CONVKIT_UNROLL
  for (int t = 0; t < live; ++t) {
    CONVKIT_UNROLL
    for (int v = 0; v < NV; ++v) a[t][v] = bias;
  }
  const T* const w = in.w;
  const auto tap = [&](int i) CONVKIT_LAMBDA { return spread(w + i, w + K * K + i); };
  Reg k[held ? K * K : 1];
  if constexpr (held) {
    CONVKIT_UNROLL
    for (int i = 0; i < K * K; ++i) k[i] = tap(i);
  }
  const T* const x = in.x;
  const std::ptrdiff_t row = in.row;
  const auto feed = [&](auto phase, std::int64_t step) CONVKIT_LAMBDA {
    const auto pixels_of = pixels.template row<Beyond>(x + step * row);
    CONVKIT_UNROLL
    for (int kx = 0; kx < K; ++kx) {
      Reg under[NV];
      CONVKIT_UNROLL
      for (int v = 0; v < NV; ++v) under[v] = pixels_of(kx, v);
      CONVKIT_UNROLL
      for (int t = 0; t < live; ++t) {
        constexpr int p_ = decltype(phase)::value;
        const int ky = tap_of<K, S>(p_, t);
        if (ky < 0) continue;
        Reg weight;
        if constexpr (held) {
          weight = k[ky * K + kx];
        } else {
          weight = tap(ky * K + kx);
        }
        CONVKIT_UNROLL
        for (int v = 0; v < NV; ++v) a[t][v] = under[v] * weight + a[t][v];
      }
    }
  };
  const auto emit = [&](std::int64_t o) CONVKIT_LAMBDA {
    if (o >= 0) {
      if constexpr (paired) {
        finish_pair<T>(a[0][0], sink, o * sink.row, second);
      } else {
        finish<T, NV, true>(a[0], sink, o * sink.row, V::lanes);
      }
    }
    CONVKIT_UNROLL
    for (int v = 0; v < NV; ++v) {
      CONVKIT_UNROLL
      for (int t = 0; t < live - 1; ++t) a[t][v] = a[t + 1][v];
      a[live - 1][v] = bias;
    }
  };
  slide<K, S>(outputs, in.before, in.existing, feed, emit);
}

// Several planes, or pairs of planes, one after the other. `second` leads from an output of a pair's first plane to that
// of the second.
template <class T, int K, int S, int NV, Pixels From>
void slide_rows(const Planes& planes, const RowsIn<T>& in, std::int64_t outputs, const SlideOut<T>& out,
                std::ptrdiff_t second) {
  // Local copies: stores of T through `out` could change what is behind a reference.
  RowsIn<T> source = in;
  SlideOut<T> sink = out;
  const PixelLoads<T, K, S, NV, From> pixels(in, out.valid);
  for (std::int64_t left = planes.count; left > 0; --left) {
    if (S == 2 && pixels.beyond) {
      slide_plane<T, K, S, NV, From, S == 2>(source, pixels, outputs, sink, second);
    } else {
      slide_plane<T, K, S, NV, From, false>(source, pixels, outputs, sink, second);
    }
    source.x += planes.x;
    source.w += planes.w;
    source.bias += planes.bias;
    sink.y += planes.y;
    if (sink.residual) sink.residual += planes.y;
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
  constexpr int wide = Vec<T>::registers == 32 ? 8 : 4;
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
