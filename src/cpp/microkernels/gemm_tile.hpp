// The GEMM register tile, in the forms that convolution needs. All keep rows x NV accumulators in registers over the whole
// reduction, load each vector of B once a step and broadcast each element of A from memory. They differ in how a step finds
// its pixels.
//
// With lanes on outputs, A is pixels and B a packed panel of weights:
//   gather   a run is `rows` pointers to k contiguous elements each
//   strided  strides are constant, from row to row and from k to k: rows of NHWC pixels, or columns of NCHW pixels
//   listed   rows are constant strides apart, k is at offset[k] from each. For few channels, where a window has too few
//            contiguous values to pay for a pointer a tap: one list serves every output pixel, whatever the layout of the
//            copied rows, the stride and the dilation
// With lanes on pixels, A is a matrix of weights (row stride lda) and B rows of pixels:
//   spread         at distance ldb, unpacked if need be: with a partial last vector nothing beyond it is read
//   listed_spread  at offset[k], whole vectors of which must be readable
//
// Register budget: rows * NV accumulators + NV of B + 1 of A. AVX-512: 6 x 4 = 29 of 32; AVX2: 6 x 2 = 15 of 16; without
// FMA the product needs one more: 4 x 2. Loads per FMA are 1/NV + 1/rows, under 0.7 in the full tile. More than 8 rows
// would push row pointers to the stack.
//
// Structure after Goto and van de Geijn (TOMS 2008) and BLIS (Van Zee and van de Geijn, TOMS 2015).
#pragma once
#include "isa/vec.hpp"

