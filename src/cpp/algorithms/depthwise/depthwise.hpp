// What depthwise convolution shares between the layouts: which windows slide, and how output rows fall into groups.
#pragma once
#include "algorithms/entries.hpp"
#include "microkernels/sliding.hpp"

namespace convkit::CONVKIT_ISA {

inline bool depthwise_applies(const ConvProblem& p) { return p.groups == p.c && p.c > 0; }

// A window that slides: the others are computed output by output.
CONVKIT_INLINE bool slides_over(const ConvProblem& p) {
  if (p.kh != p.kw || p.stride_h != p.stride_w || (p.kh != 3 && p.kh != 5 && p.kh != 7)) return false;
  return p.stride_h == 1 || (p.stride_h == 2 && p.dilation_h == 1 && p.dilation_w == 1);
}

// An image's output rows in groups of neighbours; with dilation d, neighbours are d rows apart.
struct RowGroups {
  std::int64_t outputs, dilation;
  int most;

  struct Group {
    std::int64_t first;
    int rows;
  };
  // Phases are the rows with one remainder by the dilation: the first `longer` have a row more than the others.
  CONVKIT_INLINE std::int64_t longer() const { return outputs % dilation; }
  CONVKIT_INLINE std::int64_t groups_of(std::int64_t rows) const { return ceil_div(rows, most); }
  CONVKIT_INLINE std::int64_t count() const {
    const std::int64_t rows = outputs / dilation;
    return longer() * groups_of(rows + 1) + (dilation - longer()) * groups_of(rows);
  }
  CONVKIT_INLINE Group at(std::int64_t index) const {
    std::int64_t rows = outputs / dilation + 1, first_phase = 0;
    if (const std::int64_t groups = longer() * groups_of(rows); index >= groups) {
      index -= groups;
      first_phase = longer();
      --rows;
    }
    const std::int64_t phase = first_phase + index / groups_of(rows), group = index % groups_of(rows);
    const RowSplit split = split_rows(rows, most);
    const std::int64_t row = group * split.rows + smaller(group, split.big);
    return {phase + row * dilation, split.rows + (group < split.big ? 1 : 0)};
  }
};

// Input rows that a group of output rows meets.
CONVKIT_INLINE std::int64_t input_rows(const ConvProblem& p, int rows) {
  return slides_over(p) ? (rows - 1) * p.stride_h + p.kh : p.kh;
}

// Everything about a group of output rows that does not depend on the channels.
struct Rows {
  std::int64_t image, first;  // first output row
  int rows;
  std::int64_t input, step;  // input row under the filter's first row, distance between the filter's rows
  std::int64_t begin, end;   // of the input rows met, those that exist

  Rows(const ConvProblem& p, const RowGroups& groups, std::int64_t item, std::int64_t per_image) {
    image = item / per_image;
    const RowGroups::Group group = groups.at(item % per_image);
    first = group.first;
    rows = group.rows;
    input = first * p.stride_h - p.pad_top;
    step = p.dilation_h;
    const std::int64_t met = input_rows(p, rows);
    begin = input < 0 ? smaller(ceil_div(-input, step), met) : 0;
    end = input >= p.h ? begin : larger(begin, smaller((p.h - 1 - input) / step + 1, met));
  }
};

CONVKIT_INLINE int team_size(const ConvProblem& p, int threads) { return worthwhile_threads(p, threads, 2e5); }

// NHWC: a group of rows, phase by phase of a dilated window. `in` and `out` begin at column 0; slide(in, outputs, out) does
// one phase.
template <class T, class In, class Slide>
CONVKIT_INLINE void slide_phases(const ConvProblem& p, In in, SlideOut<T> out, const Slide& slide) {
  const std::int64_t dilation = p.stride_w == 1 ? p.dilation_w : 1;
  const T* const x = in.x;
  T* const y = out.y;
  const T* const residual = out.residual;
  const std::ptrdiff_t pixel = out.column, column = in.column;
  out.column = dilation * pixel;
  in.column = dilation * column;
  for (std::int64_t phase = 0; phase < dilation && phase < p.ow; ++phase) {
    in.before = phase < p.pad_left ? ceil_div(p.pad_left - phase, dilation) : 0;
    const std::int64_t j = phase + in.before * dilation - p.pad_left;
    in.existing = j < p.w ? (p.w - 1 - j) / dilation + 1 : 0;
    in.x = x + j * column;
    out.y = y + phase * pixel;
    out.residual = residual ? residual + phase * pixel : nullptr;
    slide(in, ceil_div(p.ow - phase, dilation), out);
  }
}

}  // namespace convkit::CONVKIT_ISA
