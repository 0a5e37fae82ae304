// Sums of weights over windows of an image's rows.
//
// A tile of results, a few rows of a few vectors, stays in registers while the rows that it meets go by: a vector of an image
// row is loaded once for each column of the window and meets all rows of the tile. Each result takes its sums in the order of
// the window's rows and columns, products rounded in double, which is SciPy's order: see tap_lines.hpp.
#pragma once
#include "microkernels/tap_lines.hpp"

namespace convkit::CONVKIT_ISA {

template <class T>
struct WindowWeights {
  const T* values;
  std::int64_t height, width;
};

// Rows of results at once.
template <class T>
inline constexpr int tile_rows = many_registers<T> ? 6 : 4;

// Result r begins at row r of `image`, whose rows are `row` apart. A vector beyond what the results need can be read. `ahead`:
// the next rows are fetched into L2.
template <class T>
void sum_windows(const WindowWeights<T>& weights, const T* image, std::ptrdiff_t row, const ResultLines<T>& out,
                 bool ahead);

}  // namespace convkit::CONVKIT_ISA
