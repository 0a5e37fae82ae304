// Copies between arrays of any strides, by a team.
#pragma once
#include <cstdint>

namespace convkit::bindings {

// Copies an array of four dimensions. Strides are in bytes and of any sign; `element` is 4 or 8 bytes; the source may be
// misaligned and may overlap itself, source and destination may not overlap each other.
struct StridedCopy {
  char* to;
  const char* from;
  std::int64_t sizes[4];
  std::int64_t to_strides[4], from_strides[4];
  int element;
};

void copy(const StridedCopy& what, int threads);

}  // namespace convkit::bindings
