// Filters whose weights are of no simpler form: windows over a strip of fetched rows.
#pragma once
#include "algorithms/filters/filter_strips.hpp"
#include "microkernels/split_windows.hpp"
#include "microkernels/window_sums.hpp"

namespace convkit::CONVKIT_ISA {

// The weights of one filter. SciPy leaves out those that are zero, as far as it asks: they are then a list of lines.
template <class T>
struct Filter {
  Taps<T> taps;
  bool whole;

  Filter(const Member<T>& member, std::int64_t index) {
    constexpr double epsilon = 2.220446049250313e-16;
    const FilterJob& job = member.job;
    const Area<T>& area = member.area;
    const std::int64_t window = job.down.size * job.along.size;
    const double* const weights = job.weights + index * window;
    std::int64_t count = 0;
    for (std::int64_t i = 0; i < window; ++i) {
      if (weights[i] <= epsilon && weights[i] >= -epsilon) continue;
      area.down[count] = static_cast<T>(weights[i]);
      area.places[count++] = {i / job.along.size, i % job.along.size};
    }
    taps = {Symmetry::none, count, area.down};
    whole = count == window;
  }
};

// Results of rows [begin, end) and columns [first, last).
struct Region {
  std::int64_t begin, end, first, last;
};

template <class T>
struct DenseFilter {
  const Member<T>& member;
  const Piece& piece;
  const FilterJob& job = member.job;
  const Blocks<T>& blocks = member.blocks;
  const Area<T>& area = member.area;

  // Groups end at the same rows for every team, since bits depend on them where windows are split.
  CONVKIT_INLINE std::int64_t next_group(std::int64_t row) const { return (row / blocks.group + 1) * blocks.group; }

  // All windows' sums of a filter.
  void sum(const Filter<T>& filter, const T* image, std::ptrdiff_t row, const ResultLines<T>& out, bool ahead) const {
    const WindowWeights<T> weights{filter.taps.values, job.down.size, job.along.size};
    if constexpr (sizeof(T) == 4) {
      if (blocks.splits) return split_windows(weights, image, row, out, area.halves, area.split);
    }
    sum_windows(weights, image, row, out, ahead);
  }

  // One filter over a few rows of an image, or of a strip that begins where their windows do.
  void few_rows(std::int64_t index, const Region& region, const T* image, std::ptrdiff_t row, bool ahead) const {
    const std::int64_t high = region.end - region.begin, count = region.last - region.first;
    const Filter<T> filter(member, index);
    char* const target = member.target(piece, region.begin, region.first) + index * job.to_filter;
    const ResultLines<T> out{member.result(target, 0),
                             blocks.write_in_place ? job.to_row / blocks.element : blocks.pitch, static_cast<int>(high),
                             count, blocks.stream};
    if (filter.whole) {
      sum(filter, image, row, out, ahead);
    } else {
      for (std::int64_t r = 0; r < high; ++r) {
        for (std::int64_t k = 0; k < filter.taps.count; ++k)
          area.lines[k] = image + r * row + area.places[k].row * row + area.places[k].column;
        sum_list(filter.taps, area.lines, count, out.first + r * out.pitch);
      }
    }
    for (std::int64_t r = 0; r < high; ++r) member.finish(target + r * job.to_row, r, count);
  }

  void in_place(const Region& region) const {
    const T* const image = reinterpret_cast<const T*>(piece.from) + region.first - job.along.before;
    const std::ptrdiff_t pitch = job.from_row / blocks.element;
    for (std::int64_t row = region.begin, next; row < region.end; row = next) {
      next = smaller(region.end, next_group(row));
      const Region rows{row, next, region.first, region.last};
      for (std::int64_t index = 0; index < job.filters; ++index) {
        few_rows(index, rows, image + (row - job.down.before) * pitch, pitch, index == 0);
      }
    }
  }

  void fetched(const Region& region) const {
    for (std::int64_t column = region.first; column < region.last; column += blocks.columns) {
      const std::int64_t last = smaller(region.last, column + blocks.columns);
      ImageRows<T> rows{job, member.reads, 0, 0, 0, 0, area.outside};
      rows.set(column - job.along.before, last - column + job.along.size - 1);
      for (std::int64_t row = region.begin, next; row < region.end; row = next) {
        next = smaller(region.end, next_group(row));
        const Region some{row, next, column, last};
        for (std::int64_t i = 0; i < some.end - row + job.down.size - 1; ++i) {
          rows.fetch(piece.from, row - job.down.before + i, area.strip + i * blocks.pitch, 0);
        }
        for (std::int64_t index = 0; index < job.filters; ++index) {
          few_rows(index, some, area.strip, blocks.pitch, false);
        }
      }
    }
  }

  // Windows inside the image, and a vector beyond them, are read where they are.
  void run() const {
    constexpr std::int64_t lanes = Vec<T>::lanes;
    const std::int64_t after = job.along.size - job.along.before + lanes, first = round_up(job.along.before, lanes),
                       last = first + (job.width - after - first) / (4 * lanes) * (4 * lanes);
    const std::int64_t begin = smaller(larger(piece.begin, job.down.before), piece.end),
                       end = larger(begin, smaller(piece.end, job.height - (job.down.size - 1 - job.down.before)));
    if (!blocks.read_in_place || last <= first) return fetched({piece.begin, piece.end, 0, job.width});
    fetched({piece.begin, begin, 0, job.width});
    fetched({begin, end, 0, first});
    in_place({begin, end, first, last});
    fetched({begin, end, last, job.width});
    fetched({end, piece.end, 0, job.width});
  }
};

}  // namespace convkit::CONVKIT_ISA
