// Sliding windows: one filter, one channel, no reduction over channels. What the kernels of both layouts share.
//
// They hold the outputs that the window still touches in registers and slide along one axis of the image: every input
// vector is loaded once and meets all outputs that need it, so that loads stay well under one per FMA.
//
// "Steps" are taken along the sliding axis: with dilation d the caller runs d interleaved problems whose steps are d
// pixels apart. Steps outside the image contribute nothing and cost nothing.
//
// Register budget: a filter stays in registers if it leaves half of them, as 3x3 does of 32; otherwise its vectors are read
// from L1, once for all outputs of a step if the input rows fit beside the accumulators, as memory operands if not.
#pragma once
#include "isa/vec.hpp"

namespace convkit::CONVKIT_ISA {

// What both kernels do to a finished output.
template <class T>
struct SlideOut {
  T* y;
  const T* residual;           // like y, or null
  std::ptrdiff_t row, column;  // between output rows and along a row, elements
  T lo, hi;
  bool clamp;
  int valid;  // lanes to store: of every vector (slide_columns), of the last one (slide_rows)
};

template <class T, int K>
inline constexpr bool filter_held = 2 * K * K <= Vec<T>::registers;

template <int K, int S>
struct Window {
  static constexpr int live = S == 1 ? K : (K + 1) / 2;  // outputs under way along the sliding axis
};

template <int Value>
struct Phase {
  static constexpr int value = Value;
};

// Finishes Count vectors, `step` apart; the last one is `valid` lanes wide, the others too unless they are Whole.
template <class T, int Count, bool Whole>
CONVKIT_INLINE void finish(const typename Vec<T>::Reg (&a)[Count], const SlideOut<T>& out, std::ptrdiff_t at,
                           std::ptrdiff_t step) {
  using V = Vec<T>;
  typename V::Reg v[Count];
  CONVKIT_UNROLL
  for (int i = 0; i < Count; ++i) v[i] = a[i];
  if (out.residual) {
    CONVKIT_UNROLL
    for (int i = 0; i < Count; ++i) {
      v[i] += V::load(out.residual + at + i * step, Whole && i < Count - 1 ? V::lanes : out.valid);
    }
  }
  if (out.clamp) {
    const auto lo = V::set1(out.lo), hi = V::set1(out.hi);
    CONVKIT_UNROLL
    for (int i = 0; i < Count; ++i) v[i] = V::min(hi, V::max(lo, v[i]));
  }
  if (out.valid == V::lanes) {
    CONVKIT_UNROLL
    for (int i = 0; i < Count; ++i) V::store(out.y + at + i * step, v[i]);
  } else {
    CONVKIT_UNROLL
    for (int i = 0; i < Count; ++i) {
      V::store(out.y + at + i * step, v[i], Whole && i < Count - 1 ? V::lanes : out.valid);
    }
  }
}

// Finishes a vector whose halves belong to two planes, `second` apart.
template <class T>
CONVKIT_INLINE void finish_pair(typename Vec<T>::Reg v, const SlideOut<T>& out, std::ptrdiff_t at,
                                std::ptrdiff_t second) {
  using V = Vec<T>;
  constexpr int half = V::lanes / 2;
  const auto low = V::between(0, out.valid), high = V::between(half, half + out.valid);
  if (out.residual) {
    const T* r = out.residual + at;
    v += V::load_masked(r + second - half, high, V::load_masked(r, low));
  }
  if (out.clamp) v = V::min(V::set1(out.hi), V::max(V::set1(out.lo), v));
  V::store_masked(out.y + at, v, low);
  V::store_masked(out.y + at + second - half, v, high);
}

// Walks `outputs` outputs of a window of K taps and stride S. Input step q counts from the first padded one; those in
// [before, before + existing) are fed. feed(Phase<q % S>, q - before) adds to the live outputs, emit(o) finishes the
// oldest (o < 0: it lies before the image) and makes room for a new one.
template <int K, int S, class Feed, class Emit>
CONVKIT_INLINE void slide(std::int64_t outputs, std::int64_t before, std::int64_t existing, const Feed& feed,
                          const Emit& emit) {
  constexpr int live = Window<K, S>::live;
  const std::int64_t end = outputs + live - 1;
  for (std::int64_t m = 0; m < end; ++m) {
    const std::int64_t q = m * S - before;
    if (static_cast<std::uint64_t>(q) < static_cast<std::uint64_t>(existing)) feed(Phase<0>{}, q);
    emit(m - (live - 1));
    if constexpr (S == 2) {
      if (static_cast<std::uint64_t>(q + 1) < static_cast<std::uint64_t>(existing)) feed(Phase<1>{}, q + 1);
    }
  }
}

// Live output t meets this tap of a step in phase P, or none (-1). With stride 1 and in phase 0 the oldest output, t = 0,
// meets the last tap; phase 1 comes after the oldest has left.
template <int K, int S>
constexpr int tap_of(int phase, int t) {
  constexpr int live = Window<K, S>::live;
  if (S == 1) return K - 1 - t;
  if (phase == 0) return 2 * (live - 1 - t);
  return t < live - 1 ? 2 * (live - 2 - t) + 1 : -1;
}

}  // namespace convkit::CONVKIT_ISA
