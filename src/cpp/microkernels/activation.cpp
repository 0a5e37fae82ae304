#include "microkernels/activation.hpp"

#include "microkernels/exponential.hpp"
#include "microkernels/gelu.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

template <class T>
struct Sigmoid {
  using V = Vec<T>;
  CONVKIT_INLINE typename V::Reg operator()(typename V::Reg x) const {
    const auto e = Exponential<T>::of(negative<T>(x)).value();
    const auto one = V::set1(1);
    return (x < V::zero() ? e : one) / (one + e);
  }
};

template <class T>
struct Silu {
  CONVKIT_INLINE typename Vec<T>::Reg operator()(typename Vec<T>::Reg x) const { return x * Sigmoid<T>{}(x); }
};

template <class T>
struct Hardswish {
  using V = Vec<T>;
  CONVKIT_INLINE typename V::Reg operator()(typename V::Reg x) const {
    const auto gate = V::min(V::set1(6), V::max(V::zero(), x + V::set1(3)));
    return x * (gate * V::set1(T(1) / T(6)));
  }
};

template <class T>
struct Tanh {
  using V = Vec<T>;
  CONVKIT_INLINE typename V::Reg operator()(typename V::Reg x) const {
    const auto magnitude = absolute<T>(x);
    const auto e = Exponential<T>::of(magnitude * V::set1(-2)).minus_one();
    const auto t = -e / (e + V::set1(2));
    return x < V::zero() ? -t : t;
  }
};

template <class T>
struct GeluTanh {
  using V = Vec<T>;
  // (1 + tanh(t)) / 2 is the sigmoid of 2 t; t = sqrt(2 / pi) (x + 0.044715 x^3).
  CONVKIT_INLINE typename V::Reg operator()(typename V::Reg x) const {
    constexpr T first = T(1.5957691216057307), third = T(1.5957691216057307 * 0.044715);
    return x * Sigmoid<T>{}(x * (V::set1(third) * (x * x) + V::set1(first)));
  }
};

template <class T>
struct LeakyRelu {
  using V = Vec<T>;
  typename V::Reg slope;
  CONVKIT_INLINE typename V::Reg operator()(typename V::Reg x) const { return x < V::zero() ? x * slope : x; }
};

template <class T, class Function>
void apply(T* y, std::int64_t rows, std::ptrdiff_t row_stride, std::int64_t count, Function function) {
  using V = Vec<T>;
  if (row_stride == count) {
    count *= rows;
    rows = 1;
  }
  for (; rows > 0; --rows, y += row_stride) {
    std::int64_t i = 0;
    for (; i + 2 * V::lanes <= count; i += 2 * V::lanes) {
      const auto a = function(V::load(y + i)), b = function(V::load(y + i + V::lanes));
      V::store(y + i, a);
      V::store(y + i + V::lanes, b);
    }
    for (; i < count; i += V::lanes) {
      const int n = static_cast<int>(smaller<std::int64_t>(count - i, V::lanes));
      V::store(y + i, function(V::load(y + i, n)), n);
    }
  }
}

template <class T>
CONVKIT_INLINE void activate(T* y, std::int64_t rows, std::ptrdiff_t row_stride, std::int64_t count,
                             const Epilogue& epilogue) {
  switch (epilogue.activation) {
    case Activation::none:
    case Activation::clamp: return;
    case Activation::gelu: return apply(y, rows, row_stride, count, Gelu<T>{});
    case Activation::gelu_tanh: return apply(y, rows, row_stride, count, GeluTanh<T>{});
    case Activation::silu: return apply(y, rows, row_stride, count, Silu<T>{});
    case Activation::hardswish: return apply(y, rows, row_stride, count, Hardswish<T>{});
    case Activation::sigmoid: return apply(y, rows, row_stride, count, Sigmoid<T>{});
    case Activation::tanh: return apply(y, rows, row_stride, count, Tanh<T>{});
    case Activation::leaky_relu:
      return apply(y, rows, row_stride, count, LeakyRelu<T>{Vec<T>::set1(static_cast<T>(epilogue.lo))});
  }
}

// One run of elements of y: of one channel, or, if `Each`, of one channel each.
template <class T, bool Each>
void follow_run(T* y, std::int64_t count, const T* scale, const T* shift, const T* residual) {
  using V = Vec<T>;
  auto factor = V::set1(scale && !Each ? *scale : T(1)), summand = V::set1(shift && !Each ? *shift : T(-0.0));
  const auto one = [&](std::int64_t i, auto... valid) CONVKIT_LAMBDA {
    if (Each && scale) factor = V::load(scale + i, valid...);
    if (Each && shift) summand = V::load(shift + i, valid...);
    auto value = V::load(y + i, valid...) * factor + summand;
    if (residual) value += V::load(residual + i, valid...);
    V::store(y + i, value, valid...);
  };
  std::int64_t i = 0;
  for (; i + V::lanes <= count; i += V::lanes) one(i);
  if (i < count) one(i, static_cast<int>(count - i));
}

template <class T>
void follow(T* y, std::int64_t rows, std::ptrdiff_t row_stride, std::int64_t count, const Following& f) {
  const T* const scale = static_cast<const T*>(f.scale);
  const T* const shift = static_cast<const T*>(f.shift);
  const T* const residual = static_cast<const T*>(f.residual);
  const bool each = f.plane == 1;
  for (; rows > 0; --rows, y += row_stride) {
    const std::int64_t begin = y - static_cast<const T*>(f.y);
    for (std::int64_t at = begin; at < begin + count;) {
      const std::int64_t planes = at / f.plane, channel = planes % f.channels;
      const std::int64_t end = smaller(begin + count, each ? at + f.channels - channel : (planes + 1) * f.plane);
      const auto run = each ? follow_run<T, true> : follow_run<T, false>;
      run(y + (at - begin), end - at, scale ? scale + channel : nullptr, shift ? shift + channel : nullptr,
          residual ? residual + at : nullptr);
      at = end;
    }
  }
}

template <class T>
CONVKIT_INLINE void finish(T* y, std::int64_t rows, std::ptrdiff_t row_stride, std::int64_t count,
                           const Epilogue& epilogue) {
  activate(y, rows, row_stride, count, epilogue);
  if (epilogue.following) follow(y, rows, row_stride, count, *epilogue.following);
}

}  // namespace

template <>
void activate_rows<float>(float* y, std::int64_t rows, std::ptrdiff_t row_stride, std::int64_t count,
                          const Epilogue& epilogue) {
  finish(y, rows, row_stride, count, epilogue);
}

template <>
void activate_rows<double>(double* y, std::int64_t rows, std::ptrdiff_t row_stride, std::int64_t count,
                           const Epilogue& epilogue) {
  finish(y, rows, row_stride, count, epilogue);
}

}  // namespace convkit::CONVKIT_ISA
