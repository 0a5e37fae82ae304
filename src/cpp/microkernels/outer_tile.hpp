// The register tile of weight gradients: a sum of outer products over pixels,
//
//   C[row][lane] = (C[row][lane] +) sum over pixels of a[pixel][row] * b[pixel][lane].
//
// A pixel may be one of an image, or a tile of a Winograd transform. Pixels come in runs: a run is a stretch of them at
// constant distance in A and B, such as the part of an output row whose inputs lie inside the image.
//
// Register budget as in gemm_tile.hpp: rows * NV accumulators + NV of B + 1 of A. Sums start from zero and meet C only at
// the end: two short sums err less than one long sum, and fetching C hides behind the products.
#pragma once
#include "isa/vec.hpp"
#include "microkernels/gemm_tile.hpp"

namespace convkit::CONVKIT_ISA {

// Where a run's first pixel is, in elements from the product's a and b.
struct OuterRun {
  std::ptrdiff_t a, b;
};

template <class T>
struct OuterProduct {
  const T* a;
  std::ptrdiff_t a_step;  // from pixel to pixel of a run
  const T* b;
  std::ptrdiff_t b_step, b_vector;  // from pixel to pixel, from vector to vector
  const OuterRun* runs;
  std::int64_t count, steps;  // runs, and pixels in each: both at least 1
  const T* next;  // fetched into L2 meanwhile, a vector's width a pixel; any readable place if nothing comes
  T* c;           // [rows][nv * lanes]
  bool accumulate;
};

template <class T>
using OuterTile = void (*)(const OuterProduct<T>&);

// Indexed [nv][rows], both from 1, up to TileShape<T>::vectors and TileShape<T>::rows(nv).
template <class T>
struct OuterTiles {
  OuterTile<T> tile[5][9];
};

template <class T>
const OuterTiles<T>& outer_tiles();
template <>
const OuterTiles<float>& outer_tiles<float>();
template <>
const OuterTiles<double>& outer_tiles<double>();

}  // namespace convkit::CONVKIT_ISA
