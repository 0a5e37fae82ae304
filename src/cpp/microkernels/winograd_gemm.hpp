// The GEMM of one Winograd point: M[tile][output] (+)= V[channel][tile] U[channel][output], tiles in blocks of `lanes`
// channels.
//
//   V   [channels / lanes][tiles][lanes], as the input transform stores it: A is broadcast from whole cache lines
//   U   [channels][panel], one panel of outputs, 64-byte aligned
//   M   [tiles][panel]
//
// Rounding of these sums is nearly all of a large tile's error: folding partial sums into M, whose rows are in L1 then,
// makes it grow with the number of folds and their length instead of with the number of channels. A product in several
// passes over the tiles, a range of channels each, adds in the same order as one.
//
// Register budget as in gemm_tile.hpp: 6 x 4 vectors of 32 registers, 6 x 2 of 16. A call may fetch the panel that comes
// next into L2, `Ahead` lines a step, spread over the row tiles: all lines in the first tile would stall it. Lines of V are
// fetched into L1 a block of channels ahead: they lie too far apart for the hardware, and V may be larger than L2.
#pragma once
#include "isa/vec.hpp"
#include "microkernels/gemm_tile.hpp"
#include "microkernels/winograd_transforms.hpp"

namespace convkit::CONVKIT_ISA {

// Lines that a later stage will read, fetched into L2 a few at a time while products run: `outer` groups of `rows` rows
// of `lines` cache lines. Only hints: addresses need not exist.
struct Fetch {
  std::uintptr_t at = 0, row_start = 0, outer_start = 0;
  std::int64_t lines = 0, rows = 0, outer = 0;
  std::ptrdiff_t row_stride = 0, outer_stride = 0;  // bytes
  std::int64_t lines_left = 0, rows_left = 0;
  std::int64_t pace = 0;  // lines to fetch each `lanes` steps of a row tile; 0: nothing left

  void start(std::uintptr_t address) {
    at = row_start = outer_start = address;
    lines_left = lines;
    rows_left = rows;
  }
  CONVKIT_INLINE void step() {
    for (std::int64_t i = pace; i > 0; --i) {
      __builtin_prefetch(reinterpret_cast<const void*>(at), 0, 2);
      at += 64;
      if (--lines_left == 0 && !next_row()) return;
    }
  }
  bool next_row() {
    lines_left = lines;
    if (--rows_left > 0) {
      at = row_start += static_cast<std::uintptr_t>(row_stride);
      return true;
    }
    rows_left = rows;
    at = row_start = outer_start += static_cast<std::uintptr_t>(outer_stride);
    if (--outer > 0) return true;
    pace = 0;
    return false;
  }
};

template <class T>
struct PointProduct {
  std::int64_t tiles;     // rows of M
  std::int64_t channels;  // length of the sums
  std::int64_t fold;      // after so many channels, a multiple of `lanes`, partial sums are added to M; or `unfolded`
  std::int64_t pass;  // channels that all tiles go through before the next ones: a multiple of `fold` unless unfolded
  const T* v;
  std::ptrdiff_t block_stride;  // of V from one block of channels to the next
  const T* u;
  T* m;
  const T* next;    // the panel to fetch meanwhile, as large as this one; or null
  Fetch* fetch;     // never null
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
