// Definitions behind winograd_adjoint.hpp; included where tiles are instantiated.
#pragma once
#include "microkernels/winograd_adjoint.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

template <class T, class F>
struct Adjoint1d {
  using V = Vec<T>;
  using Reg = typename V::Reg;
  static constexpr int n = F::n, m = F::m, r = F::r, zero = F::zero, pairs = F::pairs;
  static constexpr auto& w = F::matrices;

  static CONVKIT_INLINE Reg constant(double value) { return V::set1(static_cast<T>(value)); }

  // A: powers of the points; p and -p share the sums of even and of odd powers.
  static CONVKIT_INLINE void gradient(const Reg (&y)[m], Reg (&o)[n]) {
    if constexpr (zero == 1) o[0] = y[0];
    CONVKIT_UNROLL
    for (int i = 0; i < pairs; ++i) {
      Reg even = y[0], odd = constant(w.at[1][zero + 2 * i]) * y[1];
      CONVKIT_UNROLL
      for (int k = 2; k < m; ++k) {
        if (k % 2) {
          odd += constant(w.at[k][zero + 2 * i]) * y[k];
        } else {
          even += constant(w.at[k][zero + 2 * i]) * y[k];
        }
      }
      o[zero + 2 * i] = even + odd;
      o[zero + 2 * i + 1] = even - odd;
    }
    o[n - 1] = y[m - 1];
  }

  // G^T: rows of p and -p differ in the sign of the odd taps, and as a whole if there is no point 0.
  static CONVKIT_INLINE void weights(const Reg (&q)[n], Reg (&o)[r]) {
    Reg sum[pairs], difference[pairs];
    CONVKIT_UNROLL
    for (int i = 0; i < pairs; ++i) {
      sum[i] = q[zero + 2 * i] + q[zero + 2 * i + 1];
      difference[i] = q[zero + 2 * i] - q[zero + 2 * i + 1];
    }
    CONVKIT_UNROLL
    for (int k = 0; k < r; ++k) {
      const bool added = (k % 2 == 0) == (zero == 1);
      Reg value = constant(w.g[zero][k]) * (added ? sum[0] : difference[0]);
      CONVKIT_UNROLL
      for (int i = 1; i < pairs; ++i) value += constant(w.g[zero + 2 * i][k]) * (added ? sum[i] : difference[i]);
      if (zero == 1 && k == 0) value += constant(w.g[0][0]) * q[0];
      if (k == r - 1) value += q[n - 1];
      o[k] = value;
    }
  }

  static constexpr int gradient_ops = pairs * (m + 1);
  static constexpr int weights_ops = 2 * pairs + r * pairs + 2;
};

template <class T, class FY, class FX>
void transform_gradients(const InputRun<T>& run) {
  using V = Vec<T>;
  using Reg = typename V::Reg;
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
    Reg d[FY::n][FX::m];
    CONVKIT_UNROLL
    for (int j = 0; j < FX::m; ++j) {
      Reg in[FY::m], out[FY::n];
      CONVKIT_UNROLL
      for (int i = 0; i < FY::m; ++i) in[i] = V::load(x + i * row_stride + j * col_stride);
      Adjoint1d<T, FY>::gradient(in, out);
      CONVKIT_UNROLL
      for (int i = 0; i < FY::n; ++i) d[i][j] = out[i];
    }
    CONVKIT_UNROLL
    for (int i = 0; i < FY::n; ++i) {
      Reg out[FX::n];
      Adjoint1d<T, FX>::gradient(d[i], out);
      CONVKIT_UNROLL
      for (int j = 0; j < FX::n; ++j) V::store(v + (i * FX::n + j) * point_stride, out[j]);
    }
    x += run.x_step;
    v += run.v_step;
  }
}

template <class T, class FY, class FX>
void transform_weights(const WeightRun<T>& run) {
  using V = Vec<T>;
  using Reg = typename V::Reg;
  const std::ptrdiff_t point_stride = run.point_stride;
  const T* m = run.m;
  T* w = run.w;
  for (std::int64_t left = run.count; left > 0; --left) {
    Reg s[FY::r][FX::n];
    CONVKIT_UNROLL
    for (int j = 0; j < FX::n; ++j) {
      Reg in[FY::n], out[FY::r];
      CONVKIT_UNROLL
      for (int i = 0; i < FY::n; ++i) in[i] = V::load(m + (i * FX::n + j) * point_stride);
      Adjoint1d<T, FY>::weights(in, out);
      CONVKIT_UNROLL
      for (int i = 0; i < FY::r; ++i) s[i][j] = out[i];
    }
    CONVKIT_UNROLL
    for (int i = 0; i < FY::r; ++i) {
      Reg out[FX::r];
      Adjoint1d<T, FX>::weights(s[i], out);
      CONVKIT_UNROLL
      for (int j = 0; j < FX::r; ++j) V::store(w + (i * FX::r + j) * V::lanes, out[j]);
    }
    m += run.m_step;
    w += run.w_step;
  }
}

template <class T, class FY, class FX>
constexpr WinogradAdjoint<T> adjoint = {
    {FY::m, FX::m, FY::r, FX::r, FY::m, FX::m,
     Adjoint1d<T, FY>::gradient_ops* FX::m + Adjoint1d<T, FX>::gradient_ops* FY::n + FY::m* FX::m + FY::n* FX::n, 0,
     transform_gradients<T, FY, FX>, nullptr, nullptr},
    transform_weights<T, FY, FX>,
    Adjoint1d<T, FY>::weights_ops* FX::n + Adjoint1d<T, FX>::weights_ops* FY::r + FY::n* FX::n + FY::r* FX::r,
};

}  // namespace

template <class T, class FY, class FX>
const WinogradAdjoint<T>& winograd_adjoint() {
  return adjoint<T, FY, FX>;
}

}  // namespace convkit::CONVKIT_ISA
