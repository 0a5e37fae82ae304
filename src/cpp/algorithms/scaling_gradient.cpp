// The way back through a normalization and its clamp, as two passes over memory: sums of the gradient for each channel,
// then a combination of gradient and input. What the clamp held back is found from the input again, so that nothing but
// the input needs to be kept.
#include "algorithms/sharing.hpp"
#include "images.hpp"
#include "microkernels/lane_total.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

constexpr std::int64_t piece = 128;  // values that are added up in a lane before they join the sum
template <class T>
inline constexpr int most_vectors = many_registers<T> ? 4 : 2;

// Gradients of a clamp's input; `line` has the factor and the summand of the value that was clamped.
template <class T>
struct Gate {
  typename Vec<T>::Reg lo, hi;

  explicit CONVKIT_INLINE Gate(const ScaleGradient& s)
      : lo(Vec<T>::set1(static_cast<T>(s.lo))), hi(Vec<T>::set1(static_cast<T>(s.hi))) {}
  template <class Reg>
  CONVKIT_INLINE Reg let_through(Reg given, Reg value) const {
    const Reg above = value <= lo ? Reg{} : given;
    return value >= hi ? Reg{} : above;
  }
};

// Factors and summands of one vector of channels: beside each other, or those of one channel in all lanes.
template <class T, bool Each, class... Valid>
CONVKIT_INLINE typename Vec<T>::Reg of_channels(const void* values, std::int64_t at, T otherwise, Valid... valid) {
  if (!values) return Vec<T>::set1(otherwise);
  const T* const value = static_cast<const T*>(values) + at;
  if constexpr (Each) {
    return Vec<T>::load(value, valid...);
  } else {
    return Vec<T>::set1(*value);
  }
}

// `count` rows of NV vectors of channels, `stride` apart, whose factors begin at `channel`.
template <class T, int NV, class... Valid>
CONVKIT_INLINE void column_sums(const ScaleGradient& s, std::int64_t begin, std::int64_t channel, Valid... valid) {
  using V = Vec<T>;
  const Gate<T> gate(s);
  const T* given = static_cast<const T*>(s.given) + begin;
  const T* from = static_cast<const T*>(s.from) + begin;
  T *const total = static_cast<T*>(s.total) + channel, *const along = static_cast<T*>(s.along) + channel;
  typename V::Reg scale[NV], shift[NV], centre[NV];
  CONVKIT_UNROLL
  for (int v = 0; v < NV; ++v) {
    const std::int64_t at = channel + v * V::lanes;
    scale[v] = of_channels<T, true>(s.scale, at, T(1), valid...);
    shift[v] = of_channels<T, true>(s.shift, at, T(-0.0), valid...);
    centre[v] = of_channels<T, true>(s.centre, at, T(0), valid...);
    V::store(total + v * V::lanes, V::zero(), valid...);
    V::store(along + v * V::lanes, V::zero(), valid...);
  }
  for (std::int64_t first = 0; first < s.count; first += piece) {
    const std::int64_t rows = smaller(s.count - first, piece);
    typename V::Reg sum[NV], product[NV];
    CONVKIT_UNROLL
    for (int v = 0; v < NV; ++v) sum[v] = product[v] = V::zero();
    for (std::int64_t i = 0; i < rows; ++i, given += s.inner, from += s.inner) {
      CONVKIT_UNROLL
      for (int v = 0; v < NV; ++v) {
        const auto x = V::load(from + v * V::lanes, valid...);
        const auto g = gate.let_through(V::load(given + v * V::lanes, valid...), x * scale[v] + shift[v]);
        sum[v] += g;
        product[v] += g * (x - centre[v]);
      }
    }
    CONVKIT_UNROLL
    for (int v = 0; v < NV; ++v) {
      V::store(total + v * V::lanes, V::load(total + v * V::lanes, valid...) + sum[v], valid...);
      V::store(along + v * V::lanes, V::load(along + v * V::lanes, valid...) + product[v], valid...);
    }
  }
}

