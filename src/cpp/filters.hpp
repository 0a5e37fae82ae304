// Filters of images: weighted sums of neighbours with a rule for what lies beyond the edge. Plain structs and the one door.
#pragma once
#include <cstdint>

#include "inventory.hpp"

namespace convkit {

// What an image's elements are. Images of f32 with results of f32 are computed in float, everything else in double.
enum class Element : std::int32_t { boolean, i8, u8, i16, u16, i32, u32, i64, u64, f32, f64 };
inline constexpr int element_sizes[] = {1, 1, 1, 2, 2, 4, 4, 8, 8, 4, 8};
constexpr int size_of(Element element) { return element_sizes[static_cast<int>(element)]; }

// What lies beyond the edge of a b c d, in SciPy's words.
enum class Edge : std::int32_t {
  reflect,  // d c b a | a b c d | d c b a
  mirror,   //   d c b | a b c d | c b a
  nearest,  // a a a a | a b c d | d d d d
  wrap,     // a b c d | a b c d | a b c d
  constant  // a number
};

// One axis of the window: output i is met by taps k at places i + k - before.
struct FilterAxis {
  Edge edge;
  std::int64_t size, before;
};

enum class FilterKind : std::int32_t {
  dense,      // `filters` windows of weights
  separable,  // taps along the columns, then along the rows
  uniform     // means, by running sums, likewise
};

// Strides are in bytes and of any sign. Source and result do not overlap; nothing is empty.
struct FilterJob {
  FilterKind kind;
  const char* from;
  char* to;
  Element from_element, to_element;
  std::int64_t images, height, width, filters;
  std::int64_t from_image, from_row, from_column;
  std::int64_t to_filter, to_image, to_row, to_column;
  FilterAxis down, along;                // the columns and the rows of the window
  const double* weights;                 // dense: filters x down.size x along.size
  const double *down_taps, *along_taps;  // separable
  double cval;
  bool exact;    // every weight is multiplied as it is; else windows may be computed from fewer products
  bool rounded;  // what the first pass gives takes the form of the result's elements, as it does in SciPy's filters
};

// By a team of at most `threads` with an instruction set that is allowed; the bits do not depend on the team's size. Throws
// std::bad_alloc.
void filter(const FilterJob& job, Isa isa, int threads);

}  // namespace convkit
