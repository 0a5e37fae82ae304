// Which lines of x the next block will read: they are fetched into L2 while the products of this one run. The input
// transform has too little arithmetic to hide its own misses; the products have load slots to spare.
#pragma once
#include "algorithms/winograd/geometry.hpp"
#include "microkernels/winograd_gemm.hpp"

namespace convkit::CONVKIT_ISA {

// The region that tiles [tiles.begin, tiles.end) read, halo included; `x` is the group's first channel.
template <class T>
Fetch input_region(const Geometry& g, const WinogradTile<T>& tile, const T* x, Share tiles) {
  Fetch fetch;
  if (g.dilation_h > 1 || g.dilation_w > 1 || (g.nhwc && g.groups > 1) || g.x.h == 0 || g.x.w == 0) return fetch;
  constexpr std::int64_t element = sizeof(T), line = 64;
  const TilePlace place(g, tiles.begin);
  const std::int64_t count = tiles.end - tiles.begin;
  const std::int64_t tile_rows = ceil_div(count, g.tiles_x);
  const Inside rows = inside(place.out_row(g, tile.my) - g.pad_top, (tile_rows - 1) * tile.my + tile.ny, 1, g.x.h);
  const std::int64_t wanted_cols = tile_rows > 1 ? g.x.w + g.pad_left : (count - 1) * tile.mx + tile.nx;
  const std::int64_t first_col = place.out_col(g, tile.mx) - g.pad_left;
  const Inside cols = inside(first_col, wanted_cols, 1, g.x.w);
  const std::int64_t height = rows.end - rows.begin, width = cols.end - cols.begin;
  if (height <= 0 || width <= 0) return fetch;
  const std::int64_t row = place.out_row(g, tile.my) - g.pad_top + rows.begin, col = first_col + cols.begin;
  const std::int64_t pixel = g.nhwc ? g.c * element : element;
  // Whole rows follow one another.
  const bool whole = width == g.x.w;
  fetch.lines = ceil_div(width * pixel * (whole ? height : 1), line) + 1;
  fetch.rows = whole ? 1 : height;
  fetch.outer = g.nhwc ? 1 : g.c;
  fetch.row_stride = g.x.row * element;
  fetch.outer_stride = g.x.channel * element;
  const auto address = reinterpret_cast<std::uintptr_t>(x + place.n * g.x.image + row * g.x.row + col * g.x.col);
  fetch.start(address / line * line);
  return fetch;
}

}  // namespace convkit::CONVKIT_ISA
