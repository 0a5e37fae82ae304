// Weight gradients of a 3x3 depthwise convolution, NCHW, for registers with masks: lanes on the output pixels of a row, nine
// sums in registers over all rows and images of a channel, lanes added up at the end.
//
// Four output rows are one tile, so that a row of x is loaded once for all filter rows. Where an output row fills half a
// vector at most, and one pixel on its left is padding, two images share it. Lanes without an output hold zeros in both
// factors.
#pragma once
#include "microkernels/lines_ahead.hpp"

namespace convkit::CONVKIT_ISA {

// What a vector of outputs reads: up to `lanes` output columns of one image, or of two.
template <class T, int S, bool Paired>
struct PlaneSpan {
  using V = Vec<T>;
  using Reg = typename V::Reg;
  using Mask = typename V::Mask;
  static constexpr int half = V::lanes / 2;
  std::ptrdiff_t left, first;  // pixel of lane 0 under filter column 0; output of lane 0
  Mask low[3], high;           // of loads; high: second image's
  Mask outputs, low_outputs, high_outputs, not_first;

  PlaneSpan() = default;
  // `second`: there is a second image.
  CONVKIT_INLINE PlaneSpan(std::int64_t begin, std::int64_t valid, std::int64_t pad, std::int64_t width, bool second)
      : left(begin * S - pad), first(begin) {
    low_outputs = V::between(0, valid);
    high_outputs = second ? V::between(half, half + valid) : V::between(0, 0);
    outputs = static_cast<Mask>(low_outputs | high_outputs);
    not_first = static_cast<Mask>(V::between(1, valid) | (second ? V::between(half + 1, half + valid) : Mask{0}));
    for (int i = 0; i < 3; ++i) {
      // Stride 2: lane l reads pixels 2 l, 2 l + 1 and 2 l + 2 of at most three vectors; paired, of one.
      const std::int64_t pixel = left + (S == 1 ? i : i * V::lanes);
      const std::int64_t end =
          S == 1 ? smaller(width - pixel, valid) : smaller(width - left, 2 * valid + 1) - i * V::lanes;
      low[i] = V::between(-pixel, end);
    }
    // Stride 1, paired: the pixels under column 1.
    if (S == 1 && Paired) low[0] = V::between(-(left + 1), smaller<std::int64_t>(width - left - 1, half));
    high = second ? low[0] : Mask{0};
    if (S == 1) high = static_cast<Mask>(high << half);
  }

