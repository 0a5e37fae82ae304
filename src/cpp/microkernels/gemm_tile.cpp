#include "microkernels/gemm_tile.hpp"

#include "microkernels/tile_ends.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

// Accumulators of a tile. Of a last vector that is Half, only the lower half is summed.
template <class T, int Rows, int NV, bool Half>
struct Sums {
  using V = Vec<T>;
  static constexpr int whole = Half ? NV - 1 : NV;
  typename V::Reg c[Rows][NV];
  typename V::Half h[Half ? Rows : 1];

  CONVKIT_INLINE void begin(const TileOut<T>& out, const T* y) {
    begin_lanes_on_outputs<T, Rows, NV>(c, out, y);
    if constexpr (Half) {
      CONVKIT_UNROLL
      for (int i = 0; i < Rows; ++i) h[i] = V::low(c[i][NV - 1]);
    }
  }
  // a(i): where row i's element of A is.
  template <class A>
  CONVKIT_INLINE void add(const T* b, const A& a) {
    typename V::Reg bv[NV];
    CONVKIT_UNROLL
    for (int j = 0; j < whole; ++j) bv[j] = V::load(b + j * V::lanes);
    typename V::Half bh;
    if constexpr (Half) bh = V::load_half(b + whole * V::lanes);
    CONVKIT_UNROLL
    for (int i = 0; i < Rows; ++i) {
      const auto av = V::broadcast(a(i));
      CONVKIT_UNROLL
      for (int j = 0; j < whole; ++j) c[i][j] = av * bv[j] + c[i][j];
      if constexpr (Half) h[i] = V::low(av) * bh + h[i];
    }
  }
  CONVKIT_INLINE void finish(const TileOut<T>& out, T* y, const T* residual) {
    if constexpr (Half) {
      CONVKIT_UNROLL
      for (int i = 0; i < Rows; ++i) c[i][NV - 1] = V::widen(h[i]);
    }
    finish_tile<T, Rows, NV>(c, out, y, residual);
  }
};

template <class T, int Rows, int NV, bool Half>
void gather_tile(std::int64_t tiles, const RunTile<T>* table, const T* panel, const TileOut<T>& out) {
  using V = Vec<T>;
  T* y = out.y;
  const T* residual = out.residual;
  for (; tiles > 0; --tiles, ++table) {
    Sums<T, Rows, NV, Half> sums;
    sums.begin(out, y);
    const Run<T>* run = table->runs;
    for (std::int64_t left = table->count; left > 0; --left, ++run) {
      const T* a[Rows];
      CONVKIT_UNROLL
      for (int i = 0; i < Rows; ++i) a[i] = run->row[i];
      const T* b = panel + run->panel_offset * (NV * V::lanes);
      const T* const b_end = b + table->k * (NV * V::lanes);
      std::ptrdiff_t k = 0;
      do {
        sums.add(b, [&](int i) CONVKIT_LAMBDA { return a[i] + k; });
        b += NV * V::lanes;
        ++k;
      } while (b != b_end);
    }
    sums.finish(out, y, residual);
    y += Rows * out.stride;
    if (residual) residual += Rows * out.stride;
  }
}

template <class T, int Rows, int NV, bool Half>
void strided_tile(std::int64_t tiles, std::int64_t k, const T* a, std::ptrdiff_t lda, std::ptrdiff_t k_stride,
                  const T* panel, const TileOut<T>& out) {
  using V = Vec<T>;
  T* y = out.y;
  const T* residual = out.residual;
  for (; tiles > 0; --tiles, a += Rows * lda) {
    Sums<T, Rows, NV, Half> sums;
    sums.begin(out, y);
    const T* b = panel;
    const T* step = a;
    for (std::int64_t left = k; left > 0; --left, step += k_stride) {
      sums.add(b, [&](int i) CONVKIT_LAMBDA { return step + i * lda; });
      b += NV * V::lanes;
    }
    sums.finish(out, y, residual);
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
    table.gather[NV][Rows] = gather_tile<T, Rows, NV, false>;
    table.strided[NV][Rows] = strided_tile<T, Rows, NV, false>;
    if constexpr (Vec<T>::halves && NV > 1) {
      table.gather_half[NV][Rows] = gather_tile<T, Rows, NV, true>;
      table.strided_half[NV][Rows] = strided_tile<T, Rows, NV, true>;
    }
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
