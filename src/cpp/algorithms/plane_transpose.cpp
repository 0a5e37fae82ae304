// Transposes of planes, a square of registers at a time.
//
// A block is a few hundred bytes wide on both sides: it is read in whole cache lines, and what is left of a line that a
// square only touched is still in L1 when its neighbour comes. Blocks follow each other along the shorter side, so that
// both arrays are walked nearly in order; the next block is prefetched into L2, which no hardware prefetcher manages across
// so many rows. Results larger than the last-level cache are written past it, line by line,
// where the rows are aligned.
#include "transpose.hpp"

#include "algorithms/sharing.hpp"
#include "isa/interleave.hpp"

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

// A square whose rows from `split` on, which may be all, are the plane's first ones a column further: they follow in memory
// where rows of the result are dense. `left` columns of the plane are left, `columns` of them to be written.
template <class T, bool Stream>
void bent_square(const T* last, const T* first, std::int64_t split, std::ptrdiff_t from_row, T* to,
                 std::ptrdiff_t to_row, int columns, std::int64_t left) {
  using V = Vec<T>;
  typename V::Reg r[V::lanes];
  const int further = static_cast<int>(smaller<std::int64_t>(left - 1, columns));
  CONVKIT_UNROLL
  for (int q = 0; q < V::lanes; ++q) {
    r[q] = q < split ? V::load(last + q * from_row, columns) : V::load(first + (q - split) * from_row + 1, further);
  }
  V::transpose(r);
  CONVKIT_UNROLL
  for (int q = 0; q < V::lanes; ++q) {
    if (q >= columns) break;
    if (q < left - 1) {
      if constexpr (Stream) {
        V::stream(to + q * to_row, r[q]);
      } else {
        V::store(to + q * to_row, r[q]);
      }
    } else if (split > 0) {
      V::store(to + q * to_row, r[q], static_cast<int>(split));
    }
  }
}

// Rows `i` of columns `j` of one plane. Rows from t.i on are bent: see above.
template <class T, bool Stream>
void block(const PlaneTranspose& t, const T* plane, T* result, Share i, Share j, std::ptrdiff_t ahead) {
  constexpr int n = Vec<T>::lanes;
  const std::ptrdiff_t from_row = t.from_row, to_row = t.to_row;
  for (std::int64_t column = j.begin; column < j.end; column += n) {
    const int columns = static_cast<int>(smaller<std::int64_t>(j.end - column, n));
    for (std::int64_t row = i.begin; row < i.end; row += n) {
      const int rows = static_cast<int>(smaller<std::int64_t>(i.end - row, n));
      const T* source = plane + row * from_row + column;
      T* target = result + column * to_row + row;
      if (row + rows > t.i) {
        bent_square<T, Stream>(source, plane + column, t.i - row, from_row, target, to_row, columns, t.j - column);
      } else if (rows == n && columns == n) {
        square<T, Stream>(source, from_row, target, to_row, ahead);
      } else {
        corner(source, from_row, target, to_row, rows, columns);
      }
    }
  }
}

template <class T>
constexpr std::int64_t line = 64 / sizeof(T);

// Elements before the first cache line's begin, of a side that all rows along it begin equally far behind one: a vector that
// crosses lines touches each of them twice.
template <class T>
CONVKIT_INLINE std::int64_t lead_of(std::int64_t length, const void* begin, std::ptrdiff_t row) {
  const std::int64_t behind = reinterpret_cast<std::uintptr_t>(begin) % 64 / sizeof(T);
  return row % line<T> == 0 && behind > 0 ? smaller(line<T> - behind, length) : 0;
}

// A side of the planes cut into blocks: [0, begin) if `apart`, then equal ones up to `end`.
template <class T>
struct Cuts {
  static constexpr std::int64_t side = block_bytes / static_cast<std::int64_t>(sizeof(T));
  std::int64_t begin, end;
  bool apart;

  CONVKIT_INLINE std::int64_t count() const { return apart + ceil_div(end - begin, side); }
  CONVKIT_INLINE Share block(std::int64_t index) const {
    if (apart && index == 0) return {0, begin};
    const std::int64_t from = begin + (index - apart) * side;
    return {from, smaller(from + side, end)};
  }
};

