// From accumulated rows to dense OIHW: the last step of every weight gradient that sums with lanes on outputs.
#pragma once
#include "algorithms/weight_grad/strips.hpp"

namespace convkit::CONVKIT_ISA {

// Row of the accumulated dW (see Strips::accumulated_rows) that holds channel c, tap (ky, kx).
template <class T>
CONVKIT_INLINE std::int64_t accumulated_row(const Strips<T>& s, std::int64_t c, std::int64_t ky, std::int64_t kx) {
  if (s.narrow) return ky * s.block_rows + kx * s.channels + c;
  return ((c / s.block * s.p.kh + ky) * s.p.kw + kx) * s.block + c % s.block;
}

// dw[o][k] for the `valid` outputs of one panel and weights k in [k.begin, k.end) of each: sums the parts in order and
// transposes. `dw` points at the panel's first output, `sums` at the panel's rows of the first part.
template <class T>
void store_weights(const Strips<T>& s, const T* sums, std::int64_t parts, std::ptrdiff_t part_stride, int valid,
                   const Share& weights, T* dw) {
  using V = Vec<T>;
  constexpr int n = V::lanes;
  const int vectors = static_cast<int>(ceil_div(valid, n)), width = vectors * n;
  const std::int64_t total = s.channels * s.taps();
  std::int64_t c = weights.begin / s.taps(), ky = weights.begin % s.taps() / s.p.kw, kx = weights.begin % s.p.kw;
  for (std::int64_t k = weights.begin; k < weights.end; k += n) {
    const int count = static_cast<int>(smaller<std::int64_t>(weights.end - k, n));
    const T* row[n];
    for (int i = 0; i < n; ++i) {
      if (i >= count) {
        row[i] = row[0];
        continue;
      }
      row[i] = sums + accumulated_row(s, c, ky, kx) * width;
      if (++kx == s.p.kw) {
        kx = 0;
        if (++ky == s.p.kh) ky = 0, ++c;
      }
    }
    for (int j = 0; j < vectors; ++j) {
      typename V::Reg r[n];
      CONVKIT_UNROLL
      for (int i = 0; i < n; ++i) r[i] = V::load(row[i] + j * n);
      for (std::int64_t part = 1; part < parts; ++part) {
        CONVKIT_UNROLL
        for (int i = 0; i < n; ++i) r[i] += V::load(row[i] + part * part_stride + j * n);
      }
      V::transpose(r);
      const int outputs = smaller(valid - j * n, n);
      CONVKIT_UNROLL
      for (int i = 0; i < n; ++i) {
        if (i < outputs) {
          T* to = dw + (j * n + i) * total + k;
          count == n ? V::store(to, r[i]) : V::store(to, r[i], count);
        }
      }
    }
  }
}

}  // namespace convkit::CONVKIT_ISA
