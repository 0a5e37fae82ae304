// How a team divides a weight gradient: parts of the reduction, and two dimensions of dW.
#pragma once
#include "algorithms/sharing.hpp"

namespace convkit::CONVKIT_ISA {

// A team as parts x rows x columns; member i is at (i / (rows * columns), i / columns % rows, i % columns), members beyond
// the product have nothing to do.
struct Division {
  int parts, rows, columns;

  CONVKIT_INLINE int size() const { return parts * rows * columns; }
  CONVKIT_INLINE Share part(std::int64_t count, int index) const {
    return share(count, index / (rows * columns), parts);
  }
  CONVKIT_INLINE Share row(std::int64_t count, int index) const { return share(count, index / columns % rows, rows); }
  CONVKIT_INLINE Share column(std::int64_t count, int index) const { return share(count, index % columns, columns); }
  // The busiest member's share of all work, times the size of the team.
  CONVKIT_INLINE double imbalance(std::int64_t all_parts, std::int64_t all_rows, std::int64_t all_columns,
                                  int team) const {
    const double busiest = static_cast<double>(ceil_div(all_parts, parts)) *
                           static_cast<double>(ceil_div(all_rows, rows) * ceil_div(all_columns, columns));
    return busiest * team / (static_cast<double>(all_parts) * static_cast<double>(all_rows * all_columns));
  }
};

// The division whose busiest member has least to do. Among equals more parts, then more rows: members of a row repeat each
// other's packing of rows, members of a column that of columns.
CONVKIT_INLINE Division divide(std::int64_t parts, std::int64_t rows, std::int64_t columns, int size) {
  Division best{1, 1, 1};
  double least = 1e300;
  for (int i = size; i >= 1; --i) {
    for (int j = size / i; j >= 1; --j) {
      const Division division{i, j, size / i / j};
      const double imbalance = division.imbalance(parts, rows, columns, size);
      if (imbalance < least * 0.999) {
        least = imbalance;
        best = division;
      }
    }
  }
  return best;
}

}  // namespace convkit::CONVKIT_ISA
