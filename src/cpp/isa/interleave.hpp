// Two registers merged lane by lane, for every instruction set by the compiler's own shuffle.
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

}  // namespace convkit::CONVKIT_ISA
