#include "microkernels/tap_sums.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

template <class T, int Taps, bool Sliding, int Pixels>
CONVKIT_INLINE void add_pixels(const T* const (&x)[Taps], const T* dy, typename Vec<T>::Reg (&sums)[2][Taps]) {
  using V = Vec<T>;
  typename V::Reg gradient[Pixels];
  CONVKIT_UNROLL
  for (int p = 0; p < Pixels; ++p) gradient[p] = V::load(dy + p * V::lanes);
  if constexpr (Sliding) {
    CONVKIT_UNROLL
    for (int c = 0; c < Pixels + Taps - 1; ++c) {
      const auto value = V::load(x[0] + c * V::lanes);
      CONVKIT_UNROLL
      for (int p = 0; p < Pixels; ++p) {
        const int tap = c - p;
        if (tap >= 0 && tap < Taps) sums[p % 2][tap] = value * gradient[p] + sums[p % 2][tap];
      }
    }
  } else {
    CONVKIT_UNROLL
    for (int p = 0; p < Pixels; ++p) {
      CONVKIT_UNROLL
      for (int tap = 0; tap < Taps; ++tap) {
        sums[p % 2][tap] = V::load(x[tap] + p * V::lanes) * gradient[p] + sums[p % 2][tap];
      }
    }
  }
}

template <class T, int Taps, bool Sliding>
void add_row(const TapRow<T>& row) {
  using V = Vec<T>;
  constexpr int pixels = many_registers<T> ? 4 : 2;
  typename V::Reg sums[2][Taps];
  CONVKIT_UNROLL
  for (int tap = 0; tap < Taps; ++tap) sums[0][tap] = sums[1][tap] = V::zero();
  for (std::int64_t r = 0; r < row.count; ++r) {
    const T* x[Taps];
    CONVKIT_UNROLL
    for (int tap = 0; tap < Taps; ++tap) x[tap] = row.x + row.runs[r].a + row.offset[tap];
    const T* dy = row.dy + row.runs[r].b;
    const auto advance = [&](int by) CONVKIT_LAMBDA {
      CONVKIT_UNROLL
      for (int tap = 0; tap < Taps; ++tap) x[tap] += by * V::lanes;
      dy += by * V::lanes;
    };
    std::int64_t left = row.steps;
    for (; left >= pixels; left -= pixels) {
      add_pixels<T, Taps, Sliding, pixels>(x, dy, sums);
      advance(pixels);
    }
    for (; left > 0; --left) {
      add_pixels<T, Taps, Sliding, 1>(x, dy, sums);
      advance(1);
    }
  }
  CONVKIT_UNROLL
  for (int tap = 0; tap < Taps; ++tap) {
    T* const to = row.sums + tap * V::lanes;
    V::store(to, V::load(to) + (sums[0][tap] + sums[1][tap]));
  }
}

template <class T, bool Sliding>
CONVKIT_INLINE void add(const TapRow<T>& row, int taps) {
  switch (taps) {
    case 1: return add_row<T, 1, Sliding>(row);
    case 2: return add_row<T, 2, Sliding>(row);
    case 3: return add_row<T, 3, Sliding>(row);
    case 4: return add_row<T, 4, Sliding>(row);
    case 5: return add_row<T, 5, Sliding>(row);
    case 6: return add_row<T, 6, Sliding>(row);
    case 7: return add_row<T, 7, Sliding>(row);
    default: return add_row<T, 8, Sliding>(row);
  }
}

}  // namespace

template <>
void add_taps<float>(const TapRow<float>& row, int taps, bool sliding) {
  sliding ? add<float, true>(row, taps) : add<float, false>(row, taps);
}
template <>
void add_taps<double>(const TapRow<double>& row, int taps, bool sliding) {
  sliding ? add<double, true>(row, taps) : add<double, false>(row, taps);
}

}  // namespace convkit::CONVKIT_ISA
