// gelu(x) = x Phi(x), Phi the integral of the normal distribution. Its tail is q(u) = exp(-u^2 / 2) r(u) for u = |x|;
// Phi is q below 0 and 1 - q above, so that neither side loses digits. r falls as 1 / u does: (u + k) r(u) is a polynomial in
// (u - k) / (u + k), which brings all u into [-1, 1] (Shepherd and Laframboise, Math. Comp. 36, 1981). The coefficients
// interpolate at Chebyshev points; their error is below a quarter of a unit in the last place.
#pragma once
#include "microkernels/exponential.hpp"

namespace convkit::CONVKIT_ISA {

template <class T>
struct NormalTail;

template <>
struct NormalTail<float> {
  static constexpr float least = 15.0f;  // the tail is 0 here
  static constexpr float k = 4.0f;
  static constexpr int low_bits = 12;  // without them the square is exact
  static constexpr int terms = 9;
  static constexpr float coefficient[terms + 1] = {
      0.7552851386f,    -0.6078965941f,   0.3871366831f,   -0.1865233068f,   0.06040618551f,
      -0.007525402418f, -0.003520972824f, 0.001566881688f, 0.0001889965194f, -0.0001255583856f};
};

template <>
struct NormalTail<double> {
  static constexpr double least = 39.0;
  static constexpr double k = 5.0;
  static constexpr int low_bits = 27;
  static constexpr int terms = 22;
  static constexpr double coefficient[terms + 1] = {
      0.769193049750062959,     -0.6653825028900567,     0.495305615969976413,    -0.313533156671304545,
      0.165020366170384718,     -0.0691186387063101636,  0.0207950667998831796,   -0.00299337677050854244,
      -0.000797869398466070105, 0.000544899064773129894, -5.93757280099158637e-5, -4.97628142705858052e-5,
      1.66812137420420615e-5,   3.98090215786804112e-6,  -2.76926709599743025e-6, -3.36615368101247117e-7,
      4.33141035686258495e-7,   4.22749937400653484e-8,  -6.59422166247722304e-8, -9.31356099432605914e-9,
      7.66307180076004105e-9,   1.75304840140823198e-9,  -1.58774688274733654e-10};
};

template <class T>
struct Gelu {
  using V = Vec<T>;
  using Reg = typename V::Reg;
  using K = NormalTail<T>;
  typedef typename ExpConstants<T>::Int Int;
  typedef Int IntReg __attribute__((vector_size(V::bytes)));

  CONVKIT_INLINE Reg operator()(Reg x) const {
    const Reg u = V::min(V::set1(K::least), absolute<T>(x));
    const Reg high = (Reg)((IntReg)u & (IntReg{} - (Int{1} << K::low_bits)));
    const auto e = Exponential<T>::of(high * high * V::set1(T(-0.5)), (u - high) * (u + high) * V::set1(T(-0.5)));
    const Reg inverse = V::set1(1) / (u + V::set1(K::k)), t = (u - V::set1(K::k)) * inverse;
    Reg r = V::set1(K::coefficient[K::terms]);
    CONVKIT_UNROLL
    for (int i = K::terms - 1; i >= 0; --i) r = r * t + V::set1(K::coefficient[i]);
    const Reg tail = e.value() * (r * inverse);
    return x * (x < V::zero() ? tail : V::set1(1) - tail);
  }
};

}  // namespace convkit::CONVKIT_ISA
