#include "microkernels/gemm_tile.hpp"

#include "isa/product.hpp"
#include "microkernels/tile_ends.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

// Accumulators of a tile. Of a last vector that is Half, only the lower half is summed.
template <class T, int Rows, int NV, bool Half>
struct Sums {
  using V = Vec<T>;
  using P = ProductOf<T>;
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
  // One step of the reduction; a(i): where row i's element of A is.
  template <class A>
  CONVKIT_INLINE void add(const T* b, const A& a) {
    typename V::Reg bv[NV];
    CONVKIT_UNROLL
    for (int j = 0; j < whole; ++j) bv[j] = V::load(b + j * P::vector);
    typename V::Half bh;
    if constexpr (Half) bh = V::load_half(b + whole * P::vector);
    CONVKIT_UNROLL
    for (int i = 0; i < Rows; ++i) {
      const auto av = P::broadcast(a(i));
      CONVKIT_UNROLL
      for (int j = 0; j < whole; ++j) c[i][j] = P::multiply_add(av, bv[j], c[i][j]);
      if constexpr (Half) h[i] = P::multiply_add(V::low(av), bh, h[i]);
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

// --- lanes on outputs: where the rows of A are ------------------------------------------------------------------------
//
// next(rows) goes on to the tile below; reduce<Rows, NV>(panel, add) calls add(b, a) for every step.

template <class T>
struct GatheredRows {
  const RunTile<T>* tile;

  CONVKIT_INLINE void next(int) { ++tile; }
  template <int Rows, int NV, class Add>
  CONVKIT_INLINE void reduce(const T* panel, const Add& add) const {
    using P = ProductOf<T>;
    const Run<T>* run = tile->runs;
    for (std::int64_t left = tile->count; left > 0; --left, ++run) {
      const T* a[Rows];
      CONVKIT_UNROLL
      for (int i = 0; i < Rows; ++i) a[i] = run->row[i];
      const T* b = panel + run->panel_offset * (NV * Vec<T>::lanes);
      const T* const b_end = b + tile->k * (NV * Vec<T>::lanes);
      std::ptrdiff_t k = 0;
      do {
        add(b, [&](int i) CONVKIT_LAMBDA { return a[i] + k; });
        b += NV * P::vector;
        k += P::group;
      } while (b != b_end);
    }
  }
};

template <class T>
struct StridedRows {
  std::int64_t k;
  const T* a;
  std::ptrdiff_t lda, k_stride;

  CONVKIT_INLINE void next(int rows) { a += rows * lda; }
  template <int Rows, int NV, class Add>
  CONVKIT_INLINE void reduce(const T* panel, const Add& add) const {
    using P = ProductOf<T>;
    const T *b = panel, *step = a;
    for (std::int64_t left = k; left > 0; left -= P::group, step += P::group * k_stride) {
      add(b, [&](int i) CONVKIT_LAMBDA { return step + i * lda; });
      b += NV * P::vector;
    }
  }
};

template <class T>
struct ListedRows {
  std::int64_t k;
  const std::ptrdiff_t* offset;
  const T* a;
  std::ptrdiff_t lda;

  CONVKIT_INLINE void next(int rows) { a += rows * lda; }
  template <int Rows, int NV, class Add>
  CONVKIT_INLINE void reduce(const T* panel, const Add& add) const {
    using P = ProductOf<T>;
    const T* b = panel;
    for (std::int64_t q = 0; q < k; q += P::group) {
      const T* const step = a + offset[q];
      add(b, [&](int i) CONVKIT_LAMBDA { return step + i * lda; });
      b += NV * P::vector;
    }
  }
};

// The residual is read when a tile ends, with its sums still to be added to: a core does not look as far ahead.
template <class T, int Rows, int NV>
CONVKIT_INLINE void fetch_residual(const T* residual, std::ptrdiff_t stride) {
  constexpr int line = 64 / static_cast<int>(sizeof(T));
  for (int i = 0; i < Rows; ++i) {
    for (int at = 0; at < NV * Vec<T>::lanes; at += line) __builtin_prefetch(residual + i * stride + at, 0, 3);
  }
}

template <class T, int Rows, int NV, bool Half, class A>
CONVKIT_INLINE void lanes_on_outputs(std::int64_t tiles, A rows, const T* panel, const TileOut<T>& out) {
  T* y = out.y;
  const T* residual = out.residual;
  for (; tiles > 0; --tiles, rows.next(Rows)) {
    Sums<T, Rows, NV, Half> sums;
    sums.begin(out, y);
    if (residual) fetch_residual<T, Rows, NV>(residual, out.stride);
    rows.template reduce<Rows, NV>(panel, [&](const T* b, const auto& a) CONVKIT_LAMBDA { sums.add(b, a); });
    sums.finish(out, y, residual);
    y += Rows * out.stride;
    if (residual) residual += Rows * out.stride;
  }
}

template <class T, int Rows, int NV, bool Half>
void gather_tile(std::int64_t tiles, const RunTile<T>* table, const T* panel, const TileOut<T>& out) {
  lanes_on_outputs<T, Rows, NV, Half>(tiles, GatheredRows<T>{table}, panel, out);
}
template <class T, int Rows, int NV, bool Half>
void strided_tile(std::int64_t tiles, std::int64_t k, const T* a, std::ptrdiff_t lda, std::ptrdiff_t k_stride,
                  const T* panel, const TileOut<T>& out) {
  lanes_on_outputs<T, Rows, NV, Half>(tiles, StridedRows<T>{k, a, lda, k_stride}, panel, out);
}
template <class T, int Rows, int NV>
void listed_tile(std::int64_t tiles, std::int64_t k, const std::ptrdiff_t* offset, const T* a, std::ptrdiff_t lda,
                 const T* panel, const TileOut<T>& out) {
  lanes_on_outputs<T, Rows, NV, false>(tiles, ListedRows<T>{k, offset, a, lda}, panel, out);
}

// --- lanes on pixels: where the pixels of a step are ------------------------------------------------------------------

template <class T>
struct StridedPixels {
  const T* b;
  std::ptrdiff_t ldb;

  CONVKIT_INLINE const T* at(std::int64_t) const { return b; }
  CONVKIT_INLINE void next() { b += ProductOf<T>::group * ldb; }
};

template <class T>
struct ListedPixels {
  const T* b;
  const std::ptrdiff_t* offset;

  CONVKIT_INLINE const T* at(std::int64_t k) const { return b + offset[k]; }
  CONVKIT_INLINE void next() {}
};

template <class T, int Rows, int NV, bool Masked, class B>
CONVKIT_INLINE void lanes_on_pixels(std::int64_t tiles, std::int64_t k, const T* a, std::ptrdiff_t lda, const B& pixels,
                                    const TileOut<T>& out) {
  using V = Vec<T>;
  using P = ProductOf<T>;
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
    if (residual) fetch_residual<T, Rows, NV>(residual, out.stride);
    B row = pixels;
    for (std::int64_t step = 0; step < k; step += P::group, row.next()) {
      const T* const b = row.at(step);
      typename V::Reg bv[NV];
      CONVKIT_UNROLL
      for (int j = 0; j < NV; ++j) {
        bv[j] = Masked && j == NV - 1 ? V::load(b + j * P::vector, out.tail) : V::load(b + j * P::vector);
      }
      CONVKIT_UNROLL
      for (int i = 0; i < Rows; ++i) {
        const auto av = P::broadcast(a + i * lda + step);
        CONVKIT_UNROLL
        for (int j = 0; j < NV; ++j) c[i][j] = P::multiply_add(av, bv[j], c[i][j]);
      }
    }
    finish_tile<T, Rows, NV>(c, out, y, residual);
    y += Rows * out.stride;
    if (residual) residual += Rows * out.stride;
    if (bias) bias += Rows;
  }
}

template <class T, int Rows, int NV, bool Masked>
void spread_tile(std::int64_t tiles, std::int64_t k, const T* a, std::ptrdiff_t lda, const T* b, std::ptrdiff_t ldb,
                 const TileOut<T>& out) {
  lanes_on_pixels<T, Rows, NV, Masked>(tiles, k, a, lda, StridedPixels<T>{b, ldb}, out);
}
template <class T, int Rows, int NV>
void listed_spread_tile(std::int64_t tiles, std::int64_t k, const std::ptrdiff_t* offset, const T* a,
                        std::ptrdiff_t lda, const T* b, const TileOut<T>& out) {
  lanes_on_pixels<T, Rows, NV, false>(tiles, k, a, lda, ListedPixels<T>{b, offset}, out);
}

// --- the table --------------------------------------------------------------------------------------------------------

template <class T>
constexpr TileTable<T> make_table() {
  TileTable<T> table{};
  for_tile_sizes<T>([&](auto size) {
    constexpr int nv = decltype(size)::nv, rows = decltype(size)::rows;
    table.gather[nv][rows] = gather_tile<T, rows, nv, false>;
    table.strided[nv][rows] = strided_tile<T, rows, nv, false>;
    if constexpr (Vec<T>::halves && nv > 1) {
      table.gather_half[nv][rows] = gather_tile<T, rows, nv, true>;
      table.strided_half[nv][rows] = strided_tile<T, rows, nv, true>;
    }
    if constexpr (rows <= TileShape<T>::listed_rows(nv)) table.listed[nv][rows] = listed_tile<T, rows, nv>;
    table.spread[nv][rows] = spread_tile<T, rows, nv, false>;
    table.spread_masked[nv][rows] = spread_tile<T, rows, nv, true>;
    if constexpr (rows <= TileShape<T>::listed_spread_rows(nv)) {
      table.listed_spread[nv][rows] = listed_spread_tile<T, rows, nv>;
    }
  });
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