  // The pixels of one row of x under the three filter columns.
  CONVKIT_INLINE void load(const T* row, std::ptrdiff_t second, Reg (&x)[3]) const {
    row += left;
    if constexpr (S == 1 && Paired) {
      const Reg v = V::load_masked(row + 1 + second - half, high, V::load_masked(row + 1, low[0]));
      x[0] = V::keep(V::template after<V::lanes - 1>(v, v), not_first);
      x[1] = V::keep(v, outputs);
      x[2] = V::keep(V::template after<1>(v, v), outputs);
    } else if constexpr (S == 1) {
      CONVKIT_UNROLL
      for (int i = 0; i < 3; ++i) x[i] = V::load_masked(row + i, low[i]);
    } else if constexpr (Paired) {
      const Reg a = V::load_masked(row, low[0]), b = V::load_masked(row + second, high);
      const Reg even = V::even(a, b);
      x[0] = V::keep(even, outputs);
      x[1] = V::keep(V::odd(a, b), outputs);
      x[2] = V::keep(V::template after<1>(even, even), outputs);
    } else {
      const Reg a = V::load_masked(row, low[0]), b = V::load_masked(row + V::lanes, low[1]);
      const Reg even = V::even(a, b);
      x[0] = V::keep(even, outputs);
      x[1] = V::odd(a, b);
      x[2] = V::template after<1>(even, V::load_masked(row + 2 * V::lanes, low[2]));
    }
  }
  CONVKIT_INLINE Reg gradient(const T* row, std::ptrdiff_t second) const {
    const Reg v = V::load_masked(row + first, low_outputs);
    return Paired ? V::load_masked(row + first + second - half, high_outputs, v) : v;
  }
};

// One channel. An image without a partner is its own: loads without lanes are slow where there is no memory.
template <class T>
struct PlaneGradients {
  const T *x, *dy;                   // of the first image
  std::ptrdiff_t x_image, dy_image;  // from image to image
  std::int64_t h, w, oh, ow, pad;    // pad: rows above
};

// `count` output rows from row o on, at most four. Full: four.
template <class T, int S, bool Paired, bool Full>
CONVKIT_INLINE void add_plane_tile(const PlaneGradients<T>& p, const PlaneSpan<T, S, Paired>& span, const T* x,
                                   const T* dy, bool alone, std::int64_t o, std::int64_t count,
                                   typename Vec<T>::Reg (&sums)[9]) {
  using V = Vec<T>;
  using Reg = typename V::Reg;
  constexpr int rows = 3 * S + 3;
  Reg g[4];
  dy += o * p.ow;
  CONVKIT_UNROLL
  for (int r = 0; r < 4; ++r) {
    g[r] = V::zero();
    if (Full || r < count) g[r] = span.gradient(dy + r * p.ow, alone ? 0 : p.dy_image);
  }
  const std::int64_t y = o * S - p.pad;
  const T* row = x + y * p.w;
  CONVKIT_UNROLL
  for (int i = 0; i < rows; ++i, row += p.w) {
    asm("" : "+r"(row));
    if (static_cast<std::uint64_t>(y + i) >= static_cast<std::uint64_t>(p.h)) continue;
    Reg under[3];
    span.load(row, alone ? 0 : p.x_image, under);
    CONVKIT_UNROLL
    for (int r = 0; r < 4; ++r) {
      const int ky = i - r * S;
      if (ky < 0 || ky >= 3 || (!Full && r >= count)) continue;
      CONVKIT_UNROLL
      for (int kx = 0; kx < 3; ++kx) sums[ky * 3 + kx] = under[kx] * g[r] + sums[ky * 3 + kx];
    }
  }
}

// Lane i of the result is the sum of the lanes of v[i].
template <class T, int Count>
CONVKIT_INLINE typename Vec<T>::Reg add_lanes(typename Vec<T>::Reg (&v)[Count]) {
  using V = Vec<T>;
  CONVKIT_UNROLL
  for (int left = Count; left > 1; left /= 2) {
    CONVKIT_UNROLL
    for (int i = 0; i < left / 2; ++i) v[i] = V::even(v[2 * i], v[2 * i + 1]) + V::odd(v[2 * i], v[2 * i + 1]);
  }
  return v[0];
}

// Nine weights of one channel from `images` images. `last` is the span of an image without a partner.
template <class T, int S, bool Paired>
void add_planes(const PlaneGradients<T>& in, std::int64_t images, const PlaneSpan<T, S, Paired>* spans, int count,
                const PlaneSpan<T, S, Paired>& last, T* weights) {
  using V = Vec<T>;
  const PlaneGradients<T> p = in;
  constexpr int together = Paired ? 2 : 1;
  const std::int64_t x_plane = p.h * p.w, dy_plane = p.oh * p.ow, visits = (p.oh + 3) / 4 * count;
  // Large images are summed one by one, which rounds less.
  const bool large = !Paired && visits >= 16;
  typename V::Reg sums[9], total[9];
  CONVKIT_UNROLL
  for (int i = 0; i < 9; ++i) sums[i] = total[i] = V::zero();
  for (std::int64_t image = 0; image < images; image += together) {
    const T* const x = p.x + image * p.x_image;
    const T* const dy = p.dy + image * p.dy_image;
    // The next image of this channel, or the first one of the next channel.
    const std::int64_t step = image + together < images ? together : -image;
    const T* const next_x = x + step * p.x_image + (step > 0 ? 0 : x_plane);
    const T* const next_dy = dy + step * p.dy_image + (step > 0 ? 0 : dy_plane);
    LinesAhead<T, 3> ahead_x(next_x, x_plane, visits), ahead_dy(next_dy, dy_plane, visits);
    const bool alone = Paired && image + 1 == images;
    for (int s = 0; s < count; ++s) {
      const PlaneSpan<T, S, Paired> span = alone ? last : spans[s];
      for (std::int64_t o = 0; o < p.oh; o += 4) {
        if (!Paired) ahead_x.advance(), ahead_dy.advance();
        if (o + 4 <= p.oh) {
          add_plane_tile<T, S, Paired, true>(p, span, x, dy, alone, o, 4, sums);
        } else {
          add_plane_tile<T, S, Paired, false>(p, span, x, dy, alone, o, p.oh - o, sums);
        }
      }
    }
    if (large) {
      CONVKIT_UNROLL
      for (int i = 0; i < 9; ++i) total[i] += sums[i], sums[i] = V::zero();
    }
  }
  CONVKIT_UNROLL
  for (int i = 0; i < 9; ++i) sums[i] += total[i];
  typename V::Reg v[V::lanes];
  CONVKIT_UNROLL
  for (int begin = 0; begin < 9; begin += V::lanes) {
    CONVKIT_UNROLL
    for (int i = 0; i < V::lanes; ++i) v[i] = begin + i < 9 ? sums[begin + i < 9 ? begin + i : 0] : V::zero();
    V::store(weights + begin, add_lanes<T>(v), smaller(9 - begin, V::lanes));
  }
}

}  // namespace convkit::CONVKIT_ISA
