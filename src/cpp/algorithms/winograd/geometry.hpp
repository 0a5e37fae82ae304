// Where tiles lie: a stride-1 convolution cut into m_y x m_x tiles of outputs. A dilated convolution is
// dilation_h * dilation_w interleaved ordinary ones, its phases: tiles are those of one phase, pixels of a tile are a
// dilation apart.
#pragma once
#include "algorithms/sharing.hpp"
#include "microkernels/winograd_transforms.hpp"

namespace convkit::CONVKIT_ISA {

// A dense tensor of one group: strides in elements.
struct TensorShape {
  std::int64_t h, w;
  std::ptrdiff_t image, row, col, channel;
};

struct Geometry {
  bool nhwc;
  std::int64_t n, c, o, groups;  // c and o of one group
  TensorShape x, y;
  std::int64_t pad_top, pad_left, dilation_h, dilation_w;
  std::int64_t phases_y, phases_x, tiles_y, tiles_x;  // tiles of one phase
  std::int64_t tiles;                                 // of all images and phases
};

inline TensorShape tensor_shape(bool nhwc, std::int64_t c, std::int64_t h, std::int64_t w) {
  if (nhwc) return {h, w, h * w * c, w * c, c, 1};
  return {h, w, c * h * w, w, 1, h * w};
}

template <class T>
Geometry make_geometry(const ConvProblem& p, const WinogradTile<T>& tile) {
  Geometry g;
  g.nhwc = p.layout == Layout::nhwc;
  g.n = p.n;
  g.c = p.c / p.groups;
  g.o = p.o / p.groups;
  g.groups = p.groups;
  g.x = tensor_shape(g.nhwc, p.c, p.h, p.w);
  g.y = tensor_shape(g.nhwc, p.o, p.oh, p.ow);
  g.pad_top = p.pad_top;
  g.pad_left = p.pad_left;
  g.dilation_h = p.dilation_h;
  g.dilation_w = p.dilation_w;
  g.phases_y = smaller(p.dilation_h, p.oh);
  g.phases_x = smaller(p.dilation_w, p.ow);
  g.tiles_y = ceil_div(ceil_div(p.oh, p.dilation_h), tile.my);
  g.tiles_x = ceil_div(ceil_div(p.ow, p.dilation_w), tile.mx);
  g.tiles = g.n * g.phases_y * g.phases_x * g.tiles_y * g.tiles_x;
  return g;
}

// One tile, and the way to the next: counters instead of divisions, since a tile of few channels takes few cycles.
struct TilePlace {
  std::int64_t n, phase_y, phase_x, ty, tx;

  TilePlace(const Geometry& g, std::int64_t index) {
    tx = index % g.tiles_x;
    index /= g.tiles_x;
    ty = index % g.tiles_y;
    index /= g.tiles_y;
    phase_x = index % g.phases_x;
    index /= g.phases_x;
    phase_y = index % g.phases_y;
    n = index / g.phases_y;
  }

  CONVKIT_INLINE void next(const Geometry& g) {
    if (++tx < g.tiles_x) return;
    next_row(g);
  }
  // The first tile of the next row of tiles.
  CONVKIT_INLINE void next_row(const Geometry& g) {
    tx = 0;
    if (++ty < g.tiles_y) return;
    ty = 0;
    if (++phase_x < g.phases_x) return;
    phase_x = 0;
    if (++phase_y < g.phases_y) return;
    phase_y = 0;
    ++n;
  }

  CONVKIT_INLINE std::int64_t out_row(const Geometry& g, int my) const { return phase_y + g.dilation_h * ty * my; }
  CONVKIT_INLINE std::int64_t out_col(const Geometry& g, int mx) const { return phase_x + g.dilation_w * tx * mx; }
};

// The part of `count` pixels, `step` apart from `first`, that lies in [0, size).
struct Inside {
  std::int64_t begin, end;
};
CONVKIT_INLINE Inside inside(std::int64_t first, std::int64_t count, std::int64_t step, std::int64_t size) {
  const std::int64_t begin = first >= 0 ? 0 : ceil_div(-first, step);
  const std::int64_t end = first >= size ? 0 : ceil_div(size - first, step);
  const std::int64_t last = smaller(count, end);
  return {smaller(begin, larger<std::int64_t>(last, 0)), larger<std::int64_t>(last, 0)};
}

}  // namespace convkit::CONVKIT_ISA
