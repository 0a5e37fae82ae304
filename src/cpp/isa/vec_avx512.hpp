// 512-bit registers: AVX-512 F, BW, CD, DQ and VL.
#pragma once
#include <immintrin.h>

#include "isa/vec.hpp"

namespace convkit::CONVKIT_ISA {

template <>
struct Vec<float> : VecBase<float, 64> {
  using VecBase::load;
  using VecBase::store;
  static constexpr int registers = 32;
  static constexpr bool fused = true;
  static constexpr bool masks = true;
  static constexpr bool halves = true;
  static constexpr bool scales = true;

  static CONVKIT_INLINE __mmask16 mask(int n) { return static_cast<__mmask16>((1u << n) - 1u); }
  static CONVKIT_INLINE Reg load(const float* p, int n) { return (Reg)_mm512_maskz_loadu_ps(mask(n), p); }
  static CONVKIT_INLINE void store(float* p, Reg v, int n) { _mm512_mask_storeu_ps(p, mask(n), (__m512)v); }
  using Mask = __mmask16;
  static CONVKIT_INLINE Mask between(std::int64_t begin, std::int64_t end) {
    const auto up_to = [](std::int64_t n) { return (1u << (n < 0 ? 0 : n > lanes ? lanes : n)) - 1u; };
    return static_cast<Mask>(up_to(end) & ~up_to(begin));
  }
  static CONVKIT_INLINE Reg load_masked(const float* p, Mask m) { return (Reg)_mm512_maskz_loadu_ps(m, p); }
  static CONVKIT_INLINE Reg load_masked(const float* p, Mask m, Reg other) {
    return (Reg)_mm512_mask_loadu_ps((__m512)other, m, p);
  }
  static CONVKIT_INLINE Reg load_splat(const float* p, Mask m, Reg other) {
    return (Reg)_mm512_mask_mov_ps((__m512)other, m, _mm512_set1_ps(*p));
  }
  static CONVKIT_INLINE Reg keep(Reg v, Mask m) { return (Reg)_mm512_maskz_mov_ps(m, (__m512)v); }
  static CONVKIT_INLINE void store_masked(float* p, Reg v, Mask m) { _mm512_mask_storeu_ps(p, m, (__m512)v); }
  static CONVKIT_INLINE Half low(Reg v) { return (Half)_mm512_castps512_ps256((__m512)v); }
  static CONVKIT_INLINE Reg widen(Half h) { return (Reg)_mm512_castps256_ps512((__m256)h); }
  static CONVKIT_INLINE Reg broadcast(const float* p) { return (Reg)_mm512_set1_ps(*p); }
  static CONVKIT_INLINE Reg set1(float x) { return (Reg)_mm512_set1_ps(x); }
  static CONVKIT_INLINE void stream(float* p, Reg v) { _mm512_stream_ps(p, (__m512)v); }
  static CONVKIT_INLINE void fence() { _mm_sfence(); }
  static CONVKIT_INLINE Reg min(Reg a, Reg b) { return (Reg)_mm512_min_ps((__m512)a, (__m512)b); }
  static CONVKIT_INLINE Reg max(Reg a, Reg b) { return (Reg)_mm512_max_ps((__m512)a, (__m512)b); }
  static CONVKIT_INLINE Reg scale(Reg v, Reg n) { return (Reg)_mm512_scalef_ps((__m512)v, (__m512)n); }

