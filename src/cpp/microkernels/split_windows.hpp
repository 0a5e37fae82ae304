// Windows of many weights from those of half as many rows: three of them, where results one by one take four.
//
// Let X, W be an image's and a window's even rows and U, V their odd ones, as images and windows of their own. Even rows of
// results are W X + V U. Odd ones, W U + V X' where X' is X from its second row on, are (W + V)(U + X') - W X' - V U: the
// sums of two rows, with the sums of weights, less what even rows have already. (Karatsuba's product; among filters, the fast
// FIR algorithm of Mou and Duhamel, IEEE Trans. Signal Processing 39, 1991.) Rounding grows a little, as sums are larger.
#pragma once
#include "microkernels/window_sums.hpp"

namespace convkit::CONVKIT_ISA {

// Smaller windows take longer to split than they save.
inline bool worth_splitting(std::int64_t height, std::int64_t width) { return height >= 9 && height * width >= 120; }

inline constexpr std::int64_t split_columns = 512;  // of results at once, so that lines stay in L2

// A line of `split_columns` results meets this many columns, and vectors beyond.
template <class T>
constexpr std::int64_t split_pitch(std::int64_t width) {
  return split_columns + (width + 3 * Vec<T>::lanes - 1) / Vec<T>::lanes * Vec<T>::lanes;
}

// Elements of `lines` for so many rows of results.
template <class T>
constexpr std::int64_t split_elements(std::int64_t height, std::int64_t width, std::int64_t rows) {
  return (2 * rows + height + 2) * split_pitch<T>(width);
}

// As sum_windows. `halves` holds 2 * height + 1 rows of weights, `lines` split_elements.
void split_windows(const WindowWeights<float>& weights, const float* image, std::ptrdiff_t row,
                   const ResultLines<float>& out, float* halves, float* lines);

}  // namespace convkit::CONVKIT_ISA
