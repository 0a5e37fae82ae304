// 128-bit registers with what every x86-64 CPU has: no FMA, no masks; tails go through memory of known size.
#pragma once
#include <emmintrin.h>

#include "isa/vec.hpp"

namespace convkit::CONVKIT_ISA {

template <>
struct Vec<float> : VecBase<float, 16> {
  using VecBase::load;
  using VecBase::store;
  static constexpr int registers = 16;
  static constexpr bool fused = false;
  static constexpr bool masks = false;
  static constexpr bool halves = false;
  static constexpr bool scales = false;

  static CONVKIT_INLINE Reg load(const float* p, int n) {
    switch (n) {
      case 0: return Reg{};
      case 1: return Reg{p[0], 0, 0, 0};
      case 2: return Reg{p[0], p[1], 0, 0};
      case 3: return Reg{p[0], p[1], p[2], 0};
      default: return load(p);
    }
  }
  static CONVKIT_INLINE void store(float* p, Reg v, int n) {
    switch (n) {
      case 4: store(p, v); return;
      case 3: p[2] = v[2]; [[fallthrough]];
      case 2: p[1] = v[1]; [[fallthrough]];
      case 1: p[0] = v[0]; [[fallthrough]];
      default: return;
    }
  }
  static CONVKIT_INLINE Reg broadcast(const float* p) { return (Reg)_mm_set1_ps(*p); }
  static CONVKIT_INLINE Reg set1(float x) { return (Reg)_mm_set1_ps(x); }
  static CONVKIT_INLINE void stream(float* p, Reg v) { _mm_stream_ps(p, (__m128)v); }
  static CONVKIT_INLINE void fence() { _mm_sfence(); }
  static CONVKIT_INLINE Reg min(Reg a, Reg b) { return (Reg)_mm_min_ps((__m128)a, (__m128)b); }
  static CONVKIT_INLINE Reg max(Reg a, Reg b) { return (Reg)_mm_max_ps((__m128)a, (__m128)b); }

  static CONVKIT_INLINE Reg even(Reg a, Reg b) { return (Reg)_mm_shuffle_ps((__m128)a, (__m128)b, 0x88); }
  static CONVKIT_INLINE Reg odd(Reg a, Reg b) { return (Reg)_mm_shuffle_ps((__m128)a, (__m128)b, 0xdd); }
  static CONVKIT_INLINE Reg even(const float* p) {
    return (Reg)_mm_shuffle_ps((__m128)load(p), (__m128)load(p + 3), 0xd8);
  }
  static CONVKIT_INLINE Reg even(const float* p, int n) {
    const int count = 2 * n - 1;
    return even(load(p, smaller(larger(count, 0), 4)), load(p + 4, larger(count - 4, 0)));
  }

  struct Index {
    std::int32_t lane[4];
  };
  static CONVKIT_INLINE Index index(const std::int32_t* p) { return {{p[0], p[1], p[2], p[3]}}; }
  static CONVKIT_INLINE Reg permute(Reg v, const Index& i) {
    return Reg{v[i.lane[0]], v[i.lane[1]], v[i.lane[2]], v[i.lane[3]]};
  }

  static CONVKIT_INLINE void transpose(Reg (&r)[4]) {
    __m128 a = (__m128)r[0], b = (__m128)r[1], c = (__m128)r[2], d = (__m128)r[3];
    _MM_TRANSPOSE4_PS(a, b, c, d);
    r[0] = (Reg)a, r[1] = (Reg)b, r[2] = (Reg)c, r[3] = (Reg)d;
  }
};

template <>
struct Vec<double> : VecBase<double, 16> {
  using VecBase::load;
  using VecBase::store;
  static constexpr int registers = 16;
  static constexpr bool fused = false;
  static constexpr bool masks = false;
  static constexpr bool halves = false;
  static constexpr bool scales = false;

  static CONVKIT_INLINE Reg load(const double* p, int n) { return n == 0 ? Reg{} : n == 1 ? Reg{p[0], 0} : load(p); }
  static CONVKIT_INLINE void store(double* p, Reg v, int n) {
    if (n == 2) {
      store(p, v);
    } else if (n == 1) {
      p[0] = v[0];
    }
  }
  static CONVKIT_INLINE Reg broadcast(const double* p) { return (Reg)_mm_set1_pd(*p); }
  static CONVKIT_INLINE Reg set1(double x) { return (Reg)_mm_set1_pd(x); }
  static CONVKIT_INLINE void stream(double* p, Reg v) { _mm_stream_pd(p, (__m128d)v); }
  static CONVKIT_INLINE void fence() { _mm_sfence(); }
  static CONVKIT_INLINE Reg min(Reg a, Reg b) { return (Reg)_mm_min_pd((__m128d)a, (__m128d)b); }
  static CONVKIT_INLINE Reg max(Reg a, Reg b) { return (Reg)_mm_max_pd((__m128d)a, (__m128d)b); }

  static CONVKIT_INLINE Reg even(Reg a, Reg b) { return (Reg)_mm_unpacklo_pd((__m128d)a, (__m128d)b); }
  static CONVKIT_INLINE Reg odd(Reg a, Reg b) { return (Reg)_mm_unpackhi_pd((__m128d)a, (__m128d)b); }
  static CONVKIT_INLINE Reg even(const double* p) {
    return (Reg)_mm_shuffle_pd((__m128d)load(p), (__m128d)load(p + 1), 2);
  }
  static CONVKIT_INLINE Reg even(const double* p, int n) {
    const int count = 2 * n - 1;
    return even(load(p, smaller(larger(count, 0), 2)), load(p + 2, larger(count - 2, 0)));
  }

  struct Index {
    std::int32_t lane[2];
  };
  static CONVKIT_INLINE Index index(const std::int32_t* p) { return {{p[0], p[1]}}; }
  static CONVKIT_INLINE Reg permute(Reg v, const Index& i) { return Reg{v[i.lane[0]], v[i.lane[1]]}; }

  static CONVKIT_INLINE void transpose(Reg (&r)[2]) {
    const __m128d a = (__m128d)r[0], b = (__m128d)r[1];
    r[0] = (Reg)_mm_unpacklo_pd(a, b);
    r[1] = (Reg)_mm_unpackhi_pd(a, b);
  }
};

}  // namespace convkit::CONVKIT_ISA
