// Register tiles whose reduction walks a table of offsets instead of a row: step k is at offset[k] from the first pixel.
// For few channels, where a window has too few contiguous values to pay for a pointer a tap. One table serves every
// output pixel, whatever the layout of the copied rows, the stride and the dilation.
//
//   rows    lanes on outputs: pixels `step` apart times a packed panel
//   spread  lanes on pixels: rows of weights (row stride lda) times pixels, whole vectors of which must be readable
//
// Few rows suffice here: a short reduction ends often, and smaller tiles overlap the end of one with the next one's begin.
#pragma once
#include "microkernels/gemm_tile.hpp"

namespace convkit::CONVKIT_ISA {

template <class T>
struct OffsetShape {
  static constexpr int spread(int nv) { return TileShape<T>::rows(nv) < 6 ? TileShape<T>::rows(nv) : 6; }
  static constexpr int rows(int nv) { return nv == 4 ? 4 : spread(nv); }
};

template <class T>
using OffsetRows = void (*)(std::int64_t tiles, std::int64_t k, const std::ptrdiff_t* offset, const T* a,
                            std::ptrdiff_t step, const T* panel, const TileOut<T>& out);
template <class T>
using OffsetSpread = void (*)(std::int64_t tiles, std::int64_t k, const std::ptrdiff_t* offset, const T* a,
                              std::ptrdiff_t lda, const T* b, const TileOut<T>& out);

// Indexed [nv][rows], both from 1.
template <class T>
struct OffsetTable {
  OffsetRows<T> rows[5][9];
  OffsetSpread<T> spread[5][9];
};

template <class T>
const OffsetTable<T>& offset_tiles();
template <>
const OffsetTable<float>& offset_tiles<float>();
template <>
const OffsetTable<double>& offset_tiles<double>();

}  // namespace convkit::CONVKIT_ISA
