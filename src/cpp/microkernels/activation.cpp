#include "microkernels/activation.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

// exp(y) = 2^n (1 + p): n is y / ln 2 rounded, p = exp(r) - 1 for what is left, |r| <= ln(2) / 2. Keeping p apart from the
// 1 is what lets tanh be exact near 0. ln 2 is split in two so that n * ln2_high is exact.
template <class T>
struct ExpConstants;

template <>
struct ExpConstants<float> {
  typedef std::int32_t Int;
  static constexpr float log2e = 1.44269504088896341f, ln2_high = 0.693359375f, ln2_low = -2.12194440054690583e-4f;
  static constexpr float round = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
  static constexpr float least = -104.0f;      // exp is 0 here
  static constexpr int mantissa_bits = 23, bias = 127, terms = 7;
};

template <>
struct ExpConstants<double> {
  typedef std::int64_t Int;
  static constexpr double log2e = 1.44269504088896341, ln2_high = 0.693145751953125, ln2_low = 1.42860682030941723e-6;
  static constexpr double round = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double least = -746.0;
  static constexpr int mantissa_bits = 52, bias = 1023, terms = 13;
};

// 1 / k!
struct Taylor {
  double coefficient[14];
};
constexpr Taylor make_taylor() {
  Taylor series{};
  double factorial = 1;
  for (int k = 0; k < 14; ++k) {
    if (k > 1) factorial *= k;
    series.coefficient[k] = 1 / factorial;
  }
  return series;
}
constexpr Taylor taylor = make_taylor();

template <class T>
struct Exponential {
  using V = Vec<T>;
  using Reg = typename V::Reg;
  using K = ExpConstants<T>;
  typedef typename K::Int IntReg __attribute__((vector_size(V::bytes)));

  Reg p;              // exp(r) - 1
  Reg first, second;  // powers of two with first * second = 2^n: n itself may be below the smallest exponent

  // y <= 0, or NaN, which survives in p.
  static CONVKIT_INLINE Exponential of(Reg y) {
    y = V::max(V::set1(K::least), y);
    const Reg round = V::set1(K::round);
    const Reg n = (y * V::set1(K::log2e) + round) - round;
    const Reg r = (y - n * V::set1(K::ln2_high)) - n * V::set1(K::ln2_low);
    Reg p = V::set1(static_cast<T>(taylor.coefficient[K::terms]));
    CONVKIT_UNROLL
    for (int k = K::terms - 1; k >= 2; --k) p = p * r + V::set1(static_cast<T>(taylor.coefficient[k]));
    p = p * r * r + r;
    const Reg half = (n * V::set1(T(0.5)) + round) - round;
    return {p, power_of_two(half), power_of_two(n - half)};
  }

  CONVKIT_INLINE Reg value() const { return (p + V::set1(1)) * first * second; }
  CONVKIT_INLINE Reg minus_one() const {
    const Reg scale = first * second;
    return scale * p + (scale - V::set1(1));
  }

  // n integral, in the range of exponents.
  static CONVKIT_INLINE Reg power_of_two(Reg n) {
    const Reg biased = n + V::set1(K::round + K::bias);
    return (Reg)((IntReg)biased << K::mantissa_bits);
  }
};

template <class T, class Reg = typename Vec<T>::Reg>
CONVKIT_INLINE Reg absolute(Reg x) {
  return Vec<T>::max(-x, x);  // NaN where x is NaN
}

template <class T>
struct Sigmoid {
  using V = Vec<T>;
  CONVKIT_INLINE typename V::Reg operator()(typename V::Reg x) const {
    const auto e = Exponential<T>::of(-absolute<T>(x)).value();
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
CONVKIT_INLINE void dispatch(T* y, std::int64_t rows, std::ptrdiff_t row_stride, std::int64_t count,
                             const Epilogue& epilogue) {
  switch (epilogue.activation) {
    case Activation::none:
    case Activation::clamp: return;
    case Activation::silu: return apply(y, rows, row_stride, count, Silu<T>{});
    case Activation::hardswish: return apply(y, rows, row_stride, count, Hardswish<T>{});
    case Activation::sigmoid: return apply(y, rows, row_stride, count, Sigmoid<T>{});
    case Activation::tanh: return apply(y, rows, row_stride, count, Tanh<T>{});
    case Activation::leaky_relu:
      return apply(y, rows, row_stride, count, LeakyRelu<T>{Vec<T>::set1(static_cast<T>(epilogue.lo))});
  }
}

}  // namespace

template <>
void activate_rows<float>(float* y, std::int64_t rows, std::ptrdiff_t row_stride, std::int64_t count,
                          const Epilogue& epilogue) {
  dispatch(y, rows, row_stride, count, epilogue);
}

template <>
void activate_rows<double>(double* y, std::int64_t rows, std::ptrdiff_t row_stride, std::int64_t count,
                           const Epilogue& epilogue) {
  dispatch(y, rows, row_stride, count, epilogue);
}

}  // namespace convkit::CONVKIT_ISA
