#include "microkernels/outer_tile.hpp"

#include "isa/product.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

template <class T, int Rows, int NV>
void outer_tile(const OuterProduct<T>& product) {
  using V = Vec<T>;
  using P = ProductOf<T>;
  constexpr int width = NV * V::lanes;
  T* const to = product.c;
  if (product.accumulate) {
    CONVKIT_UNROLL
    for (int i = 0; i < Rows * NV; ++i) __builtin_prefetch(to + i * V::lanes, 1, 3);
  }
  typename V::Reg c[Rows][NV];
  CONVKIT_UNROLL
  for (int i = 0; i < Rows; ++i) {
    CONVKIT_UNROLL
    for (int j = 0; j < NV; ++j) c[i][j] = V::zero();
  }
  const std::ptrdiff_t a_step = product.a_step, b_step = product.b_step, b_vector = product.b_vector;
  const T* next = product.next;
  const OuterRun* run = product.runs;
  for (std::int64_t left = product.count; left > 0; --left, ++run) {
    const T* a = product.a + run->a;
    const T* b = product.b + run->b;
    std::int64_t step = product.steps;
    do {
      __builtin_prefetch(next, 0, 2);
      next += V::lanes;
      typename V::Reg bv[NV];
      CONVKIT_UNROLL
      for (int j = 0; j < NV; ++j) bv[j] = V::load(b + j * b_vector);
      CONVKIT_UNROLL
      for (int i = 0; i < Rows; ++i) {
        const auto av = P::broadcast(a + i);
        CONVKIT_UNROLL
        for (int j = 0; j < NV; ++j) c[i][j] = P::multiply_add(av, bv[j], c[i][j]);
      }
      a += a_step;
      b += b_step;
    } while (--step > 0);
  }
  if (product.accumulate) {
    CONVKIT_UNROLL
    for (int i = 0; i < Rows; ++i) {
      CONVKIT_UNROLL
      for (int j = 0; j < NV; ++j) c[i][j] += V::load(to + i * width + j * V::lanes);
    }
  }
  CONVKIT_UNROLL
  for (int i = 0; i < Rows; ++i) {
    CONVKIT_UNROLL
    for (int j = 0; j < NV; ++j) V::store(to + i * width + j * V::lanes, c[i][j]);
  }
}

template <class T>
constexpr OuterTiles<T> make_table() {
  OuterTiles<T> table{};
  for_tile_sizes<T>([&](auto size) {
    constexpr int nv = decltype(size)::nv, rows = decltype(size)::rows;
    table.tile[nv][rows] = outer_tile<T, rows, nv>;
  });
  return table;
}

constexpr OuterTiles<float> f32_tiles = make_table<float>();
constexpr OuterTiles<double> f64_tiles = make_table<double>();

}  // namespace

template <>
const OuterTiles<float>& outer_tiles<float>() {
  return f32_tiles;
}
template <>
const OuterTiles<double>& outer_tiles<double>() {
  return f64_tiles;
}

}  // namespace convkit::CONVKIT_ISA
