// What inventory entries over the Winograd schedule share.
#pragma once
#include "algorithms/entries.hpp"
#include "algorithms/winograd/predict.hpp"

namespace convkit::CONVKIT_ISA {

// The kernel whose functions are E's; `rms_ratio` as in docs/accuracy.md.
template <class T, class E>
constexpr Kernel winograd_kernel(const char* family, const char* name, Op op, std::int32_t revision, float rms_ratio) {
  Kernel k = kernel_of<T>(family, name, op, layout_nchw | layout_nhwc, revision);
  k.error = {false, rms_ratio};
  k.schema = winograd_schema;
  k.applies = E::applies;
  k.candidates = E::candidates;
  k.cost = E::cost;
  k.packing = E::packing;
  k.pack = E::pack;
  k.workspace_bytes = E::workspace_bytes;
  k.run = E::run;
  return k;
}

}  // namespace convkit::CONVKIT_ISA
