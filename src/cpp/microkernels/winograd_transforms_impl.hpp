// Definitions behind winograd_transforms.hpp; included where tiles are instantiated.
#pragma once
#include "microkernels/winograd_transforms.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

// One-dimensional transforms of registers. The coefficients are constants after unrolling: products with 1 vanish.
template <class T, class F>
struct Transform1d {
  using V = Vec<T>;
  using Reg = typename V::Reg;
  static constexpr int n = F::n, m = F::m, r = F::r, zero = F::zero, pairs = F::pairs;
  static constexpr auto& w = F::matrices;

  static CONVKIT_INLINE Reg constant(double value) { return V::set1(static_cast<T>(value)); }

  // Row j of B^T is x^zero (x + p) rest(x^2) for the point p: even and odd powers are shared by p and -p.
  static CONVKIT_INLINE void input(const Reg (&d)[n], Reg (&o)[n]) {
    if constexpr (zero == 1) {
      Reg sum = d[2 * pairs];
      CONVKIT_UNROLL
      for (int k = 0; k < pairs; ++k) sum += constant(w.all[k]) * d[2 * k];
      o[0] = sum;
    }
    CONVKIT_UNROLL
    for (int i = 0; i < pairs; ++i) {
      Reg even = d[2 * (pairs - 1) + 2 * zero], odd = d[2 * (pairs - 1) + 1];
      CONVKIT_UNROLL
      for (int k = 0; k < pairs - 1; ++k) {
        even += constant(w.rest[i][k]) * d[2 * k + 2 * zero];
        odd += constant(w.rest[i][k]) * d[2 * k + 1];
      }
      const Reg p = constant(F::point(zero + 2 * i));
      const Reg fixed = zero ? even : odd, turned = zero ? odd : even;
      o[zero + 2 * i] = fixed + p * turned;
      o[zero + 2 * i + 1] = fixed - p * turned;
    }
    Reg sum = d[2 * pairs + zero];
    CONVKIT_UNROLL
    for (int k = 0; k < pairs; ++k) sum += constant(w.all[k]) * d[2 * k + zero];
    o[n - 1] = sum;
  }

  static CONVKIT_INLINE void output(const Reg (&q)[n], Reg (&o)[m]) {
    Reg sum[pairs], difference[pairs];
    CONVKIT_UNROLL
    for (int i = 0; i < pairs; ++i) {
      sum[i] = q[zero + 2 * i] + q[zero + 2 * i + 1];
      difference[i] = q[zero + 2 * i] - q[zero + 2 * i + 1];
    }
    CONVKIT_UNROLL
    for (int k = 0; k < m; ++k) {
      const Reg first = k % 2 ? difference[0] : sum[0];
      Reg value = k == 0 ? (zero ? q[0] + first : first) : constant(w.at[k][zero]) * first;
      if (k == m - 1) value = k == 0 ? value + q[n - 1] : constant(w.at[k][zero]) * first + q[n - 1];
      CONVKIT_UNROLL
      for (int i = 1; i < pairs; ++i) value += constant(w.at[k][zero + 2 * i]) * (k % 2 ? difference[i] : sum[i]);
      o[k] = value;
    }
  }

  // G's rows of p and -p differ in the sign of the odd taps, and as a whole if there is no point 0.
  static CONVKIT_INLINE void filter(const Reg (&g)[r], Reg (&o)[n]) {
    if constexpr (zero == 1) o[0] = constant(w.g[0][0]) * g[0];
    CONVKIT_UNROLL
    for (int i = 0; i < pairs; ++i) {
      const int row = zero + 2 * i;
      Reg even = constant(w.g[row][0]) * g[0], odd = constant(w.g[row][1]) * g[1];
      CONVKIT_UNROLL
      for (int k = 2; k < r; ++k) {
        if (k % 2) {
          odd += constant(w.g[row][k]) * g[k];
        } else {
          even += constant(w.g[row][k]) * g[k];
        }
      }
      o[row] = even + odd;
      o[row + 1] = zero ? even - odd : odd - even;
    }
    o[n - 1] = g[r - 1];
  }

  static constexpr int input_ops = (zero + 1) * pairs + pairs * (2 * (pairs - 1) + 2);
  static constexpr int output_ops = 2 * pairs + (zero + pairs - 1) + pairs * (m - 1);
};

template <class T>
struct Transform1d<T, Identity1d> {
  using Reg = typename Vec<T>::Reg;
  static CONVKIT_INLINE void input(const Reg (&d)[1], Reg (&o)[1]) { o[0] = d[0]; }
  static CONVKIT_INLINE void output(const Reg (&q)[1], Reg (&o)[1]) { o[0] = q[0]; }
  static CONVKIT_INLINE void filter(const Reg (&g)[1], Reg (&o)[1]) { o[0] = g[0]; }
  static constexpr int input_ops = 0, output_ops = 0;
};