template <class T>
void share_of(const PlaneTranspose& t, bool stream, int index, int size) {
  // Loads gain less: two parts of squares must be few among the rest.
  const std::int64_t row_lead = lead_of<T>(t.i, t.to, t.to_row),
                     column_lead = t.j < 16 * line<T> ? 0 : lead_of<T>(t.j, t.from, t.from_row);
  // Dense rows of whole lines: a line that two rows share is written at once.
  const bool bent = row_lead > 0 && t.to_row == t.i;
  const Cuts<T> rows{row_lead, bent ? t.i + row_lead : t.i, row_lead > 0 && !bent},
      columns{column_lead, t.j, column_lead > 0};
  const std::int64_t high = rows.count(), wide = columns.count();
  const bool rows_first = t.i <= t.j;
  const Share mine = share(t.outer[0] * t.outer[1] * high * wide, index, size);
  for (std::int64_t unit = mine.begin; unit < mine.end; ++unit) {
    const std::int64_t inner = unit % (high * wide), outer = unit / (high * wide);
    const Share i = rows.block(rows_first ? inner % high : inner / wide),
                j = columns.block(rows_first ? inner / high : inner % wide);
    const std::int64_t u = outer / t.outer[1], v = outer % t.outer[1];
    const T* const plane = static_cast<const T*>(t.from) + u * t.from_outer[0] + v * t.from_outer[1];
    T* const result = static_cast<T*>(t.to) + u * t.to_outer[0] + v * t.to_outer[1];
    if (bent && inner == 0) block<T, false>(t, plane, result, {0, row_lead}, {0, 1}, 0);
    const std::ptrdiff_t ahead = rows_first ? Cuts<T>::side : Cuts<T>::side * t.from_row;
    if (stream && !(rows.apart && i.begin == 0)) {
      block<T, true>(t, plane, result, i, j, ahead);
    } else {
      block<T, false>(t, plane, result, i, j, ahead);
    }
  }
  if (stream) Vec<T>::fence();
}

constexpr std::int64_t run = 1024;  // columns of three rows that are one piece of work

// Three rows whose columns follow each other in the result, as the colours of a picture: two shuffles a vector.
template <class T>
void interleave_three(const PlaneTranspose& t, int index, int size) {
  using V = Vec<T>;
  constexpr int n = V::lanes;
  const std::int64_t runs = ceil_div(t.j, run);
  const Share mine = share(t.outer[0] * t.outer[1] * runs, index, size);
  for (std::int64_t unit = mine.begin; unit < mine.end; ++unit) {
    const std::int64_t outer = unit / runs, u = outer / t.outer[1], v = outer % t.outer[1];
    const T* const a = static_cast<const T*>(t.from) + u * t.from_outer[0] + v * t.from_outer[1];
    const T *const b = a + t.from_row, *const c = b + t.from_row;
    T* const to = static_cast<T*>(t.to) + u * t.to_outer[0] + v * t.to_outer[1];
    std::int64_t j = unit % runs * run;
    const std::int64_t end = smaller(j + run, t.j);
    for (; j + n <= end; j += n) {
      const auto first = V::load(a + j), second = V::load(b + j), third = V::load(c + j);
      V::store(to + 3 * j, interleave3<T, 0>(first, second, third));
      V::store(to + 3 * j + n, interleave3<T, 1>(first, second, third));
      V::store(to + 3 * j + 2 * n, interleave3<T, 2>(first, second, third));
    }
    for (; j < end; ++j) {
      to[3 * j] = a[j];
      to[3 * j + 1] = b[j];
      to[3 * j + 2] = c[j];
    }
  }
}

template <class T>
void transpose_share(const PlaneTranspose& t, bool stream, int index, int size) {
  t.i == 3 && t.to_row == 3 ? interleave_three<T>(t, index, size) : share_of<T>(t, stream, index, size);
}

}  // namespace

void transpose(const PlaneTranspose& what, bool stream, int threads) {
  auto member = [&](int index, int size) {
    if (what.element == 4) {
      transpose_share<float>(what, stream, index, size);
    } else {
      transpose_share<double>(what, stream, index, size);
    }
  };
  team(threads, member);
}

}  // namespace convkit::CONVKIT_ISA
