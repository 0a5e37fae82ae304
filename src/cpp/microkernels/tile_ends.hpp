// How a register tile begins and ends: bias or what y holds, then residual, clamp and store.
#pragma once
#include "microkernels/gemm_tile.hpp"

namespace convkit::CONVKIT_ISA {

// bias: along the lanes; bias_of_rows: along the rows; both null for none.
template <class T, int Rows, int NV>
CONVKIT_INLINE void begin_tile(typename Vec<T>::Reg (&c)[Rows][NV], const TileOut<T>& out, const T* y, const T* bias,
                               const T* bias_of_rows) {
  using V = Vec<T>;
  if (out.accumulate) {
    CONVKIT_UNROLL
    for (int i = 0; i < Rows; ++i) {
      CONVKIT_UNROLL
      for (int j = 0; j < NV - 1; ++j) c[i][j] = V::load(y + i * out.stride + j * V::lanes);
      c[i][NV - 1] = V::load(y + i * out.stride + (NV - 1) * V::lanes, out.tail);
    }
  } else if (bias_of_rows) {
    CONVKIT_UNROLL
    for (int i = 0; i < Rows; ++i) {
      const auto value = V::broadcast(bias_of_rows + i);
      CONVKIT_UNROLL
      for (int j = 0; j < NV; ++j) c[i][j] = value;
    }
  } else {
    typename V::Reg value[NV];
    CONVKIT_UNROLL
    for (int j = 0; j < NV; ++j) value[j] = V::zero();
    if (bias) {
      CONVKIT_UNROLL
      for (int j = 0; j < NV - 1; ++j) value[j] = V::load(bias + j * V::lanes);
      value[NV - 1] = V::load(bias + (NV - 1) * V::lanes, out.tail);
    }
    CONVKIT_UNROLL
    for (int i = 0; i < Rows; ++i) {
      CONVKIT_UNROLL
      for (int j = 0; j < NV; ++j) c[i][j] = value[j];
    }
  }
}

template <class T, int Rows, int NV>
CONVKIT_INLINE void finish_tile(typename Vec<T>::Reg (&c)[Rows][NV], const TileOut<T>& out, T* y, const T* residual) {
  using V = Vec<T>;
  if (residual) {
    CONVKIT_UNROLL
    for (int i = 0; i < Rows; ++i) {
      CONVKIT_UNROLL
      for (int j = 0; j < NV - 1; ++j) c[i][j] += V::load(residual + i * out.stride + j * V::lanes);
      c[i][NV - 1] += V::load(residual + i * out.stride + (NV - 1) * V::lanes, out.tail);
    }
  }
  if (out.clamp) {
    const auto lo = V::set1(out.lo), hi = V::set1(out.hi);
    CONVKIT_UNROLL
    for (int i = 0; i < Rows; ++i) {
      CONVKIT_UNROLL
      for (int j = 0; j < NV; ++j) c[i][j] = V::min(hi, V::max(lo, c[i][j]));
    }
  }
  T* const last = y + (NV - 1) * V::lanes;
  CONVKIT_UNROLL
  for (int i = 0; i < Rows; ++i) {
    CONVKIT_UNROLL
    for (int j = 0; j < NV - 1; ++j) V::store(y + i * out.stride + j * V::lanes, c[i][j]);
  }
  if (out.tail == V::lanes) {
    CONVKIT_UNROLL
    for (int i = 0; i < Rows; ++i) V::store(last + i * out.stride, c[i][NV - 1]);
  } else {
    CONVKIT_UNROLL
    for (int i = 0; i < Rows; ++i) V::store(last + i * out.stride, c[i][NV - 1], out.tail);
  }
}

}  // namespace convkit::CONVKIT_ISA
