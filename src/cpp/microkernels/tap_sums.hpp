// The inner loop of depthwise weight gradients: for the taps of one filter row,
//
//   sums[tap][lane] += sum over pixels of x[tap's offset + pixel][lane] * dy[pixel][lane].
//
// One vector of channels; a pixel is `lanes` elements in x and dy. A wide filter row is cut into several calls.
//
// Register budget: two sums a tap, since one sum's latency would be exposed; where taps are one pixel apart, four pixels
// (two, with 16 registers) of dy and the window of x that they see, so that x is loaded once for all taps.
#pragma once
#include "microkernels/outer_tile.hpp"

namespace convkit::CONVKIT_ISA {

inline constexpr int most_taps = 8;

template <class T>
struct TapRow {
  const T* x;
  const T* dy;
  const OuterRun* runs;              // a: of x, b: of dy
  std::int64_t count, steps;         // runs, pixels in each
  std::ptrdiff_t offset[most_taps];  // of a tap's first pixel in x
  T* sums;                           // [tap][lanes]
};

// `taps` from 1 to most_taps; `sliding`: offsets are 0, lanes, 2 * lanes ...
template <class T>
void add_taps(const TapRow<T>& row, int taps, bool sliding);
template <>
void add_taps<float>(const TapRow<float>& row, int taps, bool sliding);
template <>
void add_taps<double>(const TapRow<double>& row, int taps, bool sliding);

}  // namespace convkit::CONVKIT_ISA