template <class T, class FY, class FX>
void transform_inputs(const InputRun<T>& run) {
  using V = Vec<T>;
  using Reg = typename V::Reg;
  using Y = Transform1d<T, FY>;
  using X = Transform1d<T, FX>;
  const std::ptrdiff_t row_stride = run.row_stride, col_stride = run.col_stride, point_stride = run.point_stride;
  const T *x = run.x, *ahead = run.ahead;
  T* v = run.v;
  for (std::int64_t left = run.count; left > 0; --left) {
    if (ahead) {
      CONVKIT_UNROLL
      for (int i = 0; i < FY::m; ++i) {
        CONVKIT_UNROLL
        for (int j = 0; j < FX::m; ++j) __builtin_prefetch(ahead + i * row_stride + j * col_stride, 0, 2);
      }
      ahead += run.x_step;
    }
    Reg d[FY::n][FX::n];
    CONVKIT_UNROLL
    for (int j = 0; j < FX::n; ++j) {
      Reg in[FY::n], out[FY::n];
      CONVKIT_UNROLL
      for (int i = 0; i < FY::n; ++i) in[i] = V::load(x + i * row_stride + j * col_stride);
      Y::input(in, out);
      CONVKIT_UNROLL
      for (int i = 0; i < FY::n; ++i) d[i][j] = out[i];
    }
    CONVKIT_UNROLL
    for (int i = 0; i < FY::n; ++i) {
      Reg out[FX::n];
      X::input(d[i], out);
      CONVKIT_UNROLL
      for (int j = 0; j < FX::n; ++j) V::store(v + (i * FX::n + j) * point_stride, out[j]);
    }
    x += run.x_step;
    v += run.v_step;
  }
}

template <class T, class FY, class FX>
void transform_outputs(const OutputRun<T>& run) {
  using V = Vec<T>;
  using Reg = typename V::Reg;
  using Y = Transform1d<T, FY>;
  using X = Transform1d<T, FX>;
  const std::ptrdiff_t row_stride = run.row_stride, col_stride = run.col_stride, point_stride = run.point_stride;
  const T *m = run.m, *bias = run.bias, *residual = run.residual;
  T* y = run.y;
  for (std::int64_t left = run.count; left > 0; --left) {
    Reg s[FY::m][FX::n];
    CONVKIT_UNROLL
    for (int j = 0; j < FX::n; ++j) {
      Reg in[FY::n], out[FY::m];
      CONVKIT_UNROLL
      for (int i = 0; i < FY::n; ++i) in[i] = V::load(m + (i * FX::n + j) * point_stride);
      Y::output(in, out);
      CONVKIT_UNROLL
      for (int i = 0; i < FY::m; ++i) s[i][j] = out[i];
    }
    const Reg b = V::load(bias);
    CONVKIT_UNROLL
    for (int i = 0; i < FY::m; ++i) {
      Reg out[FX::m];
      X::output(s[i], out);
      CONVKIT_UNROLL
      for (int j = 0; j < FX::m; ++j) out[j] += b;
      if (residual) {
        CONVKIT_UNROLL
        for (int j = 0; j < FX::m; ++j) out[j] += V::load(residual + i * row_stride + j * col_stride);
      }
      if (run.clamp) {
        const Reg lo = V::set1(run.lo), hi = V::set1(run.hi);
        CONVKIT_UNROLL
        for (int j = 0; j < FX::m; ++j) out[j] = V::min(hi, V::max(lo, out[j]));
      }
      if (run.stream) {
        CONVKIT_UNROLL
        for (int j = 0; j < FX::m; ++j) V::stream(y + i * row_stride + j * col_stride, out[j]);
      } else {
        CONVKIT_UNROLL
        for (int j = 0; j < FX::m; ++j) V::store(y + i * row_stride + j * col_stride, out[j]);
      }
    }
    m += run.m_step;
    y += run.y_step;
    bias += run.bias_step;
    if (residual) residual += run.y_step;
  }
}

template <class T, class FY, class FX>
void transform_filters(const FilterRun<T>& run) {
  using V = Vec<T>;
  using Reg = typename V::Reg;
  using Y = Transform1d<T, FY>;
  using X = Transform1d<T, FX>;
  const std::ptrdiff_t point_stride = run.point_stride;
  const T* g = run.g;
  T* u = run.u;
  for (std::int64_t left = run.count; left > 0; --left) {
    Reg d[FY::n][FX::r];
    CONVKIT_UNROLL
    for (int j = 0; j < FX::r; ++j) {
      Reg in[FY::r], out[FY::n];
      CONVKIT_UNROLL
      for (int i = 0; i < FY::r; ++i) in[i] = V::load(g + (i * FX::r + j) * V::lanes);
      Y::filter(in, out);
      CONVKIT_UNROLL
      for (int i = 0; i < FY::n; ++i) d[i][j] = out[i];
    }
    CONVKIT_UNROLL
    for (int i = 0; i < FY::n; ++i) {
      Reg out[FX::n];
      X::filter(d[i], out);
      CONVKIT_UNROLL
      for (int j = 0; j < FX::n; ++j) V::store(u + (i * FX::n + j) * point_stride, out[j]);
    }
    g += run.g_step;
    u += run.u_step;
  }
}

// Tiles of eight and more points a side and five and more taps would be several times less exact than their 3-tap kin.
template <class FY, class FX>
constexpr int longest_sum = (FY::n >= 8 && FY::r >= 5) || (FX::n >= 8 && FX::r >= 5) ? 32 : unfolded;

template <class T, class FY, class FX>
constexpr WinogradTile<T> tile = {
    FY::m,
    FX::m,
    FY::r,
    FX::r,
    FY::n,
    FX::n,
    Transform1d<T, FY>::input_ops* FX::n + Transform1d<T, FX>::input_ops* FY::n + 2 * FY::n* FX::n,
    Transform1d<T, FY>::output_ops* FX::n + Transform1d<T, FX>::output_ops* FY::m + FY::n* FX::n + 2 * FY::m* FX::m,
    transform_inputs<T, FY, FX>,
    transform_outputs<T, FY, FX>,
    transform_filters<T, FY, FX>,
    longest_sum<FY, FX>,
};

}  // namespace

template <class T, class FY, class FX>
const WinogradTile<T>& winograd_tile() {
  return tile<T, FY, FX>;
}

}  // namespace convkit::CONVKIT_ISA
