// Rows of an image as filters meet them: in the computing type, continued beyond the edges.
#pragma once
#include "algorithms/sharing.hpp"
#include "microkernels/elements.hpp"

namespace convkit::CONVKIT_ISA {

// Which of `count` places stands for place i, or -1: a constant.
CONVKIT_INLINE std::int64_t inside(std::int64_t i, std::int64_t count, Edge edge) {
  if (i >= 0 && i < count) return i;
  const auto modulo = [](std::int64_t a, std::int64_t b) { return (a % b + b) % b; };
  switch (edge) {
    case Edge::constant: return -1;
    case Edge::nearest: return i < 0 ? 0 : count - 1;
    case Edge::wrap: return modulo(i, count);
    case Edge::mirror: {
      if (count == 1) return 0;
      const std::int64_t at = modulo(i, 2 * count - 2);
      return at < count ? at : 2 * count - 2 - at;
    }
    default: {
      const std::int64_t at = modulo(i, 2 * count);
      return at < count ? at : 2 * count - 1 - at;
    }
  }
}

// The columns [begin, begin + width) that a block of results meets, some of them beyond the edges.
template <class T>
struct ImageRows {
  const FilterJob& job;
  ElementCalls<T> calls;
  std::int64_t begin, width;
  std::int64_t first, last;  // those of them that exist
  std::int64_t* outside;     // which columns stand for the others, in order

  void set(std::int64_t from, std::int64_t count) {
    begin = from;
    width = count;
    first = smaller(larger<std::int64_t>(begin, 0), begin + width);
    last = larger(smaller(begin + width, job.width), first);
    std::int64_t* next = outside;
    for (std::int64_t i = begin; i < first; ++i) *next++ = inside(i, job.width, job.along.edge);
    for (std::int64_t i = last; i < begin + width; ++i) *next++ = inside(i, job.width, job.along.edge);
  }

  // Whether all that stands for what lies beyond is among the columns that exist here.
  bool closed() const {
    for (std::int64_t k = 0; k < width - (last - first); ++k) {
      if (outside[k] >= 0 && (outside[k] < first || outside[k] >= last)) return false;
    }
    return true;
  }

  // Fills what lies beyond the left and right edges: value(i, column) stands for column i.
  template <class Value>
  CONVKIT_INLINE void continue_with(T* line, const Value& value) const {
    const T constant = static_cast<T>(job.cval);
    const std::int64_t* next = outside;
    for (std::int64_t i = begin; i < first; ++i, ++next) line[i - begin] = *next < 0 ? constant : value(i, *next);
    for (std::int64_t i = last; i < begin + width; ++i, ++next)
      line[i - begin] = *next < 0 ? constant : value(i, *next);
  }

  // Row `row`, which may lie beyond the edges itself. The one `ahead` of it is brought into L2.
  void fetch(const char* image, std::int64_t row, T* line, std::int64_t ahead) const {
    const std::int64_t at = inside(row, job.height, job.down.edge);
    if (at < 0) {
      for (std::int64_t i = 0; i < width; ++i) line[i] = static_cast<T>(job.cval);
      return;
    }
    const char* const source = image + at * job.from_row;
    if (last > first) {
      if (row + ahead < job.height) {
        const char* const next = source + ahead * job.from_row;
        const std::ptrdiff_t step = job.from_column < 0 ? -64 : 64;
        const std::ptrdiff_t end = (last - first) * job.from_column;
        for (std::ptrdiff_t at = 0; step < 0 ? at > end : at < end; at += step) {
          __builtin_prefetch(next + first * job.from_column + at, 0, 2);
        }
      }
      calls.read(source + first * job.from_column, job.from_column, line + (first - begin), last - first);
    }
    continue_with(line, [&](std::int64_t, std::int64_t column) {
      if (column >= first && column < last) return line[column - begin];
      T value;
      calls.read(source + column * job.from_column, job.from_column, &value, 1);
      return value;
    });
  }
};

}  // namespace convkit::CONVKIT_ISA