  static CONVKIT_INLINE Reg even(Reg a, Reg b) {
    const __m512i index = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    return (Reg)_mm512_permutex2var_ps((__m512)a, index, (__m512)b);
  }
  static CONVKIT_INLINE Reg odd(Reg a, Reg b) {
    const __m512i index = _mm512_set_epi32(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
    return (Reg)_mm512_permutex2var_ps((__m512)a, index, (__m512)b);
  }
  template <int N>
  static CONVKIT_INLINE Reg after(Reg a, Reg b) {
    return (Reg)_mm512_alignr_epi32((__m512i)b, (__m512i)a, N);
  }
  // The second half of the elements lies at odd places of a vector that ends with the last one: no mask is needed.
  static CONVKIT_INLINE Reg even(const float* p) {
    const __m512i index = _mm512_set_epi32(31, 29, 27, 25, 23, 21, 19, 17, 14, 12, 10, 8, 6, 4, 2, 0);
    return (Reg)_mm512_permutex2var_ps((__m512)load(p), index, (__m512)load(p + 15));
  }
  static CONVKIT_INLINE Reg even(const float* p, int n) {
    const int count = 2 * n - 1;
    return even(load(p, smaller(larger(count, 0), 16)), load(p + 16, larger(count - 16, 0)));
  }

  using Index = __m512i;
  static CONVKIT_INLINE Index index(const std::int32_t* p) { return _mm512_loadu_si512(p); }
  static CONVKIT_INLINE Reg permute(Reg v, Index i) { return (Reg)_mm512_permutexvar_ps(i, (__m512)v); }

  static CONVKIT_INLINE void transpose(Reg (&r)[16]) {
    __m512 a[16], b[16];
    CONVKIT_UNROLL
    for (int i = 0; i < 8; ++i) {
      a[2 * i] = _mm512_unpacklo_ps((__m512)r[2 * i], (__m512)r[2 * i + 1]);
      a[2 * i + 1] = _mm512_unpackhi_ps((__m512)r[2 * i], (__m512)r[2 * i + 1]);
    }
    CONVKIT_UNROLL
    for (int i = 0; i < 4; ++i) {
      b[4 * i] = (__m512)_mm512_unpacklo_pd((__m512d)a[4 * i], (__m512d)a[4 * i + 2]);
      b[4 * i + 1] = (__m512)_mm512_unpackhi_pd((__m512d)a[4 * i], (__m512d)a[4 * i + 2]);
      b[4 * i + 2] = (__m512)_mm512_unpacklo_pd((__m512d)a[4 * i + 1], (__m512d)a[4 * i + 3]);
      b[4 * i + 3] = (__m512)_mm512_unpackhi_pd((__m512d)a[4 * i + 1], (__m512d)a[4 * i + 3]);
    }
    CONVKIT_UNROLL
    for (int i = 0; i < 4; ++i) {
      a[i] = _mm512_shuffle_f32x4(b[i], b[i + 4], 0x88);
      a[i + 4] = _mm512_shuffle_f32x4(b[i], b[i + 4], 0xdd);
      a[i + 8] = _mm512_shuffle_f32x4(b[i + 8], b[i + 12], 0x88);
      a[i + 12] = _mm512_shuffle_f32x4(b[i + 8], b[i + 12], 0xdd);
    }
    CONVKIT_UNROLL
    for (int i = 0; i < 4; ++i) {
      r[i] = (Reg)_mm512_shuffle_f32x4(a[i], a[i + 8], 0x88);
      r[i + 8] = (Reg)_mm512_shuffle_f32x4(a[i], a[i + 8], 0xdd);
      r[i + 4] = (Reg)_mm512_shuffle_f32x4(a[i + 4], a[i + 12], 0x88);
      r[i + 12] = (Reg)_mm512_shuffle_f32x4(a[i + 4], a[i + 12], 0xdd);
    }
  }
};

template <>
struct Vec<double> : VecBase<double, 64> {
  using VecBase::load;
  using VecBase::store;
  static constexpr int registers = 32;
  static constexpr bool fused = true;
  static constexpr bool masks = true;
  static constexpr bool halves = true;
  static constexpr bool scales = true;

