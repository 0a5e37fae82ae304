// Means over windows of lines by running sums: what enters the window is added, what leaves it is subtracted, as SciPy's
// uniform_filter1d does it.
#pragma once
#include "microkernels/tap_lines.hpp"

namespace convkit::CONVKIT_ISA {

// sums = lines[0] + ... + lines[size - 1]
void begin_sums(const double* const* lines, std::int64_t size, std::int64_t width, double* sums);

// Result r is the mean of `size` lines from lines[r] on; `sums` are those of the first, and then of the line after the last,
// which meets lines[out.count + size - 1].
void mean_lines(const double* const* lines, std::int64_t size, double* sums, const ResultLines<double>& out);

// The same along Vec<double>::lanes lines that lie transposed, all `count` results of each.
void mean_columns(const double* columns, std::int64_t size, std::int64_t count, double* const* out, bool stream);

// The same along one line.
void mean_along(const double* line, std::int64_t size, std::int64_t count, double* out);

}  // namespace convkit::CONVKIT_ISA
