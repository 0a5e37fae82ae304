// A 2-D convolution as every layer of convkit sees it: plain data, no strides of a particular array, no pointers.
#pragma once
#include <cstdint>

namespace convkit {

enum class Op : std::int32_t { forward = 0, input_grad = 1, weight_grad = 2 };
enum class Dtype : std::int32_t { f32 = 0, f64 = 1 };
// Order of the tensors in memory. A NCHW-shaped array with NHWC strides is nhwc.
enum class Layout : std::int32_t { nchw = 0, nhwc = 1 };
// What is done to an output before it is stored; clip values are arguments, never part of a problem.
enum class EpilogueClass : std::int32_t { none = 0, clamp = 1, other = 2 };

// Sizes are those of the forward convolution, whatever the op: x is N,C,H,W, w is O,C/groups,KH,KW, y is N,O,OH,OW.
// OH and OW are derived; `complete` fills them in and bounds everything else.
struct ConvProblem {
  Op op;
  Dtype dtype;
  Layout layout;
  std::int64_t n, c, h, w;
  std::int64_t o, kh, kw;
  std::int64_t stride_h, stride_w;
  std::int64_t pad_top, pad_bottom, pad_left, pad_right;
  std::int64_t dilation_h, dilation_w;
  std::int64_t groups;
  EpilogueClass epilogue;
  std::int64_t bias, residual;  // 0 or 1
  std::int64_t packed;          // 1: weights were packed beforehand; 0: packing is part of the call
  std::int64_t oh, ow;
};

// Number of integers that describe a problem to Python: all fields above but oh and ow, in that order.
inline constexpr int problem_fields = 23;

// What a complete problem keeps to, so that the products that kernels form of its sizes fit into 64 bits, with the lanes of
// a vector and the bytes of an element. No machine's memory or patience reaches as far.
//   rows and columns of x with its padding                  below 2^31
//   n * max(c, o) * such rows * such columns                below 2^52
//   o * c / groups * kh * kw                                below 2^48
//   multiply-adds                                           at most 2^58
// A filter, dilated, is no larger than x with its padding, and neither is a stride.
inline constexpr std::int64_t size_limit = std::int64_t{1} << 31;
inline constexpr int most_elements_log2 = 52, most_weights_log2 = 48, most_work_log2 = 58;

// Why a problem is impossible, for the caller to read; empty if it is not.
struct Refusal {
  char text[240];
  explicit operator bool() const { return text[0] != 0; }
};

// Fills in oh and ow. A stride that leads beyond the padded input, and the dilation of a single tap, have no effect: they
// become the least that has none either, so that such problems are one.
Refusal complete(ConvProblem& problem);

// Useful multiply-adds: what direct summation would do with no padding skipped.
double multiply_adds(const ConvProblem& problem);

}  // namespace convkit
