// How a register tile begins and ends: bias or what y holds, then residual, clamp and store.
#pragma once
#include "microkernels/gemm_tile.hpp"

namespace convkit::CONVKIT_ISA {

template <class T, int Rows, int NV>
CONVKIT_INLINE void begin_lanes_on_outputs(typename Vec<T>::Reg (&c)[Rows][NV], const TileOut<T>& out, const T* y) {
  using V = Vec<T>;
  if (out.accumulate) {
    CONVKIT_UNROLL
    for (int i = 0; i < Rows; ++i) {
      CONVKIT_UNROLL
      for (int j = 0; j < NV - 1; ++j) c[i][j] = V::load(y + i * out.stride + j * V::lanes);
      c[i][NV - 1] = V::load(y + i * out.stride + (NV - 1) * V::lanes, out.tail);
    }
  } else if (out.bias) {
    CONVKIT_UNROLL
    for (int j = 0; j < NV; ++j) {
      const auto b = j < NV - 1 ? V::load(out.bias + j * V::lanes) : V::load(out.bias + j * V::lanes, out.tail);
      CONVKIT_UNROLL
      for (int i = 0; i < Rows; ++i) c[i][j] = b;
    }
  } else {
    CONVKIT_UNROLL
    for (int i = 0; i < Rows; ++i) {
      CONVKIT_UNROLL
      for (int j = 0; j < NV; ++j) c[i][j] = V::zero();
    }
  }
}

template <class T, int Rows, int NV>
CONVKIT_INLINE void finish_tile(typename Vec<T>::Reg (&c)[Rows][NV], const TileOut<T>& out, T* y, const T* residual) {
  using V = Vec<T>;
  const bool full = out.tail == V::lanes;
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
  CONVKIT_UNROLL
  for (int i = 0; i < Rows; ++i) {
    CONVKIT_UNROLL
    for (int j = 0; j < NV - 1; ++j) V::store(y + i * out.stride + j * V::lanes, c[i][j]);
    if (full) {
      V::store(y + i * out.stride + (NV - 1) * V::lanes, c[i][NV - 1]);
    } else {
      V::store(y + i * out.stride + (NV - 1) * V::lanes, c[i][NV - 1], out.tail);
    }
  }
}

}  // namespace convkit::CONVKIT_ISA
