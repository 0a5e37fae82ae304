// The GEMM of one Winograd point: M[tile][output] (+)= V[channel][tile] U[channel][output], tiles in blocks of `lanes`
// channels.
//
//   V   [channels / lanes][tiles][lanes], as the input transform stores it: A is broadcast from whole cache lines
//   U   [channels][panel], one panel of outputs, 64-byte aligned
//   M   [tiles][panel]
//
// Register budget as in gemm_tile.hpp: 6 x 4 vectors of 32 registers, 6 x 2 of 16. A call may fetch the panel that comes
// next into L2, `Ahead` lines a step, spread over the row tiles: all lines in the first tile would stall it.
#pragma once
#include "isa/vec.hpp"
#include "microkernels/gemm_tile.hpp"

namespace convkit::CONVKIT_ISA {

template <class T>
struct PointProduct {
  std::int64_t tiles;     // rows of M
  std::int64_t channels;  // length of the sums
  const T* v;
  std::ptrdiff_t block_stride;  // of V from one block of channels to the next
  const T* u;
  T* m;
  const T* next;    // the panel to fetch meanwhile, as large as this one; or null
  bool accumulate;  // add to M instead of overwriting it
};

// `vectors` in the panel, 1..TileShape<T>::vectors.
template <class T>
void multiply_point(const PointProduct<T>& product, int vectors);
template <>
void multiply_point<float>(const PointProduct<float>& product, int vectors);
template <>
void multiply_point<double>(const PointProduct<double>& product, int vectors);

}  // namespace convkit::CONVKIT_ISA
