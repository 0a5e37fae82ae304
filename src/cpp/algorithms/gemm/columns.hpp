// The im2col matrix, in parts: rows of pixels for NHWC (im2row), rows of filter taps for NCHW.
#pragma once
#include "algorithms/sharing.hpp"

namespace convkit::CONVKIT_ISA {

// Weights of one output.
CONVKIT_INLINE std::int64_t reduction(const ConvProblem& p) { return p.c / p.groups * p.kh * p.kw; }

template <class T>
CONVKIT_INLINE void copy_run(const T* from, std::int64_t count, T* to) {
  using V = Vec<T>;
  std::int64_t i = 0;
  for (; i + V::lanes <= count; i += V::lanes) V::store(to + i, V::load(from + i));
  if (i == count) return;
  // Where there is a whole vector, the last one overlaps: prefetchers do not see loads under a mask.
  if (count >= V::lanes) {
    V::store(to + count - V::lanes, V::load(from + count - V::lanes));
  } else {
    V::store(to, V::load(from, static_cast<int>(count)), static_cast<int>(count));
  }
}

template <class T>
CONVKIT_INLINE void zero_run(std::int64_t count, T* to) {
  using V = Vec<T>;
  std::int64_t i = 0;
  for (; i + V::lanes <= count; i += V::lanes) V::store(to + i, V::zero());
  if (i < count) V::store(to + i, V::zero(), static_cast<int>(count - i));
}

// NHWC. Row r of `out` (stride ld) gets the inputs k in [k_begin, k_end) of output pixel first + r, counted over rows and
// images; k runs over KH, KW, C/groups. `x` points at the group's first channel.
template <class T>
void fill_rows_of_pixels(const ConvProblem& p, const T* x, std::int64_t first, std::int64_t count, std::int64_t k_begin,
                         std::int64_t k_end, T* out, std::ptrdiff_t ld) {
  const std::int64_t channels = p.c / p.groups;
  for (std::int64_t r = 0; r < count; ++r, out += ld) {
    const std::int64_t pixel = first + r, n = pixel / (p.oh * p.ow), rest = pixel % (p.oh * p.ow);
    const std::int64_t y0 = rest / p.ow * p.stride_h - p.pad_top, x0 = rest % p.ow * p.stride_w - p.pad_left;
    const T* const image = x + n * p.h * p.w * p.c;
    T* to = out;
    std::int64_t c = k_begin % channels, tap = k_begin / channels;
    for (std::int64_t k = k_begin; k < k_end; ++tap, c = 0) {
      const std::int64_t run = smaller(channels - c, k_end - k);
      const std::int64_t iy = y0 + tap / p.kw * p.dilation_h, ix = x0 + tap % p.kw * p.dilation_w;
      if (iy >= 0 && iy < p.h && ix >= 0 && ix < p.w) {
        copy_run(image + (iy * p.w + ix) * p.c + c, run, to);
      } else {
        zero_run(run, to);
      }
      to += run;
      k += run;
    }
  }
}

// One row of taps: the inputs of output pixels [ox, ox + count) of one output row, for a filter column at offset `shift`
// from the first; `row` is the input row, or null in the padding.
template <class T>
CONVKIT_INLINE void fill_tap(const ConvProblem& p, const T* row, std::int64_t ox, std::int64_t count,
                             std::int64_t shift, T* out) {
  using V = Vec<T>;
  if (!row) return zero_run(count, out);
  const std::int64_t s = p.stride_w;
  // Output columns whose input column lies inside: 0 <= (ox + i) * s + shift < w.
  const std::int64_t below = -shift - ox * s, inside = p.w - 1 - shift - ox * s;
  const std::int64_t begin = smaller(below > 0 ? ceil_div(below, s) : 0, count);
  const std::int64_t end = larger(inside < 0 ? 0 : smaller(inside / s + 1, count), begin);
  zero_run(begin, out);
  zero_run(count - end, out + end);
  const T* from = row + (ox + begin) * s + shift;
  const std::int64_t valid = end - begin;
  T* to = out + begin;
  if (s == 1) {
    copy_run(from, valid, to);
  } else if (s == 2) {
    std::int64_t i = 0;
    for (; i + V::lanes <= valid; i += V::lanes) V::store(to + i, V::even(from + 2 * i));
    if (i == valid) return;
    if (valid >= V::lanes) {
      V::store(to + valid - V::lanes, V::even(from + 2 * (valid - V::lanes)));
    } else {
      const int n = static_cast<int>(valid);
      V::store(to, V::even(from, n), n);
    }
  } else {
    for (std::int64_t i = 0; i < valid; ++i) to[i] = from[i * s];
  }
}

// NCHW. Row k - k_begin of `out` (stride ld) gets the inputs k of the output pixels [first, first + count) of one image,
// then zeros up to `padded` columns; k runs over C/groups, KH, KW, as OIHW weights do. `x` points at the group's first
// channel in the image.
template <class T>
void fill_columns_of_pixels(const ConvProblem& p, const T* x, std::int64_t first, std::int64_t count,
                            std::int64_t padded, std::int64_t k_begin, std::int64_t k_end, T* out, std::ptrdiff_t ld) {
  std::int64_t kw = k_begin % p.kw, kh = k_begin / p.kw % p.kh;
  const T* plane = x + k_begin / (p.kw * p.kh) * p.h * p.w;
  for (std::int64_t k = k_begin; k < k_end; ++k, out += ld) {
    std::int64_t oy = first / p.ow, ox = first % p.ow;
    for (std::int64_t done = 0; done < count; ++oy, ox = 0) {
      const std::int64_t run = smaller(p.ow - ox, count - done);
      const std::int64_t iy = oy * p.stride_h - p.pad_top + kh * p.dilation_h;
      fill_tap(p, iy >= 0 && iy < p.h ? plane + iy * p.w : nullptr, ox, run, kw * p.dilation_w - p.pad_left,
               out + done);
      done += run;
    }
    zero_run(padded - count, out + count);
    if (++kw == p.kw) {
      kw = 0;
      if (++kh == p.kh) kh = 0, plane += p.h * p.w;
    }
  }
}

}  // namespace convkit::CONVKIT_ISA
