// 256-bit registers: AVX2 and FMA. Partial stores avoid vmaskmov, which is slow on several CPUs.
#pragma once
#include <immintrin.h>

#include "isa/vec.hpp"

namespace convkit::CONVKIT_ISA {

// A window into this table, `n` entries before its middle, masks the first n lanes.
alignas(64) inline constexpr std::int32_t mask_table32[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
alignas(64) inline constexpr std::int64_t mask_table64[8] = {-1, -1, -1, -1, 0, 0, 0, 0};

template <>
struct Vec<float> : VecBase<float, 32> {
  using VecBase::load;
  using VecBase::store;
  static constexpr int registers = 16;
  static constexpr bool fused = true;
  static constexpr bool masks = false;
  static constexpr bool halves = false;
  static constexpr bool scales = false;

  static CONVKIT_INLINE Reg load(const float* p, int n) {
    const __m256i mask = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(mask_table32 + 8 - n));
    return (Reg)_mm256_maskload_ps(p, mask);
  }
  static CONVKIT_INLINE void store(float* p, Reg v, int n) {
    if (n == 8) return store(p, v);
    __m128 low = _mm256_castps256_ps128((__m256)v);
    if (n & 4) {
      _mm_storeu_ps(p, low);
      low = _mm256_extractf128_ps((__m256)v, 1);
      p += 4;
    }
    if (n & 2) {
      _mm_storel_pi(reinterpret_cast<__m64*>(p), low);
      low = _mm_movehl_ps(low, low);
      p += 2;
    }
    if (n & 1) _mm_store_ss(p, low);
  }
  static CONVKIT_INLINE Reg broadcast(const float* p) { return (Reg)_mm256_broadcast_ss(p); }
  static CONVKIT_INLINE Reg set1(float x) { return (Reg)_mm256_set1_ps(x); }
  static CONVKIT_INLINE void stream(float* p, Reg v) { _mm256_stream_ps(p, (__m256)v); }
  static CONVKIT_INLINE void fence() { _mm_sfence(); }
  static CONVKIT_INLINE Reg min(Reg a, Reg b) { return (Reg)_mm256_min_ps((__m256)a, (__m256)b); }
  static CONVKIT_INLINE Reg max(Reg a, Reg b) { return (Reg)_mm256_max_ps((__m256)a, (__m256)b); }

  static CONVKIT_INLINE Reg even(Reg a, Reg b) {
    const __m256 pairs = _mm256_shuffle_ps((__m256)a, (__m256)b, 0x88);
    return (Reg)_mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(pairs), 0xd8));
  }
  static CONVKIT_INLINE Reg odd(Reg a, Reg b) {
    const __m256 pairs = _mm256_shuffle_ps((__m256)a, (__m256)b, 0xdd);
    return (Reg)_mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(pairs), 0xd8));
  }
  // The second half of the elements lies at odd places of a vector that ends with the last one: no mask is needed.
  static CONVKIT_INLINE Reg even(const float* p) {
    const __m256 pairs = _mm256_shuffle_ps((__m256)load(p), (__m256)load(p + 7), 0xd8);
    return (Reg)_mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(pairs), 0xd8));
  }
  static CONVKIT_INLINE Reg even(const float* p, int n) {
    const int count = 2 * n - 1;
    return even(load(p, smaller(larger(count, 0), 8)), load(p + 8, larger(count - 8, 0)));
  }

  using Index = __m256i;
  static CONVKIT_INLINE Index index(const std::int32_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  static CONVKIT_INLINE Reg permute(Reg v, Index i) { return (Reg)_mm256_permutevar8x32_ps((__m256)v, i); }

  static CONVKIT_INLINE void transpose(Reg (&r)[8]) {
    __m256 a[8], b[8];
    CONVKIT_UNROLL
    for (int i = 0; i < 4; ++i) {
      a[2 * i] = _mm256_unpacklo_ps((__m256)r[2 * i], (__m256)r[2 * i + 1]);
      a[2 * i + 1] = _mm256_unpackhi_ps((__m256)r[2 * i], (__m256)r[2 * i + 1]);
    }
    CONVKIT_UNROLL
    for (int i = 0; i < 2; ++i) {
      b[4 * i] = _mm256_shuffle_ps(a[4 * i], a[4 * i + 2], 0x44);
      b[4 * i + 1] = _mm256_shuffle_ps(a[4 * i], a[4 * i + 2], 0xee);
      b[4 * i + 2] = _mm256_shuffle_ps(a[4 * i + 1], a[4 * i + 3], 0x44);
      b[4 * i + 3] = _mm256_shuffle_ps(a[4 * i + 1], a[4 * i + 3], 0xee);
    }
    CONVKIT_UNROLL
    for (int i = 0; i < 4; ++i) {
      r[i] = (Reg)_mm256_permute2f128_ps(b[i], b[i + 4], 0x20);
      r[i + 4] = (Reg)_mm256_permute2f128_ps(b[i], b[i + 4], 0x31);
    }
  }
};