namespace convkit::CONVKIT_ISA {

template <class T>
struct TileShape {
  // Vectors in a full panel of outputs.
  static constexpr int vectors = Vec<T>::registers / 8;
  static constexpr int panel = vectors * Vec<T>::lanes;
  // Most rows of a tile that is nv vectors wide.
  static constexpr int most_rows = 8;
  static constexpr int rows(int nv) {
    if (!Vec<T>::fused) return nv == 1 ? most_rows : 4;
    return smaller((Vec<T>::registers - nv - 1) / nv, most_rows);
  }
  // A listed reduction is short and ends often: smaller tiles overlap the end of one with the next one's begin.
  static constexpr int listed_spread_rows(int nv) { return smaller(rows(nv), 6); }
  static constexpr int listed_rows(int nv) { return nv == 4 ? 4 : listed_spread_rows(nv); }
};

template <int NV, int Rows>
struct TileSize {
  static constexpr int nv = NV, rows = Rows;
};

// Calls set(TileSize<nv, rows>{}) for every tile, to fill a table of them.
template <class T, int NV = TileShape<T>::vectors, int Rows = TileShape<T>::rows(NV), class Set>
constexpr void for_tile_sizes(const Set& set) {
  set(TileSize<NV, Rows>{});
  if constexpr (Rows > 1) {
    for_tile_sizes<T, NV, Rows - 1>(set);
  } else if constexpr (NV > 1) {
    for_tile_sizes<T, NV - 1>(set);
  }
}

// How a tile begins and ends. `tail` is the number of lanes of the last vector that exist, 1..lanes.
template <class T>
struct TileOut {
  T* y;                   // first row
  std::ptrdiff_t stride;  // from row to row, elements
  const T* bias;          // along the lanes where they are outputs, else one a row; or null
  const T* residual;      // first row, same stride as y; or null
  T lo, hi;               // clamp, applied if `clamp`
  int tail;
  bool accumulate;  // start from y instead of the bias
  bool clamp;
};

// One run of a gathered tile: `rows` pointers, padded to a fixed size so that one table serves every tile height.
template <class T>
struct Run {
  const T* row[TileShape<T>::most_rows];
  std::ptrdiff_t panel_offset;  // of the run's first k in the panel, in k steps
};

// A gathered tile of the table that the caller builds: `count` runs of k steps each.
template <class T>
struct RunTile {
  const Run<T>* runs;
  std::int64_t count, k;
};

// What a tile multiplies. One function holds all forms of a tile, which begin and end alike and differ in a loop.
enum class Form { gathered, gathered_half, strided, strided_half, spread, spread_masked };

template <class T>
struct TileIn {
  Form form;
  std::int64_t k;              // steps; of a gathered tile the table says
  const RunTile<T>* table;     // gathered: an entry for each tile
  const T* a;                  // first row, else null
  std::ptrdiff_t lda;          // from row to row of A, elements
  std::ptrdiff_t stride;       // strided: from step to step of A; spread: of B
  const std::ptrdiff_t* list;  // listed: offset of each step in A, listed_spread: in B
  const T* b;
};

// `tiles` of them, at least one, one below the other.
template <class T>
using Tile = void (*)(std::int64_t tiles, const TileIn<T>& in, const TileOut<T>& out);

// Indexed [nv][rows], both from 1.
template <class T>
struct TileTable {
  Tile<T> of[5][9], listed[5][9], listed_spread[5][9];
};

template <class T>
const TileTable<T>& tiles();
template <>
const TileTable<float>& tiles<float>();
template <>
const TileTable<double>& tiles<double>();

// Whether no more than half of the last vector exists: with 256-bit units, half a register is half the work. A lone half
// vector would gain nothing: its loads take as long.
template <class T>
CONVKIT_INLINE bool half_last(int nv, int tail) {
  return Vec<T>::halves && nv > 1 && 2 * tail <= Vec<T>::lanes;
}

// `count` tiles of nv x rows, in each form.
template <class T>
CONVKIT_INLINE void gather_tiles(int nv, int rows, std::int64_t count, const RunTile<T>* table, const T* panel,
                                 const TileOut<T>& out) {
  const Form form = half_last<T>(nv, out.tail) ? Form::gathered_half : Form::gathered;
  tiles<T>().of[nv][rows](count, {form, 0, table, nullptr, 0, 0, nullptr, panel}, out);
}
template <class T>
CONVKIT_INLINE void strided_tiles(int nv, int rows, std::int64_t count, std::int64_t k, const T* a, std::ptrdiff_t lda,
                                  std::ptrdiff_t k_stride, const T* panel, const TileOut<T>& out) {
  const Form form = half_last<T>(nv, out.tail) ? Form::strided_half : Form::strided;
  tiles<T>().of[nv][rows](count, {form, k, nullptr, a, lda, k_stride, nullptr, panel}, out);
}
template <class T>
CONVKIT_INLINE void listed_tiles(int nv, int rows, std::int64_t count, std::int64_t k, const std::ptrdiff_t* offset,
                                 const T* a, std::ptrdiff_t lda, const T* panel, const TileOut<T>& out) {
  tiles<T>().listed[nv][rows](count, {Form::strided, k, nullptr, a, lda, 0, offset, panel}, out);
}
// masked: B is read no further than out.tail of its last vector.
template <class T>
CONVKIT_INLINE void spread_tiles(int nv, int rows, bool masked, std::int64_t count, std::int64_t k, const T* a,
                                 std::ptrdiff_t lda, const T* b, std::ptrdiff_t ldb, const TileOut<T>& out) {
  const Form form = masked ? Form::spread_masked : Form::spread;
  tiles<T>().of[nv][rows](count, {form, k, nullptr, a, lda, ldb, nullptr, b}, out);
}
template <class T>
CONVKIT_INLINE void listed_spread_tiles(int nv, int rows, std::int64_t count, std::int64_t k,
                                        const std::ptrdiff_t* offset, const T* a, std::ptrdiff_t lda, const T* b,
                                        const TileOut<T>& out) {
  tiles<T>().listed_spread[nv][rows](count, {Form::spread, k, nullptr, a, lda, 0, offset, b}, out);
}

// Splits `count` rows into as few tiles of at most `most` rows as possible, as even as possible: `big` tiles of
// `rows + 1` rows, then `small` tiles of `rows`. Even tiles beat a short last one.
struct RowSplit {
  std::int64_t big, small;
  int rows;
};

CONVKIT_INLINE RowSplit split_rows(std::int64_t count, int most) {
  const std::int64_t tiles = (count + most - 1) / most;
  const std::int64_t rows = count / tiles;
  const std::int64_t big = count - rows * tiles;
  return {big, tiles - big, static_cast<int>(rows)};
}

}  // namespace convkit::CONVKIT_ISA
