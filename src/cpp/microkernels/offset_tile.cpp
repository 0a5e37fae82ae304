#include "microkernels/offset_tile.hpp"

#include "microkernels/tile_ends.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

template <class T, int Rows, int NV>
void rows_tile(std::int64_t tiles, std::int64_t k, const std::ptrdiff_t* offset, const T* a, std::ptrdiff_t step,
               const T* panel, const TileOut<T>& out) {
  using V = Vec<T>;
  T* y = out.y;
  const T* residual = out.residual;
  for (; tiles > 0; --tiles, a += Rows * step) {
    typename V::Reg c[Rows][NV];
    begin_lanes_on_outputs<T, Rows, NV>(c, out, y);
    const T* b = panel;
    for (std::int64_t q = 0; q < k; ++q) {
      const T* p = a + offset[q];
      typename V::Reg bv[NV];
      CONVKIT_UNROLL
      for (int j = 0; j < NV; ++j) bv[j] = V::load(b + j * V::lanes);
      CONVKIT_UNROLL
      for (int i = 0; i < Rows; ++i) {
        const auto av = V::broadcast(p + i * step);
        CONVKIT_UNROLL
        for (int j = 0; j < NV; ++j) c[i][j] = av * bv[j] + c[i][j];
      }
      b += NV * V::lanes;
    }
    finish_tile<T, Rows, NV>(c, out, y, residual);
    y += Rows * out.stride;
    if (residual) residual += Rows * out.stride;
  }
}

template <class T, int Rows, int NV>
void spread_tile(std::int64_t tiles, std::int64_t k, const std::ptrdiff_t* offset, const T* a, std::ptrdiff_t lda,
                 const T* b, const TileOut<T>& out) {
  using V = Vec<T>;
  T* y = out.y;
  const T* residual = out.residual;
  const T* bias = out.bias;
  for (; tiles > 0; --tiles, a += Rows * lda) {
    typename V::Reg c[Rows][NV];
    CONVKIT_UNROLL
    for (int i = 0; i < Rows; ++i) {
      const auto value = bias ? V::broadcast(bias + i) : V::zero();
      CONVKIT_UNROLL
      for (int j = 0; j < NV; ++j) c[i][j] = value;
    }
    for (std::int64_t q = 0; q < k; ++q) {
      const T* p = b + offset[q];
      typename V::Reg bv[NV];
      CONVKIT_UNROLL
      for (int j = 0; j < NV; ++j) bv[j] = V::load(p + j * V::lanes);
      CONVKIT_UNROLL
      for (int i = 0; i < Rows; ++i) {
        const auto av = V::broadcast(a + i * lda + q);
        CONVKIT_UNROLL
        for (int j = 0; j < NV; ++j) c[i][j] = av * bv[j] + c[i][j];
      }
    }
    finish_tile<T, Rows, NV>(c, out, y, residual);
    y += Rows * out.stride;
    if (residual) residual += Rows * out.stride;
    if (bias) bias += Rows;
  }
}

template <class T, int NV, int Rows>
constexpr void fill_rows(OffsetTable<T>& table) {
  if constexpr (Rows > 0) {
    if constexpr (Rows <= OffsetShape<T>::rows(NV)) table.rows[NV][Rows] = rows_tile<T, Rows, NV>;
    if constexpr (Rows <= OffsetShape<T>::spread(NV)) table.spread[NV][Rows] = spread_tile<T, Rows, NV>;
    fill_rows<T, NV, Rows - 1>(table);
  }
}

template <class T, int NV>
constexpr void fill(OffsetTable<T>& table) {
  if constexpr (NV > 0) {
    fill_rows<T, NV, TileShape<T>::most_rows>(table);
    fill<T, NV - 1>(table);
  }
}

template <class T>
constexpr OffsetTable<T> make_table() {
  OffsetTable<T> table{};
  fill<T, TileShape<T>::vectors>(table);
  return table;
}

constexpr OffsetTable<float> f32_tiles = make_table<float>();
constexpr OffsetTable<double> f64_tiles = make_table<double>();

}  // namespace

template <>
const OffsetTable<float>& offset_tiles<float>() {
  return f32_tiles;
}
template <>
const OffsetTable<double>& offset_tiles<double>() {
  return f64_tiles;
}

}  // namespace convkit::CONVKIT_ISA
