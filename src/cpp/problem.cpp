#include "problem.hpp"

#include <initializer_list>

namespace convkit {

namespace {

constexpr std::int64_t size_limit = std::int64_t{1} << 31;

// Output length along one axis, or -1 if the filter does not fit.
std::int64_t output_length(std::int64_t length, std::int64_t pads, std::int64_t taps, std::int64_t dilation,
                           std::int64_t stride) {
  const std::int64_t room = length + pads - dilation * (taps - 1) - 1;
  return room < 0 ? -1 : room / stride + 1;
}

bool overflows(std::int64_t a, std::int64_t b, std::int64_t c, std::int64_t d) {
  std::int64_t product = a;
  for (const std::int64_t factor : {b, c, d}) {
    if (__builtin_mul_overflow(product, factor, &product)) return true;
  }
  return product > (std::int64_t{1} << 58);  // leaves room for the size of an element and sums of tensors
}

}  // namespace

const char* complete(ConvProblem& p) {
  for (const std::int64_t size : {p.n, p.c, p.h, p.w, p.o}) {
    if (size < 0 || size >= size_limit) return "sizes must be in [0, 2**31)";
  }
  for (const std::int64_t size : {p.kh, p.kw, p.stride_h, p.stride_w, p.dilation_h, p.dilation_w, p.groups}) {
    if (size < 1 || size >= size_limit) return "filter sizes, strides, dilations and groups must be in [1, 2**31)";
  }
  for (const std::int64_t pad : {p.pad_top, p.pad_bottom, p.pad_left, p.pad_right}) {
    if (pad < 0 || pad >= size_limit) return "pads must be in [0, 2**31)";
  }
  if (p.c % p.groups || p.o % p.groups) return "channels must be divisible by groups";
  p.oh = output_length(p.h, p.pad_top + p.pad_bottom, p.kh, p.dilation_h, p.stride_h);
  p.ow = output_length(p.w, p.pad_left + p.pad_right, p.kw, p.dilation_w, p.stride_w);
  if (p.oh < 0 || p.ow < 0) return "the dilated filter is larger than the padded input";
  if (overflows(p.n, p.c, p.h, p.w) || overflows(p.n, p.o, p.oh, p.ow) || overflows(p.o, p.c, p.kh, p.kw)) {
    return "a tensor would have more than 2**58 elements";
  }
  return nullptr;
}

double multiply_adds(const ConvProblem& p) {
  return static_cast<double>(p.n) * static_cast<double>(p.o) * static_cast<double>(p.oh) * static_cast<double>(p.ow) *
         static_cast<double>(p.c / p.groups) * static_cast<double>(p.kh) * static_cast<double>(p.kw);
}

}  // namespace convkit
