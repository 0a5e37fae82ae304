// Separable filters in one pass over the image: the columns' sums of a few rows, with as many columns beyond as the rows'
// taps meet, are lines in L1 or L2 that the rows' sums then read. Long taps along rows go over lines that were transposed.
#pragma once
#include "algorithms/filters/filter_strips.hpp"
#include "microkernels/running_sums.hpp"

namespace convkit::CONVKIT_ISA {

inline Symmetry symmetry_of(const double* taps, std::int64_t count) {
  constexpr double epsilon = 2.220446049250313e-16;  // as SciPy asks
  const auto differ = [](double a, double b) { return a - b > epsilon || b - a > epsilon; };
  if (count % 2 == 0) return Symmetry::none;
  bool even = true, odd = true;
  for (std::int64_t k = 0; k < count / 2; ++k) {
    even = even && !differ(taps[count - 1 - k], taps[k]);
    odd = odd && !differ(taps[count - 1 - k], -taps[k]);
  }
  return even ? Symmetry::even : odd ? Symmetry::odd : Symmetry::none;
}

template <class T>
Taps<T> taps_of(const double* values, std::int64_t count, T* to) {
  for (std::int64_t k = 0; k < count; ++k) to[k] = static_cast<T>(values[k]);
  return {symmetry_of(values, count), count, to};
}

// Whether it pays to transpose lines: for a few symmetric taps, shuffles that make vectors of neighbouring columns cost less.
template <class T>
bool worth_transposing(const Taps<T>& taps) {
  return taps.count > (taps.symmetry == Symmetry::none ? 3 : 9);
}

// A few rows' sums of columns become results.
template <class T, class Columns, class Line>
CONVKIT_INLINE void finish_group(const Member<T>& member, const Piece& piece, std::int64_t row, std::int64_t high,
                                 std::int64_t column, std::int64_t width, bool transposed, const Columns& by_columns,
                                 const Line& by_line) {
  constexpr int n = Vec<T>::lanes;
  const Area<T>& area = member.area;
  for (std::int64_t begin = 0; begin < high; begin += n) {
    const std::int64_t lines = smaller<std::int64_t>(n, high - begin);
    const T* const middle = area.middle + begin * member.blocks.pitch;
    if (transposed && 4 * lines > n) {
      T* out[n];
      for (std::int64_t q = 0; q < n; ++q) {
        out[q] = q < lines ? member.result(member.target(piece, row + begin + q, column), begin + q)
                           : area.results + (begin + q) * member.blocks.pitch;
      }
      lines_to_columns(middle, member.blocks.pitch, width, area.columns);
      by_columns(area.columns, out);
    } else {
      for (std::int64_t q = 0; q < lines; ++q) {
        by_line(middle + q * member.blocks.pitch,
                member.result(member.target(piece, row + begin + q, column), begin + q));
      }
    }
  }
}

template <class T>
void separable(const Member<T>& member, const Piece& piece) {
  const FilterJob& job = member.job;
  const Area<T>& area = member.area;
  const Blocks<T>& blocks = member.blocks;
  const Taps<T> down = taps_of(job.down_taps, job.down.size, area.down),
                along = taps_of(job.along_taps, job.along.size, area.along);
  const auto sums = [](const Taps<T>& taps) { return taps.count > 1 || taps.values[0] != 1; };
  const bool sums_down = sums(down), sums_along = sums(along);
  const bool transposed = worth_transposing(along);
  member.each_block([&](const ImageRows<T>& rows, std::int64_t column, std::int64_t count) {
    Window<T> window(member, rows, piece);
    const std::int64_t begin = window.begin(), width = window.width();
    for (std::int64_t row = piece.begin; row < piece.end; row += blocks.group) {
      const std::int64_t high = smaller(blocks.group, piece.end - row);
      for (std::int64_t r = 0; r < high; r += lines_at_once<T>) {
        const int some = static_cast<int>(smaller<std::int64_t>(lines_at_once<T>, high - r));
        window.list(row + r - job.down.before, some + down.count - 1);
        ResultLines<T> out{area.middle + r * blocks.pitch + begin, blocks.pitch, some, width, false};
        if (!sums_along) {
          out.first = member.result(member.target(piece, row + r, column), r);
          if (blocks.write_in_place) out.pitch = job.to_row / static_cast<std::ptrdiff_t>(sizeof(T));
          out.stream = blocks.stream;
        }
        sum_lines(down, area.lines, out, window.ahead(some));
        for (std::int64_t q = r; sums_along && q < r + some; ++q) {
          window.between(area.middle + q * blocks.pitch, sums_down);
        }
      }
      if (sums_along) {
        finish_group(
            member, piece, row, high, column, rows.width, transposed,
            [&](const T* columns, T* const* out) { sum_columns(along, columns, count, out, blocks.stream); },
            [&](const T* line, T* out) { sum_along(along, line, count, out, blocks.stream); });
      }
      for (std::int64_t r = 0; r < high; ++r) member.finish(member.target(piece, row + r, column), r, count);
    }
  });
}

// Sums run on from row to row within as many rows as this only: so pieces of work are the same for every team.
inline std::int64_t rows_of_running_sums(const FilterJob& job) {
  return round_up(larger<std::int64_t>(64, 4 * job.down.size), 64);
}

inline void uniform(const Member<double>& member, const Piece& piece) {
  const FilterJob& job = member.job;
  const Area<double>& area = member.area;
  const Blocks<double>& blocks = member.blocks;
  const std::int64_t size = job.down.size;
  const bool sums_down = size > 1, sums_along = job.along.size > 1;
  member.each_block([&](const ImageRows<double>& rows, std::int64_t column, std::int64_t count) {
    Window<double> window(member, rows, piece);
    const std::int64_t begin = window.begin(), width = window.width();
    window.list(piece.begin - job.down.before, size);
    begin_sums(area.lines, size, width, area.down);
    for (std::int64_t row = piece.begin; row < piece.end; row += blocks.group) {
      const std::int64_t high = smaller(blocks.group, piece.end - row);
      window.list(row - job.down.before, high + size);
      ResultLines<double> out{area.middle + begin, blocks.pitch, static_cast<int>(high), width, false};
      if (!sums_along) {
        out.first = member.result(member.target(piece, row, column), 0);
        if (blocks.write_in_place) out.pitch = job.to_row / static_cast<std::ptrdiff_t>(sizeof(double));
        out.stream = blocks.stream;
      }
      mean_lines(area.lines, size, area.down, out);
      for (std::int64_t q = 0; sums_along && q < high; ++q) {
        window.between(area.middle + q * blocks.pitch, sums_down);
      }
      if (sums_along) {
        finish_group(
            member, piece, row, high, column, rows.width, true,
            [&](const double* columns, double* const* to) {
              mean_columns(columns, job.along.size, count, to, blocks.stream);
            },
            [&](const double* line, double* to) { mean_along(line, job.along.size, count, to); });
      }
      for (std::int64_t r = 0; r < high; ++r) member.finish(member.target(piece, row + r, column), r, count);
    }
  });
}

}  // namespace convkit::CONVKIT_ISA
