// The transforms of a Winograd weight gradient, the adjoints of a convolution's output and filter transforms:
//
//   dw = G^T [ sum over tiles (A dy A^T) . (B^T d B) ] G
//
// where y = A^T [ (G g G^T) . (B^T d B) ] A is the tile of the convolution itself. So F(m, r) serves gradients of r x r
// filters from m x m tiles of gradients, with the points, the matrices and the input transform of the forward tile.
#pragma once
#include "microkernels/winograd_transforms.hpp"

namespace convkit::CONVKIT_ISA {

// Sums of products of one vector of outputs, one filter (input channel) after another: point p of filter t at
// m + p * point_stride + t * m_step; tap k to w + k * lanes + t * w_step.
template <class T>
struct WeightRun {
  const T* m;
  std::ptrdiff_t point_stride, m_step;
  T* w;
  std::ptrdiff_t w_step;
  std::int64_t count;
};

template <class T>
struct WinogradAdjoint {
  // Reads my x mx pixels of dy and writes ny x nx points: an input transform whose tiles do not overlap.
  WinogradTile<T> gradient;
  void (*weights)(const WeightRun<T>&);
  int weights_ops;  // vector operations a filter
};

template <class T, class FY, class FX>
const WinogradAdjoint<T>& winograd_adjoint();

}  // namespace convkit::CONVKIT_ISA
