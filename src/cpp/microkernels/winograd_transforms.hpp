// Winograd transforms of whole tiles: vectors of channels (inputs) or of outputs (filters, outputs), one point or pixel a
// register. A run is a row of equal tiles; strides make one kernel serve NHWC tensors in place, strips that were transposed
// into L1, and padded copies of edge tiles.
//
// Two passes of one-dimensional transforms; the n x n intermediates exceed the registers and the compiler keeps the excess
// in L1, which costs less than storing and loading a strip between the passes. Nothing is read or written beyond the
// pixels and points named; all vectors are whole.
#pragma once
#include "isa/vec.hpp"
#include "microkernels/winograd_matrices.hpp"

namespace convkit::CONVKIT_ISA {

// V[point] = B^T d B: pixel (i, j) of tile t at x + t * x_step + i * row_stride + j * col_stride.
template <class T>
struct InputRun {
  const T* x;
  std::ptrdiff_t row_stride, col_stride, x_step;
  const T* ahead;  // first of m x m pixels to fetch into L2 meanwhile, strides as of x; or null
  T* v;            // point p of tile t at v + p * point_stride + t * v_step
  std::ptrdiff_t point_stride, v_step;
  std::int64_t count;
};

// y = A^T M A + bias, then residual and clamp.
template <class T>
struct OutputRun {
  const T* m;
  std::ptrdiff_t point_stride, m_step;
  T* y;
  std::ptrdiff_t row_stride, col_stride, y_step;
  const T* bias;  // a vector for each tile, `bias_step` apart
  std::ptrdiff_t bias_step;
  const T* residual;  // strides as of y; or null
  T lo, hi;
  bool clamp;
  bool stream;  // non-temporal stores: y and its strides are multiples of a vector
  std::int64_t count;
};

// U[point] = G g G^T: tap k of filter t at g + k * lanes + t * g_step, lanes on outputs.
template <class T>
struct FilterRun {
  const T* g;
  std::ptrdiff_t g_step;
  T* u;
  std::ptrdiff_t point_stride, u_step;
  std::int64_t count;
};

inline constexpr int unfolded = 1 << 30;

template <class T>
struct WinogradTile {
  int my, mx, ry, rx, ny, nx;
  int input_ops, output_ops;  // vector operations a tile, memory included
  void (*input)(const InputRun<T>&);
  void (*output)(const OutputRun<T>&);
  void (*filter)(const FilterRun<T>&);
  int fold = unfolded;  // longest sum over channels between additions to M (winograd_gemm.hpp)
};

template <class T, class FY, class FX>
const WinogradTile<T>& winograd_tile();

}  // namespace convkit::CONVKIT_ISA