  static CONVKIT_INLINE __mmask8 mask(int n) { return static_cast<__mmask8>((1u << n) - 1u); }
  static CONVKIT_INLINE Reg load(const double* p, int n) { return (Reg)_mm512_maskz_loadu_pd(mask(n), p); }
  static CONVKIT_INLINE void store(double* p, Reg v, int n) { _mm512_mask_storeu_pd(p, mask(n), (__m512d)v); }
  using Mask = __mmask8;
  static CONVKIT_INLINE Mask between(std::int64_t begin, std::int64_t end) {
    const auto up_to = [](std::int64_t n) { return (1u << (n < 0 ? 0 : n > lanes ? lanes : n)) - 1u; };
    return static_cast<Mask>(up_to(end) & ~up_to(begin));
  }
  static CONVKIT_INLINE Reg load_masked(const double* p, Mask m) { return (Reg)_mm512_maskz_loadu_pd(m, p); }
  static CONVKIT_INLINE Reg load_masked(const double* p, Mask m, Reg other) {
    return (Reg)_mm512_mask_loadu_pd((__m512d)other, m, p);
  }
  static CONVKIT_INLINE Reg load_splat(const double* p, Mask m, Reg other) {
    return (Reg)_mm512_mask_mov_pd((__m512d)other, m, _mm512_set1_pd(*p));
  }
  static CONVKIT_INLINE Reg keep(Reg v, Mask m) { return (Reg)_mm512_maskz_mov_pd(m, (__m512d)v); }
  static CONVKIT_INLINE void store_masked(double* p, Reg v, Mask m) { _mm512_mask_storeu_pd(p, m, (__m512d)v); }
  static CONVKIT_INLINE Half low(Reg v) { return (Half)_mm512_castpd512_pd256((__m512d)v); }
  static CONVKIT_INLINE Reg widen(Half h) { return (Reg)_mm512_castpd256_pd512((__m256d)h); }
  static CONVKIT_INLINE Reg broadcast(const double* p) { return (Reg)_mm512_set1_pd(*p); }
  static CONVKIT_INLINE Reg set1(double x) { return (Reg)_mm512_set1_pd(x); }
  static CONVKIT_INLINE void stream(double* p, Reg v) { _mm512_stream_pd(p, (__m512d)v); }
  static CONVKIT_INLINE void fence() { _mm_sfence(); }
  static CONVKIT_INLINE Reg min(Reg a, Reg b) { return (Reg)_mm512_min_pd((__m512d)a, (__m512d)b); }
  static CONVKIT_INLINE Reg max(Reg a, Reg b) { return (Reg)_mm512_max_pd((__m512d)a, (__m512d)b); }
  static CONVKIT_INLINE Reg scale(Reg v, Reg n) { return (Reg)_mm512_scalef_pd((__m512d)v, (__m512d)n); }

  static CONVKIT_INLINE Reg even(Reg a, Reg b) {
    const __m512i index = _mm512_set_epi64(14, 12, 10, 8, 6, 4, 2, 0);
    return (Reg)_mm512_permutex2var_pd((__m512d)a, index, (__m512d)b);
  }
  static CONVKIT_INLINE Reg odd(Reg a, Reg b) {
    const __m512i index = _mm512_set_epi64(15, 13, 11, 9, 7, 5, 3, 1);
    return (Reg)_mm512_permutex2var_pd((__m512d)a, index, (__m512d)b);
  }
  template <int N>
  static CONVKIT_INLINE Reg after(Reg a, Reg b) {
    return (Reg)_mm512_alignr_epi64((__m512i)b, (__m512i)a, N);
  }
  static CONVKIT_INLINE Reg even(const double* p) {
    const __m512i index = _mm512_set_epi64(15, 13, 11, 9, 6, 4, 2, 0);
    return (Reg)_mm512_permutex2var_pd((__m512d)load(p), index, (__m512d)load(p + 7));
  }
  static CONVKIT_INLINE Reg even(const double* p, int n) {
    const int count = 2 * n - 1;
    return even(load(p, smaller(larger(count, 0), 8)), load(p + 8, larger(count - 8, 0)));
  }

  using Index = __m512i;
  static CONVKIT_INLINE Index index(const std::int32_t* p) {
    return _mm512_cvtepi32_epi64(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static CONVKIT_INLINE Reg permute(Reg v, Index i) { return (Reg)_mm512_permutexvar_pd(i, (__m512d)v); }

  static CONVKIT_INLINE void transpose(Reg (&r)[8]) {
    __m512d a[8], b[8];
    CONVKIT_UNROLL
    for (int i = 0; i < 4; ++i) {
      a[2 * i] = _mm512_unpacklo_pd((__m512d)r[2 * i], (__m512d)r[2 * i + 1]);
      a[2 * i + 1] = _mm512_unpackhi_pd((__m512d)r[2 * i], (__m512d)r[2 * i + 1]);
    }
    CONVKIT_UNROLL
    for (int i = 0; i < 2; ++i) {
      b[i] = _mm512_shuffle_f64x2(a[i], a[i + 2], 0x88);
      b[i + 2] = _mm512_shuffle_f64x2(a[i], a[i + 2], 0xdd);
      b[i + 4] = _mm512_shuffle_f64x2(a[i + 4], a[i + 6], 0x88);
      b[i + 6] = _mm512_shuffle_f64x2(a[i + 4], a[i + 6], 0xdd);
    }
    CONVKIT_UNROLL
    for (int i = 0; i < 4; ++i) {
      r[i] = (Reg)_mm512_shuffle_f64x2(b[i], b[i + 4], 0x88);
      r[i + 4] = (Reg)_mm512_shuffle_f64x2(b[i], b[i + 4], 0xdd);
    }
  }
};

}  // namespace convkit::CONVKIT_ISA
