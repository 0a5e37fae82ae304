// exp of what is not positive, to about a unit in the last place.
#pragma once
#include "isa/vec.hpp"

namespace convkit::CONVKIT_ISA {

// exp(y) = 2^n (1 + p): n is y / ln 2 rounded, p = exp(r) - 1 for what is left, |r| <= ln(2) / 2. Keeping p apart from the
// 1 is what lets tanh be exact near 0. ln 2 is split in two so that n * ln2_high is exact. Below the smallest exponent 2^n
// is the product of two powers; one instruction for it rounds to the same bits, as only the last step can be inexact.
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

  Reg p;  // exp(r) - 1
  Reg n;

  // y <= 0, or NaN, which survives in p.
  static CONVKIT_INLINE Exponential of(Reg y) {
    y = V::max(V::set1(K::least), y);
    const Reg n = rounded(y * V::set1(K::log2e));
    return of_parts(n, rest(y, n));
  }
  // The same of a sum whose second part, far below 1, is what the first one has lost by rounding.
  static CONVKIT_INLINE Exponential of(Reg y, Reg low) {
    y = V::max(V::set1(K::least), y);
    const Reg n = rounded(y * V::set1(K::log2e));
    return of_parts(n, rest(y, n) + low);
  }
  CONVKIT_INLINE Reg value() const { return scaled(p + V::set1(1)); }
  CONVKIT_INLINE Reg minus_one() const {
    const Reg scale = scaled(V::set1(1));
    return scale * p + (scale - V::set1(1));
  }

 private:
  static CONVKIT_INLINE Reg rounded(Reg y) { return (y + V::set1(K::round)) - V::set1(K::round); }
  static CONVKIT_INLINE Reg rest(Reg y, Reg n) { return (y - n * V::set1(K::ln2_high)) - n * V::set1(K::ln2_low); }
  static CONVKIT_INLINE Exponential of_parts(Reg n, Reg r) {
    Reg p = V::set1(static_cast<T>(taylor.coefficient[K::terms]));
    CONVKIT_UNROLL
    for (int k = K::terms - 1; k >= 2; --k) p = p * r + V::set1(static_cast<T>(taylor.coefficient[k]));
    return {p * r * r + r, n};
  }
  // v * 2^n
  CONVKIT_INLINE Reg scaled(Reg v) const {
    if constexpr (V::scales) {
      return V::scale(v, n);
    } else {
      const Reg half = rounded(n * V::set1(T(0.5)));
      return v * power_of_two(half) * power_of_two(n - half);
    }
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

// -absolute(x)
template <class T, class Reg = typename Vec<T>::Reg>
CONVKIT_INLINE Reg negative(Reg x) {
  return Vec<T>::min(x, -x);
}

}  // namespace convkit::CONVKIT_ISA
