// The destination's fastest dimension is the inner loop. Where the source runs fastest along another one, the two are
// walked in square tiles, so that every cache line touched on either side is used up before it is evicted.
#include "strided_copy.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "../parallel.hpp"
#include "../transpose.hpp"

namespace convkit::bindings {
namespace {

constexpr std::int64_t tile = 32;
constexpr std::int64_t least_bytes_per_thread = std::int64_t{1} << 18;

// Dimension 3 is the destination's fastest, dimension 2 the source's where that is another one. `rows` counts
// everything but the tiled pair, times the tiles along dimension 2.
struct Walk {
  StridedCopy what;
  std::int64_t tiles;
  std::int64_t units;
};

template <class Element>
void copy_row(char* to, std::int64_t to_stride, const char* from, std::int64_t from_stride, std::int64_t count) {
  constexpr std::int64_t width = sizeof(Element);
  if (to_stride == width && from_stride == width) {
    std::memcpy(to, from, static_cast<std::size_t>(count * width));
    return;
  }
  if (to_stride == width && from_stride == -width) {  // constant strides, so that the compiler reverses whole vectors
    for (std::int64_t i = 0; i < count; ++i) std::memcpy(to + i * width, from - i * width, width);
    return;
  }
  for (std::int64_t i = 0; i < count; ++i) std::memcpy(to + i * to_stride, from + i * from_stride, width);
}

template <class Element>
void copy_units(const Walk& walk, std::int64_t begin, std::int64_t end) {
  const StridedCopy& c = walk.what;
  for (std::int64_t unit = begin; unit < end; ++unit) {
    const std::int64_t i2 = unit % walk.tiles * tile;
    const std::int64_t i1 = unit / walk.tiles % c.sizes[1];
    const std::int64_t i0 = unit / walk.tiles / c.sizes[1];
    const std::int64_t last = std::min(i2 + tile, c.sizes[2]);
    char* to = c.to + i0 * c.to_strides[0] + i1 * c.to_strides[1];
    const char* from = c.from + i0 * c.from_strides[0] + i1 * c.from_strides[1];
    const bool both_along_rows = std::abs(c.from_strides[3]) <= std::abs(c.from_strides[2]);
    const std::int64_t step = both_along_rows ? c.sizes[3] : tile;
    for (std::int64_t i3 = 0; i3 < c.sizes[3]; i3 += step) {
      const std::int64_t count = std::min(step, c.sizes[3] - i3);
      for (std::int64_t row = i2; row < last; ++row) {
        copy_row<Element>(to + row * c.to_strides[2] + i3 * c.to_strides[3], c.to_strides[3],
                          from + row * c.from_strides[2] + i3 * c.from_strides[3], c.from_strides[3], count);
      }
    }
  }
}

void copy_share(void* context, int index, int size) {
  const Walk& walk = *static_cast<const Walk*>(context);
  const std::int64_t begin = walk.units * index / size;
  const std::int64_t end = walk.units * (index + 1) / size;
  if (walk.what.element == 4) {
    copy_units<std::uint32_t>(walk, begin, end);
  } else {
    copy_units<std::uint64_t>(walk, begin, end);
  }
}

struct Dimension {
  std::int64_t size, to, from;
};

// Whether the last two of `count` dimensions are a transpose of planes that registers can do, and the others plain loops.
bool is_plane_transpose(const StridedCopy& what, const Dimension* dims, int count) {
  if (count < 2 || dims[count - 1].to != what.element || dims[count - 2].from != what.element) return false;
  if (reinterpret_cast<std::uintptr_t>(what.from) % what.element) return false;
  for (int i = 0; i < count; ++i) {
    if (dims[i].to % what.element || dims[i].from % what.element) return false;
  }
  return true;
}

PlaneTranspose plane_transpose(const StridedCopy& what, const Dimension* dims, int count) {
  PlaneTranspose t{};
  t.to = what.to;
  t.from = what.from;
  t.element = what.element;
  for (int i = 0; i < 2; ++i) {
    const int at = i - (4 - count);
    t.outer[i] = at >= 0 ? dims[at].size : 1;
    t.to_outer[i] = at >= 0 ? dims[at].to / what.element : 0;
    t.from_outer[i] = at >= 0 ? dims[at].from / what.element : 0;
  }
  t.i = dims[count - 1].size;
  t.j = dims[count - 2].size;
  t.from_row = dims[count - 1].from / what.element;
  t.to_row = dims[count - 2].to / what.element;
  return t;
}

}  // namespace

void copy(const StridedCopy& what, int threads) {
  Dimension dims[4];
  int count = 0;
  std::int64_t bytes = what.element;
  for (int i = 0; i < 4; ++i) {
    if (what.sizes[i] == 0) return;
    bytes *= what.sizes[i];
    if (what.sizes[i] != 1) dims[count++] = {what.sizes[i], what.to_strides[i], what.from_strides[i]};
  }
  std::stable_sort(dims, dims + count,
                   [](const Dimension& a, const Dimension& b) { return std::abs(a.to) > std::abs(b.to); });
  // Neighbours that form one run on both sides become one dimension.
  int merged = 0;
  for (int i = 1; i < count; ++i) {
    Dimension& outer = dims[merged];
    if (outer.to == dims[i].to * dims[i].size && outer.from == dims[i].from * dims[i].size) {
      outer = {outer.size * dims[i].size, dims[i].to, dims[i].from};
    } else {
      dims[++merged] = dims[i];
    }
  }
  count = count == 0 ? 0 : merged + 1;
  if (count > 2) {
    // The source's fastest dimension next to the destination's.
    int fastest = 0;
    for (int i = 1; i < count - 1; ++i) {
      if (std::abs(dims[i].from) <= std::abs(dims[fastest].from)) fastest = i;
    }
    std::rotate(dims + fastest, dims + fastest + 1, dims + count - 1);
  }
  if (is_plane_transpose(what, dims, count)) return transpose(plane_transpose(what, dims, count), threads);
  Walk walk{what, 0, 0};  // sizes are padded with ones in front
  for (int i = 0; i < 4; ++i) {
    const int from_end = i - (4 - count);
    const Dimension d = from_end >= 0 ? dims[from_end] : Dimension{1, 0, 0};
    walk.what.sizes[i] = d.size;
    walk.what.to_strides[i] = d.to;
    walk.what.from_strides[i] = d.from;
  }
  walk.tiles = (walk.what.sizes[2] + tile - 1) / tile;
  walk.units = walk.what.sizes[0] * walk.what.sizes[1] * walk.tiles;
  const std::int64_t useful = std::min(walk.units, bytes / least_bytes_per_thread);
  const int team = static_cast<int>(std::max<std::int64_t>(1, std::min<std::int64_t>(threads, useful)));
  run_team(team, copy_share, &walk);
}

}  // namespace convkit::bindings
