#include "microkernels/winograd_gemm.hpp"

#include "isa/product.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

template <class T>
using PointTile = void (*)(std::int64_t tiles, const PointProduct<T>& product, const T* v, T* m, const T* next);

template <class T, int Rows, int NV, int Ahead>
void point_tile(std::int64_t tiles, const PointProduct<T>& product, const T* v, T* m, const T* next) {
  using V = Vec<T>;
  using P = ProductOf<T>;
  constexpr int panel = NV * V::lanes, line = 64 / static_cast<int>(sizeof(T));
  const std::ptrdiff_t to_next_block = product.block_stride - V::lanes;
  for (; tiles > 0; --tiles, v += Rows * V::lanes, m += Rows * panel) {
    const T *a = v, *b = product.u;
    bool accumulate = product.accumulate;
    for (std::int64_t left = product.channels; left > 0; accumulate = true) {
      // Sums that no fold interrupts go on where they were: in how many calls they are computed does not show.
      const bool resume = accumulate && product.fold == unfolded;
      typename V::Reg c[Rows][NV];
      CONVKIT_UNROLL
      for (int i = 0; i < Rows; ++i) {
        CONVKIT_UNROLL
        for (int j = 0; j < NV; ++j) c[i][j] = resume ? V::load(m + i * panel + j * V::lanes) : V::zero();
      }
      for (const std::int64_t stop = larger<std::int64_t>(0, left - product.fold); left > stop; left -= V::lanes) {
        const T* const later = left > V::lanes ? a + product.block_stride : v + Rows * V::lanes;
        CONVKIT_UNROLL
        for (int i = 0; i < Rows; ++i) __builtin_prefetch(later + i * V::lanes, 0, 3);
        const T* const b_end = b + smaller<std::int64_t>(left, V::lanes) * panel;
        do {
          typename V::Reg bv[NV];
          CONVKIT_UNROLL
          for (int j = 0; j < NV; ++j) bv[j] = V::load(b + j * P::vector);
          CONVKIT_UNROLL
          for (int j = 0; j < Ahead; ++j) __builtin_prefetch(next + j * line, 0, 2);
          if constexpr (Ahead > 0) next += Ahead * line;
          CONVKIT_UNROLL
          for (int i = 0; i < Rows; ++i) {
            const auto av = P::broadcast(a + i * V::lanes);
            CONVKIT_UNROLL
            for (int j = 0; j < NV; ++j) c[i][j] = P::multiply_add(av, bv[j], c[i][j]);
          }
          b += NV * P::vector;
          a += P::group;
        } while (b != b_end);
        a += to_next_block;
        product.fetch->step();
      }
      if (accumulate && !resume) {
        CONVKIT_UNROLL
        for (int i = 0; i < Rows; ++i) {
          CONVKIT_UNROLL
          for (int j = 0; j < NV; ++j) c[i][j] += V::load(m + i * panel + j * V::lanes);
        }
      }
      CONVKIT_UNROLL
      for (int i = 0; i < Rows; ++i) {
        CONVKIT_UNROLL
        for (int j = 0; j < NV; ++j) V::store(m + i * panel + j * V::lanes, c[i][j]);
      }
    }
  }
}

// [vectors][rows][log2 of Ahead, plus 1], the first two from 1. Only full panels fetch ahead: narrow ones are the last.
template <class T>
struct PointTable {
  PointTile<T> tile[5][9][4];
};

template <class T>
constexpr int full_lines = TileShape<T>::vectors * Vec<T>::bytes / 64;  // cache lines a step of a full panel

template <class T>
constexpr PointTable<T> make_table() {
  PointTable<T> table{};
  for_tile_sizes<T>([&](auto size) {
    constexpr int nv = decltype(size)::nv, rows = decltype(size)::rows;
    auto& tile = table.tile[nv][rows];
    tile[0] = point_tile<T, rows, nv, 0>;
    if constexpr (nv == TileShape<T>::vectors) {
      if constexpr (full_lines<T> >= 1) tile[1] = point_tile<T, rows, nv, 1>;
      if constexpr (full_lines<T> >= 2) tile[2] = point_tile<T, rows, nv, 2>;
      if constexpr (full_lines<T> >= 4) tile[3] = point_tile<T, rows, nv, 4>;
    }
  });
  return table;
}

template <class T>
constexpr PointTable<T> table = make_table<T>();

template <class T>
CONVKIT_INLINE void multiply_pass(const PointProduct<T>& product, int vectors, RowSplit split) {
  using V = Vec<T>;
  const auto& tiles = table<T>.tile[vectors];
  // A pass has full_lines * channels lines to fetch, a row tile takes `channels` steps: the fewest lines a step that get
  // through all of them, then no more. A single row tile uses its filters as fast as they can arrive.
  std::int64_t fetching = 0;
  int ahead = 0;
  const std::int64_t row_tiles = split.big + split.small;
  if (product.next && row_tiles > 1 && vectors == TileShape<T>::vectors && full_lines<T> > 0) {
    int lines = 1;
    for (ahead = 1; lines < full_lines<T> && lines * row_tiles < full_lines<T>; lines *= 2) ++ahead;
    fetching = full_lines<T> / lines;
  }
  const T *v = product.v, *next = product.next;
  T* m = product.m;
  const auto run = [&](std::int64_t count, int rows) __attribute__((always_inline)) {
    while (count > 0) {
      const std::int64_t now = fetching > 0 ? smaller(fetching, count) : count;
      tiles[rows][fetching > 0 ? ahead : 0](now, product, v, m, next);
      if (fetching > 0) {
        fetching -= now;
        next += now * product.channels * (64 / static_cast<int>(sizeof(T))) << (ahead - 1);
      }
      v += now * rows * V::lanes;
      m += now * rows * vectors * V::lanes;
      count -= now;
    }
  };
  run(split.big, split.rows + 1);
  run(split.small, split.rows);
}

template <class T>
CONVKIT_INLINE void multiply(const PointProduct<T>& product, int vectors) {
  const RowSplit split = split_rows(product.tiles, TileShape<T>::rows(vectors));
  PointProduct<T> pass = product;
  for (std::int64_t left = product.channels; left > 0; left -= pass.channels) {
    pass.channels = smaller(left, product.pass);
    multiply_pass(pass, vectors, split);
    const std::int64_t filters = pass.channels * vectors * Vec<T>::lanes;
    pass.v += pass.channels / Vec<T>::lanes * pass.block_stride;
    pass.u += filters;
    if (pass.next) pass.next += filters;
    pass.accumulate = true;
  }
}

}  // namespace

template <>
void multiply_point<float>(const PointProduct<float>& product, int vectors) {
  multiply(product, vectors);
}
template <>
void multiply_point<double>(const PointProduct<double>& product, int vectors) {
  multiply(product, vectors);
}

}  // namespace convkit::CONVKIT_ISA
