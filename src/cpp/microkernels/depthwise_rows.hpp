// Depthwise windows over NCHW: lanes on pixels, NV neighbouring vectors of one plane, sliding down rows (sliding.hpp). Rows
// that do not exist are zeros that the caller provides.
#pragma once
#include "microkernels/sliding.hpp"

namespace convkit::CONVKIT_ISA {

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
  // Elements by which pixels are fetched into L1 ahead, or 0: masked loads of memory beyond the caches go unnoticed by the
  // hardware's prefetchers.
  std::ptrdiff_t ahead;
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
  constexpr bool held = filter_held<T, K>, paired = From == Pixels::paired;
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
  // Masked-off lanes load their lines too.
  const std::ptrdiff_t row = in.row, ahead = in.ahead ? in.ahead + in.left : 0;
  const auto feed = [&](auto phase, std::int64_t step) CONVKIT_LAMBDA {
    const auto pixels_of = pixels.template row<Beyond>(x + step * row);
    if (ahead) {
      CONVKIT_UNROLL
      for (int v = 0; v <= NV * S; ++v) __builtin_prefetch(x + step * row + ahead + v * V::lanes, 0, 3);
      if constexpr (paired) __builtin_prefetch(x + step * row + ahead + in.plane, 0, 3);
    }
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

}  // namespace convkit::CONVKIT_ISA
