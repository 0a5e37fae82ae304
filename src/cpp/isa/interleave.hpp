// Two or three registers merged lane by lane, for every instruction set by the compiler's own shuffle.
#pragma once
#include "isa/vec.hpp"

namespace convkit::CONVKIT_ISA {

template <int... Lanes>
struct LaneList {};
template <int Count, int... Lanes>
struct MakeLanes : MakeLanes<Count - 1, Count - 1, Lanes...> {};
template <int... Lanes>
struct MakeLanes<0, Lanes...> {
  using List = LaneList<Lanes...>;
};

// a0 b0 a1 b1 ... from the lower (Half = 0) or upper (Half = 1) lanes.
template <class T, int Half, int... Lanes>
CONVKIT_INLINE typename Vec<T>::Reg interleave_half(typename Vec<T>::Reg a, typename Vec<T>::Reg b,
                                                    LaneList<Lanes...>) {
  constexpr int n = Vec<T>::lanes;
#if defined(__clang__)
  return __builtin_shufflevector(a, b, (Half * n / 2 + Lanes / 2 + Lanes % 2 * n)...);
#else
  using Index = decltype(a < b);  // integers of the element's size
  return __builtin_shuffle(a, b, Index{(Half * n / 2 + Lanes / 2 + Lanes % 2 * n)...});
#endif
}

template <class T>
CONVKIT_INLINE void interleave(typename Vec<T>::Reg a, typename Vec<T>::Reg b, typename Vec<T>::Reg* low,
                               typename Vec<T>::Reg* high) {
  using All = typename MakeLanes<Vec<T>::lanes>::List;
  *low = interleave_half<T, 0>(a, b, All{});
  *high = interleave_half<T, 1>(a, b, All{});
}

template <class T, int... Lanes>
CONVKIT_INLINE typename Vec<T>::Reg shuffled(typename Vec<T>::Reg a, typename Vec<T>::Reg b, LaneList<Lanes...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, Lanes...);
#else
  using Index = decltype(a < b);  // integers of the element's size
  return __builtin_shuffle(a, b, Index{Lanes...});
#endif
}

template <class T, int Part, int... Lanes>
CONVKIT_INLINE typename Vec<T>::Reg interleave3(typename Vec<T>::Reg a, typename Vec<T>::Reg b, typename Vec<T>::Reg c,
                                                LaneList<Lanes...>) {
  constexpr int n = Vec<T>::lanes, first = Part * n;
  // a and b where they belong, then c between them.
  const auto both = shuffled<T>(a, b, LaneList<((first + Lanes) / 3 + (first + Lanes) % 3 % 2 * n)...>{});
  return shuffled<T>(both, c, LaneList<((first + Lanes) % 3 == 2 ? n + (first + Lanes) / 3 : Lanes)...>{});
}

// Vector `Part`, of three, of a0 b0 c0 a1 b1 c1 ...
template <class T, int Part>
CONVKIT_INLINE typename Vec<T>::Reg interleave3(typename Vec<T>::Reg a, typename Vec<T>::Reg b,
                                                typename Vec<T>::Reg c) {
  return interleave3<T, Part>(a, b, c, typename MakeLanes<Vec<T>::lanes>::List{});
}

}  // namespace convkit::CONVKIT_ISA
