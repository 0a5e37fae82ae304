// Phases of a strided convolution, one axis at a time. The pixels i of dx with equal (i + pad) mod stride form a phase: they
// meet the same taps, each at outputs that lie side by side.
#pragma once
#include "algorithms/sharing.hpp"

namespace convkit::CONVKIT_ISA {

// One axis of the problem: coordinates of dx are `inputs`, of dy `outputs`.
struct Axis {
  std::int64_t inputs, outputs, taps, stride, dilation, pad;
  std::int64_t tap_step, output_step;  // between the taps of one phase; outputs fall as taps rise
  std::int64_t common, inverse;        // of stride and dilation; of output_step, modulo tap_step

  CONVKIT_INLINE Axis(std::int64_t inputs_, std::int64_t outputs_, std::int64_t taps_, std::int64_t stride_,
                      std::int64_t dilation_, std::int64_t pad_)
      : inputs(inputs_), outputs(outputs_), taps(taps_), stride(stride_), dilation(dilation_), pad(pad_) {
    // Euclid: a = x * dilation modulo stride throughout, and likewise b with y.
    std::int64_t a = stride, b = dilation, x = 0, y = 1;
    while (b) {
      const std::int64_t quotient = a / b, rest = a % b, next = x - quotient * y;
      a = b, b = rest;
      x = y, y = next;
    }
    common = a;
    tap_step = stride / a;
    output_step = dilation / a;
    inverse = (x % tap_step + tap_step) % tap_step;
  }
  CONVKIT_INLINE std::int64_t residue(std::int64_t input) const { return (input + pad) % stride; }
  // First tap of a phase, or `taps` if it has none: the least with tap * dilation = residue modulo stride.
  CONVKIT_INLINE std::int64_t first_tap(std::int64_t residue) const {
    return residue % common ? taps : smaller(residue / common * inverse % tap_step, taps);
  }
  // The output that tap `first` of its phase takes an input to; may lie outside.
  CONVKIT_INLINE std::int64_t output(std::int64_t input, std::int64_t first) const {
    return (input + pad - first * dilation) / stride;
  }
  CONVKIT_INLINE std::int64_t taps_of_a_phase() const { return ceil_div(taps, tap_step); }
};

CONVKIT_INLINE Axis rows_axis(const ConvProblem& p) { return {p.h, p.oh, p.kh, p.stride_h, p.dilation_h, p.pad_top}; }
CONVKIT_INLINE Axis columns_axis(const ConvProblem& p) {
  return {p.w, p.ow, p.kw, p.stride_w, p.dilation_w, p.pad_left};
}

}  // namespace convkit::CONVKIT_ISA
