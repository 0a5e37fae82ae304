// From x to V: tiles [begin, end) and a range of channel blocks, in either layout.
//
//   V  [point][channels / lanes][tiles of the block][lanes]
//
// Inner NHWC tiles are read in place; tiles that reach over the border, and the last few channels, go through a copy in
// L1 that is padded with zeros. NCHW goes through a strip of `lanes` channels, transposed in registers into L1, from which
// all tiles of a row are read: halo columns are transposed once.
#pragma once
#include "algorithms/winograd/geometry.hpp"

namespace convkit::CONVKIT_ISA {

template <class T>
struct InputStage {
  using V = Vec<T>;
  static constexpr int lanes = V::lanes;
  static constexpr int copied_blocks = 4;  // channel blocks that an edge tile copies at a time: it must stay in L1
  static constexpr int tiles_ahead = 6;    // distance of the prefetch: the transform is bound by reading x

  const Geometry& g;
  const WinogradTile<T>& tile;
  const T* x;  // first channel of the group
  T* v;
  std::ptrdiff_t point_stride, block_stride;
  T* scratch;

  static std::int64_t strip_tiles(const WinogradTile<T>& tile) {
    return larger(1, (4 * lanes - tile.nx) / tile.mx + 1);
  }

  static std::int64_t scratch_elements(const Geometry& g, const WinogradTile<T>& tile) {
    if (g.nhwc) return tile.ny * tile.nx * lanes * copied_blocks;
    const std::int64_t cols = ((strip_tiles(tile) - 1) * tile.mx + tile.nx - 1) * g.dilation_w + 1;
    return tile.ny * round_up(cols, lanes) * lanes;
  }

  // Tiles [begin, end); the first lies at row `v_tile` of V.
  void run(std::int64_t begin, std::int64_t end, std::int64_t v_tile, Share blocks) const {
    if (g.nhwc) {
      run_nhwc(begin, end, v_tile, blocks);
    } else {
      run_nchw(begin, end, v_tile, blocks);
    }
  }

 private:
  void run_nhwc(std::int64_t begin, std::int64_t end, std::int64_t v_tile, Share blocks) const {
    TilePlace place(g, begin), later(g, smaller(begin + tiles_ahead, g.tiles - 1));
    std::int64_t later_index = begin + tiles_ahead;
    const std::ptrdiff_t row_stride = g.dilation_h * g.x.row, col_stride = g.dilation_w * g.x.col;
    const std::int64_t whole_end = smaller(blocks.end, g.c / lanes);
    const std::int64_t lowest = g.x.h - 1 - (tile.my - 1) * g.dilation_h;
    const std::int64_t rightmost = g.x.w - 1 - (tile.mx - 1) * g.dilation_w;
    for (std::int64_t t = begin; t < end; ++t, ++v_tile) {
      const std::int64_t row = place.out_row(g, tile.my) - g.pad_top, col = place.out_col(g, tile.mx) - g.pad_left;
      const T* const image = x + place.n * g.x.image;
      const T* ahead = nullptr;
      if (lowest >= 0 && rightmost >= 0) {
        ahead = x + later.n * g.x.image + smaller(later.out_row(g, tile.my), lowest) * g.x.row +
                smaller(later.out_col(g, tile.mx), rightmost) * g.x.col + blocks.begin * lanes;
      }
      T* const out = v + v_tile * lanes;
      std::int64_t block = blocks.begin;
      if (row >= 0 && col >= 0 && row + (tile.ny - 1) * g.dilation_h < g.x.h &&
          col + (tile.nx - 1) * g.dilation_w < g.x.w && whole_end > block) {
        tile.input({image + row * g.x.row + col * g.x.col + block * lanes, row_stride, col_stride, lanes, ahead,
                    out + block * block_stride, point_stride, block_stride, whole_end - block});
        block = whole_end;
      }
      for (; block < blocks.end; block += copied_blocks) {
        const std::int64_t count = smaller<std::int64_t>(copied_blocks, blocks.end - block);
        copy_tile(image, row, col, block * lanes, smaller(count * lanes, g.c - block * lanes), count * lanes);
        tile.input({scratch, tile.nx * count * lanes, count * lanes, lanes, nullptr, out + block * block_stride,
                    point_stride, block_stride, count});
      }
      place.next(g);
      if (++later_index < g.tiles) later.next(g);
    }
  }

