#include "microkernels/tap_lines.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

template <class T, int NV, Symmetry S>
CONVKIT_INLINE void sum_vectors(const Taps<T>& taps, const T* const* lines, std::int64_t i, int last, T* out) {
  using V = Vec<T>;
  using Reg = typename V::Reg;
  const auto load = [&](const T* line, int v) CONVKIT_LAMBDA {
    return v < NV - 1 || last == V::lanes ? V::load(line + i + v * V::lanes) : V::load(line + i + v * V::lanes, last);
  };
  const std::int64_t n = taps.count, middle = S == Symmetry::none ? 0 : n / 2;
  Reg a[NV];
  const Reg first = V::broadcast(taps.values + middle);
  CONVKIT_UNROLL
  for (int v = 0; v < NV; ++v) a[v] = load(lines[middle], v) * first;
  for (std::int64_t k = S == Symmetry::none; k < (S == Symmetry::none ? n : middle); ++k) {
    const Reg tap = V::broadcast(taps.values + k);
    CONVKIT_UNROLL
    for (int v = 0; v < NV; ++v) {
      Reg x = load(lines[k], v);
      if constexpr (S == Symmetry::even) x += load(lines[n - 1 - k], v);
      if constexpr (S == Symmetry::odd) x -= load(lines[n - 1 - k], v);
      a[v] = multiply_add<T>(x, tap, a[v]);
    }
  }
  CONVKIT_UNROLL
  for (int v = 0; v < NV; ++v) V::store(out + i + v * V::lanes, a[v], v < NV - 1 ? V::lanes : last);
}

template <class T, Symmetry S>
void sum_symmetric(const Taps<T>& taps, const T* const* lines, std::int64_t width, T* out) {
  constexpr std::int64_t lanes = Vec<T>::lanes;
  std::int64_t i = 0;
  for (; i + 4 * lanes <= width; i += 4 * lanes) sum_vectors<T, 4, S>(taps, lines, i, lanes, out);
  for (; i < width; i += lanes) {
    sum_vectors<T, 1, S>(taps, lines, i, static_cast<int>(smaller(width - i, lanes)), out);
  }
}

}  // namespace

template <class T>
void sum_tap_lines(const Taps<T>& taps, const T* const* lines, std::int64_t width, T* out) {
  switch (taps.symmetry) {
    case Symmetry::none: return sum_symmetric<T, Symmetry::none>(taps, lines, width, out);
    case Symmetry::even: return sum_symmetric<T, Symmetry::even>(taps, lines, width, out);
    case Symmetry::odd: return sum_symmetric<T, Symmetry::odd>(taps, lines, width, out);
  }
}

template void sum_tap_lines(const Taps<float>&, const float* const*, std::int64_t, float*);
template void sum_tap_lines(const Taps<double>&, const double* const*, std::int64_t, double*);

}  // namespace convkit::CONVKIT_ISA
