// Transposes of planes, a square of registers at a time.
//
// A block is a few hundred bytes wide on both sides: it is read in whole cache lines, and what is left of a line that a
// square only touched is still in L1 when its neighbour comes. Blocks follow each other along the shorter side, so that
// both arrays are walked nearly in order; the next block is prefetched into L2, which no hardware prefetcher manages across
// so many rows. Results larger than the last-level cache are written past it, line by line,
// where the rows are aligned.
#include "transpose.hpp"

#include "algorithms/sharing.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

constexpr std::int64_t block_bytes = 512;

template <class T, bool Stream>
CONVKIT_INLINE void square(const T* from, std::ptrdiff_t from_row, T* to, std::ptrdiff_t to_row, std::ptrdiff_t ahead) {
  using V = Vec<T>;
  typename V::Reg r[V::lanes];
  CONVKIT_UNROLL
  for (int q = 0; q < V::lanes; ++q) {
    r[q] = V::load(from + q * from_row);
    __builtin_prefetch(from + q * from_row + ahead, 0, 2);
  }
  V::transpose(r);
  CONVKIT_UNROLL
  for (int q = 0; q < V::lanes; ++q) {
    if constexpr (Stream) {
      V::stream(to + q * to_row, r[q]);
    } else {
      V::store(to + q * to_row, r[q]);
    }
  }
}

template <class T>
CONVKIT_INLINE void corner(const T* from, std::ptrdiff_t from_row, T* to, std::ptrdiff_t to_row, int height,
                           int width) {
  using V = Vec<T>;
  typename V::Reg r[V::lanes];
  CONVKIT_UNROLL
  for (int q = 0; q < V::lanes; ++q) r[q] = q < height ? V::load(from + q * from_row, width) : V::zero();
  V::transpose(r);
  CONVKIT_UNROLL
  for (int q = 0; q < V::lanes; ++q) {
    if (q < width) V::store(to + q * to_row, r[q], height);
  }
}

// `height` rows of `from`, `width` columns.
template <class T, bool Stream>
void block(const T* from, std::ptrdiff_t from_row, T* to, std::ptrdiff_t to_row, std::int64_t height,
           std::int64_t width, std::ptrdiff_t ahead) {
  constexpr int n = Vec<T>::lanes;
  for (std::int64_t j = 0; j < width; j += n) {
    const int columns = static_cast<int>(smaller<std::int64_t>(width - j, n));
    for (std::int64_t i = 0; i < height; i += n) {
      const int rows = static_cast<int>(smaller<std::int64_t>(height - i, n));
      const T* source = from + i * from_row + j;
      T* target = to + j * to_row + i;
      if (rows == n && columns == n) {
        square<T, Stream>(source, from_row, target, to_row, ahead);
      } else {
        corner(source, from_row, target, to_row, rows, columns);
      }
    }
  }
}

template <class T>
void share_of(const PlaneTranspose& t, bool stream, int index, int size) {
  constexpr std::int64_t side = block_bytes / static_cast<std::int64_t>(sizeof(T));
  // All rows of the result are equally far from a cache line's begin: what is before it makes a block of its own.
  const std::int64_t behind = reinterpret_cast<std::uintptr_t>(t.to) % 64 / sizeof(T);
  const std::int64_t lead = stream && behind ? smaller<std::int64_t>(64 / sizeof(T) - behind, t.i) : 0;
  const std::int64_t high = (lead ? 1 : 0) + ceil_div(t.i - lead, side), wide = ceil_div(t.j, side);
  const bool rows_first = t.i <= t.j;
  const Share mine = share(t.outer[0] * t.outer[1] * high * wide, index, size);
  for (std::int64_t unit = mine.begin; unit < mine.end; ++unit) {
    const std::int64_t inner = unit % (high * wide), outer = unit / (high * wide);
    const std::int64_t row = rows_first ? inner % high : inner / wide;
    const std::int64_t i = lead && row ? lead + (row - 1) * side : row * side;
    const std::int64_t end = lead && !row ? lead : smaller(i + side, t.i);
    const std::int64_t j = (rows_first ? inner / high : inner % wide) * side;
    const std::int64_t u = outer / t.outer[1], v = outer % t.outer[1];
    const T* from = static_cast<const T*>(t.from) + u * t.from_outer[0] + v * t.from_outer[1] + i * t.from_row + j;
    T* to = static_cast<T*>(t.to) + u * t.to_outer[0] + v * t.to_outer[1] + j * t.to_row + i;
    const std::int64_t width = smaller(t.j - j, side);
    const std::ptrdiff_t ahead = rows_first ? side : side * t.from_row;
    if (stream && (!lead || row)) {
      block<T, true>(from, t.from_row, to, t.to_row, end - i, width, ahead);
    } else {
      block<T, false>(from, t.from_row, to, t.to_row, end - i, width, ahead);
    }
  }
  if (stream) Vec<T>::fence();
}

}  // namespace

void transpose(const PlaneTranspose& what, bool stream, int threads) {
  auto member = [&](int index, int size) {
    if (what.element == 4) {
      share_of<float>(what, stream, index, size);
    } else {
      share_of<double>(what, stream, index, size);
    }
  };
  team(threads, member);
}

}  // namespace convkit::CONVKIT_ISA