template <>
struct Vec<double> : VecBase<double, 32> {
  using VecBase::load;
  using VecBase::store;
  static constexpr int registers = 16;
  static constexpr bool fused = true;
  static constexpr bool masks = false;
  static constexpr bool halves = false;
  static constexpr bool scales = false;

  static CONVKIT_INLINE Reg load(const double* p, int n) {
    const __m256i mask = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(mask_table64 + 4 - n));
    return (Reg)_mm256_maskload_pd(p, mask);
  }
  static CONVKIT_INLINE void store(double* p, Reg v, int n) {
    if (n == 4) return store(p, v);
    __m128d low = _mm256_castpd256_pd128((__m256d)v);
    if (n & 2) {
      _mm_storeu_pd(p, low);
      low = _mm256_extractf128_pd((__m256d)v, 1);
      p += 2;
    }
    if (n & 1) _mm_store_sd(p, low);
  }
  static CONVKIT_INLINE Reg broadcast(const double* p) { return (Reg)_mm256_broadcast_sd(p); }
  static CONVKIT_INLINE Reg set1(double x) { return (Reg)_mm256_set1_pd(x); }
  static CONVKIT_INLINE void stream(double* p, Reg v) { _mm256_stream_pd(p, (__m256d)v); }
  static CONVKIT_INLINE void fence() { _mm_sfence(); }
  static CONVKIT_INLINE Reg min(Reg a, Reg b) { return (Reg)_mm256_min_pd((__m256d)a, (__m256d)b); }
  static CONVKIT_INLINE Reg max(Reg a, Reg b) { return (Reg)_mm256_max_pd((__m256d)a, (__m256d)b); }

  static CONVKIT_INLINE Reg even(Reg a, Reg b) {
    return (Reg)_mm256_permute4x64_pd(_mm256_unpacklo_pd((__m256d)a, (__m256d)b), 0xd8);
  }
  static CONVKIT_INLINE Reg odd(Reg a, Reg b) {
    return (Reg)_mm256_permute4x64_pd(_mm256_unpackhi_pd((__m256d)a, (__m256d)b), 0xd8);
  }
  static CONVKIT_INLINE Reg even(const double* p) {
    return (Reg)_mm256_permute4x64_pd(_mm256_shuffle_pd((__m256d)load(p), (__m256d)load(p + 3), 0xa), 0xd8);
  }
  static CONVKIT_INLINE Reg even(const double* p, int n) {
    const int count = 2 * n - 1;
    return even(load(p, smaller(larger(count, 0), 4)), load(p + 4, larger(count - 4, 0)));
  }

  using Index = __m256i;  // of 32-bit halves: AVX2 has no variable permute of doubles
  static CONVKIT_INLINE Index index(const std::int32_t* p) {
    return _mm256_set_epi32(2 * p[3] + 1, 2 * p[3], 2 * p[2] + 1, 2 * p[2], 2 * p[1] + 1, 2 * p[1], 2 * p[0] + 1,
                            2 * p[0]);
  }
  static CONVKIT_INLINE Reg permute(Reg v, Index i) {
    return (Reg)_mm256_permutevar8x32_ps(_mm256_castpd_ps((__m256d)v), i);
  }

  static CONVKIT_INLINE void transpose(Reg (&r)[4]) {
    const __m256d a = _mm256_unpacklo_pd((__m256d)r[0], (__m256d)r[1]);
    const __m256d b = _mm256_unpackhi_pd((__m256d)r[0], (__m256d)r[1]);
    const __m256d c = _mm256_unpacklo_pd((__m256d)r[2], (__m256d)r[3]);
    const __m256d d = _mm256_unpackhi_pd((__m256d)r[2], (__m256d)r[3]);
    r[0] = (Reg)_mm256_permute2f128_pd(a, c, 0x20);
    r[1] = (Reg)_mm256_permute2f128_pd(b, d, 0x20);
    r[2] = (Reg)_mm256_permute2f128_pd(a, c, 0x31);
    r[3] = (Reg)_mm256_permute2f128_pd(b, d, 0x31);
  }
};

}  // namespace convkit::CONVKIT_ISA
