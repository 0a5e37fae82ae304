#include "problem.hpp"

#include <cstdio>
#include <initializer_list>

namespace convkit {

namespace {

using Long = long long;  // what printf knows

template <class... Values>
Refusal refusal(const char* format, Values... values) {
  Refusal refused{};
  std::snprintf(refused.text, sizeof refused.text, format, values...);
  return refused;
}

struct Named {
  const char* name;
  std::int64_t value, least;
};

Refusal out_of_range(const ConvProblem& p) {
  const Named sizes[] = {{"n", p.n, 0},
                         {"c", p.c, 0},
                         {"h", p.h, 0},
                         {"w", p.w, 0},
                         {"o", p.o, 0},
                         {"kh", p.kh, 1},
                         {"kw", p.kw, 1},
                         {"stride_h", p.stride_h, 1},
                         {"stride_w", p.stride_w, 1},
                         {"dilation_h", p.dilation_h, 1},
                         {"dilation_w", p.dilation_w, 1},
                         {"groups", p.groups, 1}};
  for (const Named& size : sizes) {
    if (size.value < size.least || size.value >= size_limit) {
      return refusal("%s must be at least %lld and below 2**31, not %lld", size.name, Long{size.least},
                     Long{size.value});
    }
  }
  for (const std::int64_t pad : {p.pad_top, p.pad_bottom, p.pad_left, p.pad_right}) {
    if (pad < 0 || pad >= size_limit) {
      return refusal("padding must be at least 0 and below 2**31 on each side, not ((%lld, %lld), (%lld, %lld))",
                     Long{p.pad_top}, Long{p.pad_bottom}, Long{p.pad_left}, Long{p.pad_right});
    }
  }
  return {};
}

// a * b * c * d, or a number above any limit. None is negative.
std::int64_t product(std::int64_t a, std::int64_t b, std::int64_t c, std::int64_t d) {
  std::int64_t all = a;
  for (const std::int64_t factor : {b, c, d}) {
    if (factor == 0) return 0;
    if (__builtin_mul_overflow(all, factor, &all)) all = INT64_MAX;
  }
  return all;
}

}  // namespace

Refusal complete(ConvProblem& p) {
  if (const Refusal refused = out_of_range(p)) return refused;
  if (p.c % p.groups || p.o % p.groups) {
    return refusal("groups=%lld must divide the channels %lld and %lld", Long{p.groups}, Long{p.c}, Long{p.o});
  }
  const std::int64_t rows = p.h + p.pad_top + p.pad_bottom, columns = p.w + p.pad_left + p.pad_right;
  if (rows >= size_limit || columns >= size_limit) {
    return refusal(
        "padding ((%lld, %lld), (%lld, %lld)) makes %lld x %lld pixels into %lld x %lld, "
        "at most 2147483647 along an axis are possible",
        Long{p.pad_top}, Long{p.pad_bottom}, Long{p.pad_left}, Long{p.pad_right}, Long{p.h}, Long{p.w}, Long{rows},
        Long{columns});
  }
  const std::int64_t high = p.dilation_h * (p.kh - 1) + 1, wide = p.dilation_w * (p.kw - 1) + 1;
  if (high > rows || wide > columns) {
    return refusal(
        "the dilated filter is larger than the padded input: %lld x %lld pixels, with dilation "
        "(%lld, %lld), on %lld x %lld",
        Long{high}, Long{wide}, Long{p.dilation_h}, Long{p.dilation_w}, Long{rows}, Long{columns});
  }
  p.oh = (rows - high) / p.stride_h + 1;
  p.ow = (columns - wide) / p.stride_w + 1;
  if (p.stride_h > rows) p.stride_h = rows;
  if (p.stride_w > columns) p.stride_w = columns;
  if (p.kh == 1) p.dilation_h = 1;
  if (p.kw == 1) p.dilation_w = 1;
  if (product(p.n, p.c > p.o ? p.c : p.o, rows, columns) >> most_elements_log2) {
    return refusal(
        "with padding ((%lld, %lld), (%lld, %lld)) the input has %lld x %lld pixels; times %lld channels and "
        "%lld images these are more than 2**%d elements",
        Long{p.pad_top}, Long{p.pad_bottom}, Long{p.pad_left}, Long{p.pad_right}, Long{rows}, Long{columns},
        Long{p.c > p.o ? p.c : p.o}, Long{p.n}, most_elements_log2);
  }
  if (product(p.o, p.c / p.groups, p.kh, p.kw) >> most_weights_log2) {
    return refusal("the filters have more than 2**%d weights", most_weights_log2);
  }
  if (multiply_adds(p) > static_cast<double>(std::int64_t{1} << most_work_log2)) {
    return refusal("%.3g multiply-adds are more than 2**%d", multiply_adds(p), most_work_log2);
  }
  return {};
}

double multiply_adds(const ConvProblem& p) {
  return static_cast<double>(p.n) * static_cast<double>(p.o) * static_cast<double>(p.oh) * static_cast<double>(p.ow) *
         static_cast<double>(p.c / p.groups) * static_cast<double>(p.kh) * static_cast<double>(p.kw);
}

}  // namespace convkit