// One channel, its values side by side.
template <class T>
void row_sums(const ScaleGradient& s, std::int64_t channel) {
  using V = Vec<T>;
  const Gate<T> gate(s);
  const T* const given = static_cast<const T*>(s.given) + channel * s.count;
  const T* const from = static_cast<const T*>(s.from) + channel * s.count;
  const auto scale = of_channels<T, false>(s.scale, channel, T(1)),
             shift = of_channels<T, false>(s.shift, channel, T(-0.0));
  const auto centre = of_channels<T, false>(s.centre, channel, T(0));
  double total = 0, along = 0;
  for (std::int64_t i = 0; i < s.count;) {
    auto sum = V::zero(), product = V::zero();
    const auto one = [&](auto... valid) CONVKIT_LAMBDA {
      const auto x = V::load(from + i, valid...);
      const auto g = gate.let_through(V::load(given + i, valid...), x * scale + shift);
      sum += g;
      product += g * (x - centre);
    };
    const std::int64_t end = smaller(s.count, i + piece * V::lanes);
    for (; i + V::lanes <= end; i += V::lanes) one();
    if (i < end) {
      one(static_cast<int>(end - i));
      i = end;
    }
    total += static_cast<double>(lane_total<T>(sum));
    along += static_cast<double>(lane_total<T>(product));
  }
  static_cast<T*>(s.total)[channel] = static_cast<T>(total);
  static_cast<T*>(s.along)[channel] = static_cast<T>(along);
}

template <class T>
void sums_of(const ScaleGradient& s, int index, int size) {
  using V = Vec<T>;
  constexpr std::int64_t block = most_vectors<T> * V::lanes;
  if (s.inner == 1) {
    const Share mine = share(s.outer, index, size);
    for (std::int64_t channel = mine.begin; channel < mine.end; ++channel) row_sums<T>(s, channel);
    return;
  }
  const std::int64_t blocks = ceil_div(s.inner, block);
  const Share mine = share(s.outer * blocks, index, size);
  for (std::int64_t unit = mine.begin; unit < mine.end; ++unit) {
    const std::int64_t outer = unit / blocks, first = unit % blocks * block;
    const std::int64_t begin = outer * s.count * s.inner, channels = outer * s.inner;
    std::int64_t c = first;
    if (c + block <= s.inner) {
      column_sums<T, most_vectors<T>>(s, begin + c, channels + c);
      continue;
    }
    for (; c + V::lanes <= s.inner; c += V::lanes) column_sums<T, 1>(s, begin + c, channels + c);
    if (c < s.inner) column_sums<T, 1>(s, begin + c, channels + c, static_cast<int>(s.inner - c));
  }
}

// `count` neighbours, of one channel or of as many.
template <class T, bool Each>
CONVKIT_INLINE void combine_run(const ScaleGradient& s, const Gate<T>& gate, std::int64_t begin, std::int64_t channel,
                                std::int64_t count) {
  using V = Vec<T>;
  const T *const given = static_cast<const T*>(s.given) + begin, *const from = static_cast<const T*>(s.from) + begin;
  T* const to = static_cast<T*>(s.to) + begin;
  const auto one = [&](std::int64_t i, auto... valid) CONVKIT_LAMBDA {
    const std::int64_t at = Each ? channel + i : channel;
    const auto x = V::load(from + i, valid...);
    const auto value =
        x * of_channels<T, Each>(s.scale, at, T(1), valid...) + of_channels<T, Each>(s.shift, at, T(-0.0), valid...);
    const auto g = gate.let_through(V::load(given + i, valid...), value);
    const auto rest = x * of_channels<T, Each>(s.from_factor, at, T(0), valid...) +
                      of_channels<T, Each>(s.summand, at, T(0), valid...);
    V::store(to + i, g * of_channels<T, Each>(s.given_factor, at, T(1), valid...) + rest, valid...);
  };
  std::int64_t i = 0;
  for (; i + V::lanes <= count; i += V::lanes) one(i);
  if (i < count) one(i, static_cast<int>(count - i));
}

template <class T>
void combine_of(const ScaleGradient& s, int index, int size) {
  const Gate<T> gate(s);
  const Share mine = share(s.outer * s.count, index, size);
  for (std::int64_t at = mine.begin; at < mine.end;) {
    const std::int64_t outer = at / s.count, end = smaller(mine.end, (outer + 1) * s.count);
    if (s.inner == 1) {
      combine_run<T, false>(s, gate, at, outer, end - at);
      at = end;
    } else {
      for (; at < end; ++at) combine_run<T, true>(s, gate, at * s.inner, outer * s.inner, s.inner);
    }
  }
}

}  // namespace

void scale_gradient(const ScaleGradient& what, int threads) {
  auto member = [&](int index, int size) {
    if (what.total) {
      what.wide ? sums_of<double>(what, index, size) : sums_of<float>(what, index, size);
    } else {
      what.wide ? combine_of<double>(what, index, size) : combine_of<float>(what, index, size);
    }
  };
  team(threads, member);
}

}  // namespace convkit::CONVKIT_ISA
