// What inventory entries over the Winograd schedule share.
#pragma once
#include "algorithms/entries.hpp"
#include "algorithms/winograd/predict.hpp"

namespace convkit::CONVKIT_ISA {

// The kernel whose functions are E's; `rms_ratio` as in docs/accuracy.md.
template <class T, class E>
constexpr Kernel winograd_kernel(const char* family, const char* name, Op op, std::int32_t revision, float rms_ratio) {
  return kernel_of<T>(family, name, op, layout_nchw | layout_nhwc, revision,
                      {winograd_schema, E::applies, E::candidates, E::cost, E::workspace_bytes, E::run},
                      {E::packing, E::pack}, ErrorClass{false, rms_ratio});
}

}  // namespace convkit::CONVKIT_ISA
