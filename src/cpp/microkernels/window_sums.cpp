#include "microkernels/window_sums.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

// Row q of a window of the tile, which rows [Low, High) of the results meet.
template <class T, int R, int NV, int Low, int High>
CONVKIT_INLINE void add_row(const WindowWeights<T>& weights, const T* x, std::int64_t q,
                            typename Vec<T>::Reg (&a)[R][NV]) {
  using V = Vec<T>;
  const std::int64_t width = weights.width;
  const T* const w = weights.values + q * width;
  for (std::int64_t k = 0; k < width; ++k) {
    typename V::Reg under[NV];
    CONVKIT_UNROLL
    for (int v = 0; v < NV; ++v) under[v] = V::load(x + k + v * V::lanes);
    CONVKIT_UNROLL
    for (int r = Low; r < High; ++r) {
      const auto weight = V::broadcast(w + k - r * width);
      CONVKIT_UNROLL
      for (int v = 0; v < NV; ++v) a[r][v] = multiply_add<T>(under[v], weight, a[r][v]);
    }
  }
}

// The rows that only the first results meet, or only the last ones.
template <class T, int R, int NV, int Q>
CONVKIT_INLINE void add_first_rows(const WindowWeights<T>& weights, const T* x, std::ptrdiff_t row,
                                   typename Vec<T>::Reg (&a)[R][NV]) {
  if constexpr (Q < R - 1) {
    add_row<T, R, NV, 0, Q + 1>(weights, x + Q * row, Q, a);
    add_first_rows<T, R, NV, Q + 1>(weights, x, row, a);
  }
}
template <class T, int R, int NV, int Q>
CONVKIT_INLINE void add_last_rows(const WindowWeights<T>& weights, const T* x, std::ptrdiff_t row,
                                  typename Vec<T>::Reg (&a)[R][NV]) {
  if constexpr (Q < R) {
    const std::int64_t q = weights.height + Q - 1;
    add_row<T, R, NV, Q, R>(weights, x + q * row, q, a);
    add_last_rows<T, R, NV, Q + 1>(weights, x, row, a);
  }
}

template <class T, int R, int NV>
CONVKIT_INLINE void tile(const WindowWeights<T>& weights, const T* x, std::ptrdiff_t row, T* out, std::ptrdiff_t pitch,
                         int last, bool stream, bool ahead) {
  using V = Vec<T>;
  typename V::Reg a[R][NV];
  CONVKIT_UNROLL
  for (int r = 0; r < R; ++r) {
    CONVKIT_UNROLL
    for (int v = 0; v < NV; ++v) a[r][v] = V::zero();
  }
  if (ahead) {
    CONVKIT_UNROLL
    for (int r = 0; r < R; ++r) {
      CONVKIT_UNROLL
      for (int v = 0; v < NV; ++v) __builtin_prefetch(x + (weights.height + R - 1 + r) * row + v * V::lanes, 0, 2);
    }
  }
  add_first_rows<T, R, NV, 0>(weights, x, row, a);
  for (std::int64_t q = R - 1; q < weights.height; ++q) add_row<T, R, NV, 0, R>(weights, x + q * row, q, a);
  add_last_rows<T, R, NV, 1>(weights, x, row, a);
  CONVKIT_UNROLL
  for (int r = 0; r < R; ++r) {
    CONVKIT_UNROLL
    for (int v = 0; v < NV; ++v) {
      T* const to = out + r * pitch + v * V::lanes;
      if (last < V::lanes) {
        V::store(to, a[r][v], last);
      } else if (stream) {
        V::stream(to, a[r][v]);
      } else {
        V::store(to, a[r][v]);
      }
    }
  }
}

template <class T, int R>
void tiles(const WindowWeights<T>& weights, const T* image, std::ptrdiff_t row, const ResultLines<T>& out, bool ahead) {
  constexpr int lanes = Vec<T>::lanes, NV = many_registers<T> ? 4 : 2;
  std::int64_t i = 0;
  for (; i + NV * lanes <= out.width; i += NV * lanes) {
    tile<T, R, NV>(weights, image + i, row, out.first + i, out.pitch, lanes, out.stream, ahead);
  }
  for (; i < out.width; i += lanes) {
    const int last = static_cast<int>(smaller<std::int64_t>(out.width - i, lanes));
    tile<T, R, 1>(weights, image + i, row, out.first + i, out.pitch, last, out.stream, ahead);
  }
}

template <class T>
using Tiles = void (*)(const WindowWeights<T>&, const T*, std::ptrdiff_t, const ResultLines<T>&, bool);

template <class T>
constexpr Tiles<T> tiles_of(int rows) {
  switch (rows) {
    case 1: return tiles<T, 1>;
    case 2: return tiles<T, 2>;
    case 3: return tiles<T, 3>;
    case 4: return tiles<T, 4>;
    case 5: return tiles<T, smaller(5, tile_rows<T>)>;
    default: return tiles<T, tile_rows<T>>;
  }
}

}  // namespace

template <class T>
void sum_windows(const WindowWeights<T>& weights, const T* image, std::ptrdiff_t row, const ResultLines<T>& out,
                 bool ahead) {
  const int most = static_cast<int>(smaller<std::int64_t>(tile_rows<T>, weights.height));
  for (int r = 0; r < out.count;) {
    const int rows = smaller(most, out.count - r);
    tiles_of<T>(rows)(weights, image + r * row, row,
                      {out.first + r * out.pitch, out.pitch, rows, out.width, out.stream}, ahead);
    r += rows;
  }
}

template void sum_windows(const WindowWeights<float>&, const float*, std::ptrdiff_t, const ResultLines<float>&, bool);
template void sum_windows(const WindowWeights<double>&, const double*, std::ptrdiff_t, const ResultLines<double>&,
                          bool);

}  // namespace convkit::CONVKIT_ISA
