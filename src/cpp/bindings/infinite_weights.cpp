#include "infinite_weights.hpp"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>

namespace convkit::bindings {
namespace {

// The pixels of the result along one axis that a tap reads padding for. A pixel of an input gradient that the tap does not
// reach at all, for the stride, is none of them.
struct Axis {
  std::int64_t outputs, inputs, stride, pad, dilation;
  bool gradient;

  bool reached(std::int64_t i, std::int64_t tap) const { return !gradient || (i + pad - tap * dilation) % stride == 0; }
  bool padding(std::int64_t i, std::int64_t tap) const {
    if (!gradient) {
      const std::int64_t at = i * stride - pad + tap * dilation;
      return at < 0 || at >= inputs;
    }
    const std::int64_t at = i + pad - tap * dilation;
    return at < 0 || at / stride >= outputs;
  }
};

Axis rows_of(const ConvProblem& p) { return {p.oh, p.h, p.stride_h, p.pad_top, p.dilation_h, p.op != Op::forward}; }
Axis columns_of(const ConvProblem& p) { return {p.ow, p.w, p.stride_w, p.pad_left, p.dilation_w, p.op != Op::forward}; }

// The sum of v * 0: NaN if any v is not finite. Several sums at once, since additions wait for one another.
template <class T>
bool run_is_finite(const char* data, std::int64_t stride, std::int64_t count) {
  T sums[16] = {};
  std::int64_t i = 0;
  if (stride == static_cast<std::int64_t>(sizeof(T))) {
    T v[16];
    for (; i + 16 <= count; i += 16) {
      std::memcpy(v, data + i * stride, sizeof v);
      for (int j = 0; j < 16; ++j) sums[j] += v[j] * T{0};
    }
  }
  for (; i < count; ++i) {
    T v;
    std::memcpy(&v, data + i * stride, sizeof v);
    sums[0] += v * T{0};
  }
  T sum = 0;
  for (const T s : sums) sum += s;
  return sum == 0;
}

template <class T>
bool finite(const ArrayArgument& array) {
  const npy_intp count = PyArray_SIZE(array.get());
  if (count == 0) return true;
  // Whatever the order of the dimensions: an array without holes is one run from its lowest address on.
  const char* lowest = array.data();
  std::int64_t reach = sizeof(T);
  for (int i = 0; i < array.ndim(); ++i) {
    const std::int64_t span = (array.shape()[i] - 1) * array.strides()[i];
    if (span < 0) lowest += span;
    reach += std::abs(span);
  }
  if (reach == count * static_cast<std::int64_t>(sizeof(T))) return run_is_finite<T>(lowest, sizeof(T), count);
  std::int64_t sizes[4] = {1, 1, 1, 1}, strides[4] = {};
  for (int i = 0, at = 4 - array.ndim(); i < array.ndim(); ++i, ++at) {
    sizes[at] = array.shape()[i];
    strides[at] = array.strides()[i];
  }
  for (std::int64_t a = 0; a < sizes[0]; ++a) {
    for (std::int64_t b = 0; b < sizes[1]; ++b) {
      for (std::int64_t c = 0; c < sizes[2]; ++c) {
        if (!run_is_finite<T>(array.data() + a * strides[0] + b * strides[1] + c * strides[2], strides[3], sizes[3])) {
          return false;
        }
      }
    }
  }
  return true;
}

template <class T>
class PaddingProducts {
 public:
  PaddingProducts(const ConvProblem& problem, const WeightView& weights, T* y)
      : p_(problem), weights_(weights), y_(y) {}

  void run() const {
    const bool gradient = p_.op != Op::forward;
    const std::int64_t outputs = p_.o / p_.groups, inputs = p_.c / p_.groups;
    const std::int64_t results = gradient ? inputs : outputs, terms = gradient ? outputs : inputs;
    for (std::int64_t group = 0; group < p_.groups; ++group) {
      for (std::int64_t result = 0; result < results; ++result) {
        for (std::int64_t i = 0; i < p_.kh; ++i) {
          for (std::int64_t j = 0; j < p_.kw; ++j) {
            bool all = true;
            for (std::int64_t term = 0; all && term < terms; ++term) {
              all = gradient ? finite_at(group, term, result, i, j) : finite_at(group, result, term, i, j);
            }
            if (!all) spoil(group * results + result, i, j);
          }
        }
      }
    }
  }

 private:
  bool finite_at(std::int64_t group, std::int64_t output, std::int64_t input, std::int64_t i, std::int64_t j) const {
    return std::isfinite(static_cast<const T*>(
        weights_.data)[group * weights_.stride_group + output * weights_.stride_o + input * weights_.stride_c +
                       i * weights_.stride_kh + j * weights_.stride_kw]);
  }

  // All pixels of a channel of the result for which tap (i, j) reads padding.
  void spoil(std::int64_t channel, std::int64_t i, std::int64_t j) const {
    const bool gradient = p_.op != Op::forward;
    const std::int64_t height = gradient ? p_.h : p_.oh, width = gradient ? p_.w : p_.ow;
    const std::int64_t channels = gradient ? p_.c : p_.o;
    const bool planar = p_.layout == Layout::nchw;
    const std::int64_t pixel = planar ? 1 : channels;
    const Axis rows = rows_of(p_), columns = columns_of(p_);
    for (std::int64_t n = 0; n < p_.n; ++n) {
      T* const first =
          y_ + (planar ? (n * channels + channel) * height * width : n * height * width * channels + channel);
      for (std::int64_t r = 0; r < height; ++r) {
        if (!rows.reached(r, i)) continue;
        const bool whole = rows.padding(r, i);
        for (std::int64_t c = 0; c < width; ++c) {
          if (!columns.reached(c, j) || !(whole || columns.padding(c, j))) continue;
          first[(r * width + c) * pixel] = std::numeric_limits<T>::quiet_NaN();
        }
      }
    }
  }

  const ConvProblem& p_;
  const WeightView& weights_;
  T* y_;
};

}  // namespace

bool multiplies_padding(const ConvProblem& p) {
  if (p.op == Op::weight_grad) return false;
  const bool padded = p.pad_top || p.pad_bottom || p.pad_left || p.pad_right;
  // What a gradient's taps reach beyond the border is padding too.
  return padded || (p.op == Op::input_grad && (p.kh > 1 || p.kw > 1 || p.h > p.oh || p.w > p.ow));
}

bool all_finite(const ArrayArgument& array) {
  return array.dtype() == Dtype::f32 ? finite<float>(array) : finite<double>(array);
}

void multiply_padding(const ConvProblem& problem, const WeightView& weights, void* y) {
  if (problem.dtype == Dtype::f32) {
    PaddingProducts<float>(problem, weights, static_cast<float*>(y)).run();
  } else {
    PaddingProducts<double>(problem, weights, static_cast<double*>(y)).run();
  }
}

}  // namespace convkit::bindings
