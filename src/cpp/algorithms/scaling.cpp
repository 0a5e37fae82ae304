// One pass of a batch, group or instance normalization, a gate of channels, a sum or an activation: each value by its
// channel's factor and summand, then the activation over values that are still in L1.
#include "algorithms/sharing.hpp"
#include "images.hpp"
#include "microkernels/activation.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

constexpr std::int64_t strip = 2048;  // elements between two turns of the activation

// `count` neighbours: factors beside them, or one for all.
template <class T, bool Each>
CONVKIT_INLINE void run_of(const T* from, const T* scale, const T* shift, const T* residual, T* to,
                           std::int64_t count) {
  using V = Vec<T>;
  auto factor = V::set1(scale && !Each ? *scale : T(1)), summand = V::set1(shift && !Each ? *shift : T(-0.0));
  const auto one = [&](std::int64_t i, auto... valid) CONVKIT_LAMBDA {
    if (Each && scale) factor = V::load(scale + i, valid...);
    if (Each && shift) summand = V::load(shift + i, valid...);
    auto value = V::load(from + i, valid...) * factor + summand;
    if (residual) value += V::load(residual + i, valid...);
    V::store(to + i, value, valid...);
  };
  std::int64_t i = 0;
  for (; i + V::lanes <= count; i += V::lanes) one(i);
  if (i < count) one(i, static_cast<int>(count - i));
}

template <class T>
CONVKIT_INLINE void clamp_elements(T* y, std::int64_t count, T lo, T hi) {
  using V = Vec<T>;
  const auto least = V::set1(lo), most = V::set1(hi);
  const auto one = [&](std::int64_t i, auto... valid) CONVKIT_LAMBDA {
    V::store(y + i, V::min(most, V::max(least, V::load(y + i, valid...))), valid...);  // NaN survives
  };
  std::int64_t i = 0;
  for (; i + V::lanes <= count; i += V::lanes) one(i);
  if (i < count) one(i, static_cast<int>(count - i));
}

template <class T>
void scale_elements(const ScaleShift& s, int index, int size) {
  const T *const from = static_cast<const T*>(s.from), *const residual = static_cast<const T*>(s.residual);
  const T *const scale = static_cast<const T*>(s.scale), *const shift = static_cast<const T*>(s.shift);
  T* const to = static_cast<T*>(s.to);
  const Epilogue epilogue{nullptr, nullptr, s.activation, s.lo, s.hi, nullptr};
  const bool clamps = s.activation == Activation::clamp;
  const Share mine = share(s.outer * s.count, index, size);
  const std::int64_t step = larger<std::int64_t>(1, strip / s.inner);
  for (std::int64_t at = mine.begin; at < mine.end;) {
    const std::int64_t outer = at / s.count;
    const std::int64_t end = smaller(smaller(at + step, mine.end), (outer + 1) * s.count);
    const T* const a = scale ? scale + outer * s.inner : nullptr;
    const T* const b = shift ? shift + outer * s.inner : nullptr;
    const std::int64_t begin = at * s.inner, count = (end - at) * s.inner;
    if (s.inner == 1 || (!scale && !shift)) {
      run_of<T, false>(from + begin, a, b, residual ? residual + begin : nullptr, to + begin, count);
    } else {
      for (std::int64_t i = begin; i < begin + count; i += s.inner) {
        run_of<T, true>(from + i, a, b, residual ? residual + i : nullptr, to + i, s.inner);
      }
    }
    if (clamps) {
      clamp_elements(to + begin, count, static_cast<T>(s.lo), static_cast<T>(s.hi));
    } else if (s.activation != Activation::none) {
      activate_rows<T>(to + begin, 1, count, count, epilogue);
    }
    at = end;
  }
}

}  // namespace

void scale_shift(const ScaleShift& what, int threads) {
  auto member = [&](int index, int size) {
    what.wide ? scale_elements<double>(what, index, size) : scale_elements<float>(what, index, size);
  };
  team(threads, member);
}

}  // namespace convkit::CONVKIT_ISA
