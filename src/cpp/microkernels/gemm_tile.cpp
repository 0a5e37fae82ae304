#include "microkernels/gemm_tile.hpp"

#include "isa/product.hpp"
#include "microkernels/tile_ends.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

template <class T, int Rows, int NV>
using Registers = typename Vec<T>::Reg[Rows][NV];

// The sums of a tile while a form adds to them. Of a last vector that is Half, only the lower half is summed.
template <class T, int Rows, int NV, bool Half>
struct Sums {
  using V = Vec<T>;
  using P = ProductOf<T>;
  static constexpr int whole = Half ? NV - 1 : NV;
  Registers<T, Rows, NV>& c;
  typename V::Half h[Half ? Rows : 1];

  explicit CONVKIT_INLINE Sums(Registers<T, Rows, NV>& all) : c(all) {
    if constexpr (Half) {
      CONVKIT_UNROLL
      for (int i = 0; i < Rows; ++i) h[i] = V::low(c[i][whole]);
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
  CONVKIT_INLINE void finish() {
    if constexpr (Half) {
      CONVKIT_UNROLL
      for (int i = 0; i < Rows; ++i) c[i][whole] = V::widen(h[i]);
    }
  }
};

// The same value, of which the compiler knows nothing: what is computed from it for one form takes no register from others.
template <class V>
CONVKIT_INLINE V here(V value) {
  asm("" : "+r"(value));
  return value;
}

template <class T, int Rows, int NV, bool Half>
CONVKIT_INLINE void add_gathered(Registers<T, Rows, NV>& c, const TileIn<T>& in, std::int64_t t) {
  using P = ProductOf<T>;
  Sums<T, Rows, NV, Half> sums(c);
  const RunTile<T>& tile = in.table[t];
  const T* const panel = here(in.b);
  const Run<T>* run = tile.runs;
  for (std::int64_t left = tile.count; left > 0; --left, ++run) {
    const T* a[Rows];
    CONVKIT_UNROLL
    for (int i = 0; i < Rows; ++i) a[i] = run->row[i];
    const T* b = panel + run->panel_offset * (NV * Vec<T>::lanes);
    const T* const b_end = b + tile.k * (NV * Vec<T>::lanes);
    std::ptrdiff_t k = 0;
    do {
      sums.add(b, [&](int i) CONVKIT_LAMBDA { return a[i] + k; });
      b += NV * P::vector;
      k += P::group;
    } while (b != b_end);
  }
  sums.finish();
}

template <class T, int Rows, int NV, bool Half>
CONVKIT_INLINE void add_strided(Registers<T, Rows, NV>& c, const TileIn<T>& in, std::int64_t t) {
  using P = ProductOf<T>;
  Sums<T, Rows, NV, Half> sums(c);
  const std::ptrdiff_t lda = here(in.lda), k_stride = here(in.stride);
  const T *b = in.b, *a = in.a + t * Rows * lda;
  for (std::int64_t left = in.k; left > 0; left -= P::group, a += P::group * k_stride) {
    sums.add(b, [&](int i) CONVKIT_LAMBDA { return a + i * lda; });
    b += NV * P::vector;
  }
  sums.finish();
}

// at(step): where its pixels are.
template <class T, int Rows, int NV, bool Masked, class B>
CONVKIT_INLINE void add_spread(Registers<T, Rows, NV>& c, std::int64_t k, const T* a, std::ptrdiff_t lda, int tail,
                               const B& at) {
  using V = Vec<T>;
  using P = ProductOf<T>;
  for (std::int64_t step = 0; step < k; step += P::group) {
    const T* const b = at(step);
    typename V::Reg bv[NV];
    CONVKIT_UNROLL
    for (int j = 0; j < NV; ++j) {
      bv[j] = Masked && j == NV - 1 ? V::load(b + j * P::vector, tail) : V::load(b + j * P::vector);
    }
    CONVKIT_UNROLL
    for (int i = 0; i < Rows; ++i) {
      const auto av = P::broadcast(a + i * lda + step);
      CONVKIT_UNROLL
      for (int j = 0; j < NV; ++j) c[i][j] = P::multiply_add(av, bv[j], c[i][j]);
    }
  }
}

template <class T, int Rows, int NV, bool Masked>
CONVKIT_INLINE void add_spread(Registers<T, Rows, NV>& c, const TileIn<T>& in, std::int64_t t, int tail) {
  const T* const b = here(in.b);
  const std::ptrdiff_t lda = here(in.lda), ldb = here(in.stride);
  const T* const a = in.a + t * Rows * lda;
  const auto at = [&](std::int64_t k) CONVKIT_LAMBDA { return b + k * ldb; };
  add_spread<T, Rows, NV, Masked>(c, here(in.k), a, lda, tail, at);
}

// The residual is read when a tile ends, with its sums still to be added to: a core does not look as far ahead.
template <class T, int Rows, int NV>
CONVKIT_INLINE void fetch_residual(const T* residual, std::ptrdiff_t stride) {
  constexpr int line = 64 / static_cast<int>(sizeof(T));
  for (int i = 0; i < Rows; ++i) {
    for (int at = 0; at < NV * Vec<T>::lanes; at += line) __builtin_prefetch(residual + i * stride + at, 0, 3);
  }
}

template <class T, int Rows, int NV>
void tile(std::int64_t tiles, const TileIn<T>& in, const TileOut<T>& given) {
  constexpr bool halves = Vec<T>::halves && NV > 1;
  // A copy: stores of T could change what is behind a reference.
  const TileOut<T> out = given;
  const bool spread = in.form >= Form::spread;
  struct {
    T* y;
    const T *residual, *bias_of_rows;
    std::int64_t t;
  } at{out.y, out.residual, spread ? out.bias : nullptr, 0};
  do {
    // In memory while products are summed: all registers are theirs.
    asm("" : "+m"(at));
    Registers<T, Rows, NV> c;
    begin_tile<T, Rows, NV>(c, out, at.y, spread ? nullptr : out.bias, at.bias_of_rows);
    if (at.residual) fetch_residual<T, Rows, NV>(at.residual, out.stride);
    const std::int64_t t = at.t;
    switch (in.form) {
      case Form::gathered: add_gathered<T, Rows, NV, false>(c, in, t); break;
      case Form::strided: add_strided<T, Rows, NV, false>(c, in, t); break;
      case Form::gathered_half:
        if constexpr (halves) add_gathered<T, Rows, NV, true>(c, in, t);
        break;
      case Form::strided_half:
        if constexpr (halves) add_strided<T, Rows, NV, true>(c, in, t);
        break;
      case Form::spread: add_spread<T, Rows, NV, false>(c, in, t, 0); break;
      case Form::spread_masked: add_spread<T, Rows, NV, true>(c, in, t, out.tail); break;
    }
    asm("" : "+m"(at));
    finish_tile<T, Rows, NV>(c, out, at.y, at.residual);
    at.y += Rows * out.stride;
    if (at.residual) at.residual += Rows * out.stride;
    if (at.bias_of_rows) at.bias_of_rows += Rows;
  } while (++at.t < tiles);
}

// Reductions over a list are short and end often: they have functions of their own, with nothing to decide between tiles.

template <class T, int Rows, int NV>
void listed_tile(std::int64_t tiles, const TileIn<T>& in, const TileOut<T>& out) {
  using P = ProductOf<T>;
  const std::ptrdiff_t* const offset = in.list;
  const std::ptrdiff_t lda = in.lda;
  const std::int64_t k = in.k;
  const T *a = in.a, *residual = out.residual;
  T* y = out.y;
  for (; tiles > 0; --tiles, a += Rows * lda) {
    Registers<T, Rows, NV> c;
    begin_tile<T, Rows, NV>(c, out, y, out.bias, nullptr);
    if (residual) fetch_residual<T, Rows, NV>(residual, out.stride);
    Sums<T, Rows, NV, false> sums(c);
    const T* b = in.b;
    for (std::int64_t q = 0; q < k; q += P::group) {
      const T* const step = a + offset[q];
      sums.add(b, [&](int i) CONVKIT_LAMBDA { return step + i * lda; });
      b += NV * P::vector;
    }
    finish_tile<T, Rows, NV>(c, out, y, residual);
    y += Rows * out.stride;
    if (residual) residual += Rows * out.stride;
  }
}

template <class T, int Rows, int NV>
void listed_spread_tile(std::int64_t tiles, const TileIn<T>& in, const TileOut<T>& out) {
  const std::ptrdiff_t* const offset = in.list;
  const T* const b = in.b;
  const T *a = in.a, *residual = out.residual, *bias = out.bias;
  T* y = out.y;
  for (; tiles > 0; --tiles, a += Rows * in.lda) {
    Registers<T, Rows, NV> c;
    begin_tile<T, Rows, NV>(c, out, y, nullptr, bias);
    if (residual) fetch_residual<T, Rows, NV>(residual, out.stride);
    add_spread<T, Rows, NV, false>(c, in.k, a, in.lda, 0, [&](std::int64_t k) CONVKIT_LAMBDA { return b + offset[k]; });
    finish_tile<T, Rows, NV>(c, out, y, residual);
    y += Rows * out.stride;
    if (residual) residual += Rows * out.stride;
    if (bias) bias += Rows;
  }
}

// --- the table --------------------------------------------------------------------------------------------------------

template <class T>
constexpr TileTable<T> make_table() {
  TileTable<T> table{};
  for_tile_sizes<T>([&](auto size) {
    constexpr int nv = decltype(size)::nv, rows = decltype(size)::rows;
    table.of[nv][rows] = tile<T, rows, nv>;
    if constexpr (rows <= TileShape<T>::listed_rows(nv)) table.listed[nv][rows] = listed_tile<T, rows, nv>;
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
