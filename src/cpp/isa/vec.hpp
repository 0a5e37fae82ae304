// Vec<T>: one vector register of T of the instruction set that this file is compiled for.
// CONVKIT_ISA names the namespace, CONVKIT_VEC_HEADER the file that specialises Vec; both come from CMakeLists.txt.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#define CONVKIT_INLINE inline __attribute__((always_inline))
#define CONVKIT_LAMBDA __attribute__((always_inline))
#if defined(__clang__)
#define CONVKIT_UNROLL _Pragma("unroll")
#else
#define CONVKIT_UNROLL _Pragma("GCC unroll 32")
#endif

namespace convkit::CONVKIT_ISA {

// What the compiler's vector extension gives for every width. Arithmetic is written with operators on Reg; a * b + c
// contracts to one FMA where the instruction set has it.
template <class T, int Bytes>
struct VecBase {
  typedef T Reg __attribute__((vector_size(Bytes)));
  typedef T Unaligned __attribute__((vector_size(Bytes), aligned(alignof(T)), may_alias));
  typedef T Half __attribute__((vector_size(Bytes / 2)));
  typedef T UnalignedHalf __attribute__((vector_size(Bytes / 2), aligned(alignof(T)), may_alias));
  static constexpr int lanes = Bytes / static_cast<int>(sizeof(T));
  static constexpr int bytes = Bytes;

  static CONVKIT_INLINE Reg load(const T* p) { return *reinterpret_cast<const Unaligned*>(p); }
  static CONVKIT_INLINE void store(T* p, Reg v) { *reinterpret_cast<Unaligned*>(p) = v; }
  static CONVKIT_INLINE Reg zero() { return Reg{}; }
  static CONVKIT_INLINE Half load_half(const T* p) { return *reinterpret_cast<const UnalignedHalf*>(p); }
};

// Every specialisation adds
//   registers                       how many the instruction set has
//   fused                           whether a * b + c is one instruction, which needs no register for the product
//   masks                           whether any set of lanes can be loaded and stored at full speed; if so,
//                                   Mask, between(begin, end), load_masked(p, m[, other]), store_masked(p, v, m) and
//                                   load_splat(p, m, other), which is broadcast(p) in the lanes of m,
//                                   keep(v, m), zero in the lanes that m lacks, and
//                                   after<n>(a, b), which is a without its first n lanes, then the first n of b
//   halves                          whether products of half a register may cost less than whole ones; if so,
//                                   low(v), the lower half, and widen(h), whose upper half is undefined
//   scales                          whether scale(v, n), v * 2^n for a whole n of any size, is one instruction
//   load(p, n), store(p, v, n)      the first n lanes, 0 <= n <= lanes; the rest reads as 0, memory beyond is untouched
//   broadcast(p)                    one load-broadcast of *p (an arithmetic splat of a scalar costs an extra shuffle)
//   set1(x)                         a constant in all lanes
//   stream(p, v)                    non-temporal store; p aligned to the vector; fence() before others may read
//   min(a, b), max(a, b)            b where either is NaN
//   even(p), even(p, n)             p[0], p[2], p[4] ...: reads exactly 2 * lanes - 1 (2 * n - 1) elements
//   even(a, b), odd(a, b)           every second element of a followed by b
//   index(p), permute(v, i)         lane l of the result is v[p[l]]; the index is made once from 32-bit numbers
//   transpose(r)                    r: lanes registers; a square transpose in registers
template <class T>
struct Vec;

// Whether register tiles may be twice as large as 16 registers allow.
template <class T>
inline constexpr bool many_registers = Vec<T>::registers >= 32;

template <class V>
CONVKIT_INLINE constexpr V smaller(V a, V b) {
  return a < b ? a : b;
}
template <class V>
CONVKIT_INLINE constexpr V larger(V a, V b) {
  return a > b ? a : b;
}

}  // namespace convkit::CONVKIT_ISA

#include CONVKIT_VEC_HEADER