  // Pixels of one tile, zero outside the image and beyond the last channel, to scratch [ny][nx][width].
  void copy_tile(const T* image, std::int64_t row, std::int64_t col, std::int64_t channel, std::int64_t channels,
                 std::int64_t width) const {
    const Inside rows = inside(row, tile.ny, g.dilation_h, g.x.h), cols = inside(col, tile.nx, g.dilation_w, g.x.w);
    T* out = scratch;
    for (std::int64_t i = 0; i < tile.ny; ++i) {
      for (std::int64_t j = 0; j < tile.nx; ++j) {
        if (i < rows.begin || i >= rows.end || j < cols.begin || j >= cols.end) {
          for (std::int64_t k = 0; k < width; k += lanes) V::store(out + k, V::zero());
        } else {
          const T* in = image + (row + i * g.dilation_h) * g.x.row + (col + j * g.dilation_w) * g.x.col + channel;
          std::int64_t k = 0;
          for (; k + lanes <= channels; k += lanes) V::store(out + k, V::load(in + k));
          for (; k < width; k += lanes) V::store(out + k, V::load(in + k, static_cast<int>(channels - k)));
        }
        out += width;
      }
    }
  }

  void run_nchw(std::int64_t begin, std::int64_t end, std::int64_t v_tile, Share blocks) const {
    const std::int64_t most = strip_tiles(tile);
    for (std::int64_t block = blocks.begin; block < blocks.end; ++block) {
      TilePlace place(g, begin);
      T* const out = v + block * block_stride;
      for (std::int64_t t = begin; t < end;) {
        const std::int64_t count = smaller(smaller(end - t, g.tiles_x - place.tx), most);
        const std::int64_t row = place.out_row(g, tile.my) - g.pad_top, col = place.out_col(g, tile.mx) - g.pad_left;
        const std::int64_t cols = ((count - 1) * tile.mx + tile.nx - 1) * g.dilation_w + 1;
        const std::int64_t width = round_up(cols, lanes);
        const T* const planes = x + place.n * g.x.image + block * lanes * g.x.channel;
        const int channels = static_cast<int>(smaller<std::int64_t>(lanes, g.c - block * lanes));
        for (std::int64_t i = 0; i < tile.ny; ++i) {
          const std::int64_t r = row + i * g.dilation_h;
          transpose_row(r >= 0 && r < g.x.h ? planes + r * g.x.row : nullptr, channels, col, cols,
                        scratch + i * width * lanes);
        }
        tile.input({scratch, width * lanes, g.dilation_w * lanes, tile.mx * g.dilation_w * lanes, nullptr,
                    out + (v_tile + t - begin) * lanes, point_stride, lanes, count});
        t += count;
        place.tx += count;
        if (place.tx == g.tiles_x) place.next_row(g);
      }
    }
  }

  // Columns [col, col + cols) of `lanes` channels to out [cols][lanes], zeros outside the image; `row` null: all zeros.
  void transpose_row(const T* row, int channels, std::int64_t col, std::int64_t cols, T* out) const {
    std::int64_t begin = smaller(larger<std::int64_t>(-col, 0), cols);
    std::int64_t end = larger(smaller(g.x.w - col, cols), begin);
    if (!row) begin = end = cols;
    for (std::int64_t j = 0; j < begin; ++j) V::store(out + j * lanes, V::zero());
    for (std::int64_t j = end; j < cols; ++j) V::store(out + j * lanes, V::zero());
    std::int64_t j = begin;
    if (channels == lanes) {
      for (; j + lanes <= end; j += lanes) {
        typename V::Reg r[lanes];
        CONVKIT_UNROLL
        for (int k = 0; k < lanes; ++k) r[k] = V::load(row + col + j + k * g.x.channel);
        V::transpose(r);
        CONVKIT_UNROLL
        for (int k = 0; k < lanes; ++k) V::store(out + (j + k) * lanes, r[k]);
      }
    }
    for (; j < end; j += lanes) {
      const int n = static_cast<int>(smaller<std::int64_t>(end - j, lanes));
      typename V::Reg r[lanes];
      for (int k = 0; k < lanes; ++k) r[k] = k < channels ? V::load(row + col + j + k * g.x.channel, n) : V::zero();
      V::transpose(r);
      for (int k = 0; k < n; ++k) V::store(out + (j + k) * lanes, r[k]);
    }
  }
};

}  // namespace convkit::CONVKIT_ISA
