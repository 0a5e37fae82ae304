// Transposes of planes: the part of a permutation that moves the fastest dimension, in registers.
#pragma once
#include <cstdint>

namespace convkit {

// to[u][v][j][i] = from[u][v][i][j]: `from` is contiguous along j, `to` along i. Strides in elements, of any sign for the
// outer dimensions. Elements are 4 or 8 bytes and aligned to their size; the arrays do not overlap.
struct PlaneTranspose {
  void* to;
  const void* from;
  int element;
  std::int64_t outer[2], to_outer[2], from_outer[2];
  std::int64_t i, j;
  std::int64_t from_row, to_row;  // from i to i + 1 in `from`, from j to j + 1 in `to`
};

// By a team of at most `threads`, with the instruction set in force. Large results bypass the caches.
void transpose(const PlaneTranspose& what, int threads);

}  // namespace convkit
