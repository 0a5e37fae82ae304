#include "microkernels/gemm_tile.hpp"

#include "microkernels/tile_ends.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

template <class T, int Rows, int NV>
void gather_tile(std::int64_t tiles, const RunTile<T>* table, const T* panel, const TileOut<T>& out) {
  using V = Vec<T>;
  T* y = out.y;
  const T* residual = out.residual;
  for (; tiles > 0; --tiles, ++table) {
    typename V::Reg c[Rows][NV];
    begin_lanes_on_outputs<T, Rows, NV>(c, out, y);
    const Run<T>* run = table->runs;
    for (std::int64_t left = table->count; left > 0; --left, ++run) {
      const T* a[Rows];
      CONVKIT_UNROLL
      for (int i = 0; i < Rows; ++i) a[i] = run->row[i];
      const T* b = panel + run->panel_offset * (NV * V::lanes);
      const T* const b_end = b + table->k * (NV * V::lanes);
      std::ptrdiff_t k = 0;
      do {
        typename V::Reg bv[NV];
        CONVKIT_UNROLL
        for (int j = 0; j < NV; ++j) bv[j] = V::load(b + j * V::lanes);
        CONVKIT_UNROLL
        for (int i = 0; i < Rows; ++i) {
          const auto av = V::broadcast(a[i] + k);
          CONVKIT_UNROLL
          for (int j = 0; j < NV; ++j) c[i][j] = av * bv[j] + c[i][j];
        }
        b += NV * V::lanes;
        ++k;
      } while (b != b_end);
    }
    finish_tile<T, Rows, NV>(c, out, y, residual);
    y += Rows * out.stride;
    if (residual) residual += Rows * out.stride;
  }
}

template <class T, int Rows, int NV>
void strided_tile(std::int64_t tiles, std::int64_t k, const T* a, std::ptrdiff_t lda, std::ptrdiff_t k_stride,
                  const T* panel, const TileOut<T>& out) {
  using V = Vec<T>;
  T* y = out.y;
  const T* residual = out.residual;
  for (; tiles > 0; --tiles, a += Rows * lda) {
    typename V::Reg c[Rows][NV];
    begin_lanes_on_outputs<T, Rows, NV>(c, out, y);
    const T* b = panel;
    const T* step = a;
    for (std::int64_t left = k; left > 0; --left, step += k_stride) {
      typename V::Reg bv[NV];
      CONVKIT_UNROLL
      for (int j = 0; j < NV; ++j) bv[j] = V::load(b + j * V::lanes);
      CONVKIT_UNROLL
      for (int i = 0; i < Rows; ++i) {
        const auto av = V::broadcast(step + i * lda);
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

template <class T, int Rows, int NV, bool Masked>
void spread_tile(std::int64_t tiles, std::int64_t k, const T* a, std::ptrdiff_t lda, const T* b0, std::ptrdiff_t ldb,
                 const TileOut<T>& out) {
  using V = Vec<T>;
  T* y = out.y;
  const T* residual = out.residual;
  const T* bias = out.bias;
  for (; tiles > 0; --tiles, a += Rows * lda) {
    typename V::Reg c[Rows][NV];
    if (out.accumulate) {
      begin_lanes_on_outputs<T, Rows, NV>(c, out, y);
    } else {
      CONVKIT_UNROLL
      for (int i = 0; i < Rows; ++i) {
        const auto value = bias ? V::broadcast(bias + i) : V::zero();
        CONVKIT_UNROLL
        for (int j = 0; j < NV; ++j) c[i][j] = value;
      }
    }
    const T* b = b0;
    for (std::int64_t step = 0; step < k; ++step) {
      typename V::Reg bv[NV];
      CONVKIT_UNROLL
      for (int j = 0; j < NV; ++j) {
        bv[j] = Masked && j == NV - 1 ? V::load(b + j * V::lanes, out.tail) : V::load(b + j * V::lanes);
      }
      CONVKIT_UNROLL
      for (int i = 0; i < Rows; ++i) {
        const auto av = V::broadcast(a + i * lda + step);
        CONVKIT_UNROLL
        for (int j = 0; j < NV; ++j) c[i][j] = av * bv[j] + c[i][j];
      }
      b += ldb;
    }
    finish_tile<T, Rows, NV>(c, out, y, residual);
    y += Rows * out.stride;
    if (residual) residual += Rows * out.stride;
    if (bias) bias += Rows;
  }
}

template <class T, int NV, int Rows>
constexpr void fill_rows(TileTable<T>& table) {
  if constexpr (Rows > 0) {
    table.gather[NV][Rows] = gather_tile<T, Rows, NV>;
    table.strided[NV][Rows] = strided_tile<T, Rows, NV>;
    table.spread[NV][Rows] = spread_tile<T, Rows, NV, false>;
    table.spread_masked[NV][Rows] = spread_tile<T, Rows, NV, true>;
    fill_rows<T, NV, Rows - 1>(table);
  }
}

template <class T, int NV>
constexpr void fill(TileTable<T>& table) {
  if constexpr (NV > 0) {
    fill_rows<T, NV, TileShape<T>::rows(NV)>(table);
    fill<T, NV - 1>(table);
  }
}

template <class T>
constexpr TileTable<T> make_table() {
  TileTable<T> table{};
  fill<T, TileShape<T>::vectors>(table);
  return table;
}

constexpr TileTable<float> f32_tiles = make_table<float>();
constexpr TileTable<double> f64_tiles = make_table<double>();

}  // namespace

template <>
const TileTable<float>& tiles<float>() {
  return f32_tiles;
}
template <>
const TileTable<double>& tiles<double>() {
  return f64_tiles;
}

}  // namespace convkit::CONVKIT_ISA
