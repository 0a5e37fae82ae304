// From x to V: tiles [begin, end) and a range of channel blocks, in either layout.
//
//   V  [point][channels / lanes][tiles of the block][lanes]
//
// Inner NHWC tiles are read in place; tiles that reach over the border, and the last few channels, go through a copy in
// L1 that is padded with zeros. NCHW goes through a strip of `lanes` channels, transposed in registers into L1, which rolls
// along a row of tiles: a column is transposed once however many tiles read it.
#pragma once
#include "algorithms/winograd/geometry.hpp"

namespace convkit::CONVKIT_ISA {

template <class T>
struct InputStage {
  using V = Vec<T>;
  static constexpr int lanes = V::lanes;
  static constexpr int copied_blocks = 4;  // channel blocks that an edge tile copies at a time: it must stay in L1
  static constexpr int few_cols = 3;       // columns of a strip that are copied one by one
  static constexpr int tiles_ahead = 6;    // distance of the prefetch: the transform is bound by reading x

  const Geometry& g;
  const WinogradTile<T>& tile;
  const T* x;  // first channel of the group
  T* v;
  std::ptrdiff_t point_stride, block_stride;
  T* scratch;

  // Columns that the strip holds; a transpose may write `lanes` more.
  static std::int64_t strip_cols(const Geometry& g, const WinogradTile<T>& tile) {
    return larger<std::int64_t>(48, tile_span(g, tile) + 2 * lanes);
  }
  static std::int64_t tile_span(const Geometry& g, const WinogradTile<T>& tile) {
    return (tile.nx - 1) * g.dilation_w + 1;
  }
  static std::int64_t scratch_elements(const Geometry& g, const WinogradTile<T>& tile) {
    if (g.nhwc) return tile.ny * tile.nx * lanes * copied_blocks;
    return tile.ny * (strip_cols(g, tile) + lanes) * lanes;
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
    for (std::int64_t block = blocks.begin; block < blocks.end; ++block) {
      TilePlace place(g, begin);
      for (std::int64_t t = begin; t < end;) {
        const std::int64_t count = smaller(end - t, g.tiles_x - place.tx);
        roll_strip(place, block, count, v + block * block_stride + (v_tile + t - begin) * lanes);
        t += count;
        place.tx += count;
        if (place.tx == g.tiles_x) place.next_row(g);
      }
    }
  }

  // `count` tiles of one row of tiles from `place` on, one block of channels.
  void roll_strip(const TilePlace& place, std::int64_t block, std::int64_t count, T* out) const {
    const std::int64_t capacity = strip_cols(g, tile), span = tile_span(g, tile), step = tile.mx * g.dilation_w;
    const std::ptrdiff_t strip_row = (capacity + lanes) * lanes;
    const std::int64_t row = place.out_row(g, tile.my) - g.pad_top;
    const Inside rows = inside(row, tile.ny, g.dilation_h, g.x.h);
    const T* const planes = x + place.n * g.x.image + block * lanes * g.x.channel + row * g.x.row;
    const int channels = static_cast<int>(smaller<std::int64_t>(lanes, g.c - block * lanes));
    // Column `origin` of the image lies at the strip's start; [origin, filled) is there.
    std::int64_t origin = place.out_col(g, tile.mx) - g.pad_left, filled = origin;
    const std::int64_t last = origin + (count - 1) * step + span;
    for (std::int64_t i = 0; i < tile.ny; ++i) {
      if (i >= rows.begin && i < rows.end) continue;
      for (std::int64_t j = 0; j < capacity + lanes; ++j) V::store(scratch + i * strip_row + j * lanes, V::zero());
    }
    if (joins_rows() && count == g.tiles_x && larger(last, g.x.w) - origin <= capacity) {
      fill_rows(planes, channels, rows, origin, last);
      filled = last;
    }
    while (count > 0) {
      while (filled < last && filled - origin + lanes <= capacity) {
        T* const to = scratch + (filled - origin) * lanes;
        if (filled < 0 || filled >= g.x.w) {
          const std::int64_t n = filled < 0 ? smaller<std::int64_t>(-filled, lanes) : lanes;
          for (std::int64_t i = rows.begin; i < rows.end; ++i) {
            for (std::int64_t j = 0; j < n; ++j) V::store(to + i * strip_row + j * lanes, V::zero());
          }
          filled += n;
          continue;
        }
        const T* const from = planes + filled;
        // Where rows are whole vectors, loads are aligned but for halo columns, which are too few to transpose.
        const std::int64_t wanted = g.x.w % lanes == 0 ? lanes - filled % lanes : lanes;
        const std::int64_t n = smaller(smaller(wanted, last - filled), g.x.w - filled);
        if (n <= few_cols) {
          for (std::int64_t i = rows.begin; i < rows.end; ++i) {
            copy_cols(from + i * g.dilation_h * g.x.row, channels, n, to + i * strip_row);
          }
          filled += n;
        } else if (channels == lanes && filled + lanes <= g.x.w) {
          for (std::int64_t i = rows.begin; i < rows.end; ++i) {
            transpose(from + i * g.dilation_h * g.x.row, to + i * strip_row);
          }
          filled += wanted;
        } else {
          const int cols = static_cast<int>(smaller<std::int64_t>(lanes, g.x.w - filled));
          for (std::int64_t i = rows.begin; i < rows.end; ++i) {
            transpose_part(from + i * g.dilation_h * g.x.row, channels, cols, to + i * strip_row);
          }
          filled += cols;
        }
      }
      const std::int64_t ready = smaller(count, (filled - origin - span) / step + 1);
      tile.input({scratch, strip_row, g.dilation_w * lanes, step * lanes, nullptr, out, point_stride, lanes, ready});
      count -= ready;
      out += ready * lanes;
      origin += ready * step;
      if (count == 0) break;
      for (std::int64_t i = rows.begin; i < rows.end; ++i) {
        T* const strip = scratch + i * strip_row;
        for (std::int64_t j = 0; j < filled - origin; ++j) {
          V::store(strip + j * lanes, V::load(strip + (j + ready * step) * lanes));
        }
      }
    }
  }

  // Two rows or more of an image fit a vector: they are transposed together.
  bool joins_rows() const { return g.dilation_h == 1 && g.dilation_w == 1 && 2 * g.x.w <= lanes; }

  // Columns [origin, last) of all rows that exist, for rows as short as that.
  void fill_rows(const T* planes, int channels, Inside rows, std::int64_t origin, std::int64_t last) const {
    const std::ptrdiff_t strip_row = (strip_cols(g, tile) + lanes) * lanes;
    const std::int64_t end = smaller(last, g.x.w);
    for (std::int64_t i = rows.begin; i < rows.end; ++i) {
      T* const to = scratch + i * strip_row;
      for (std::int64_t j = origin; j < 0; ++j) V::store(to + (j - origin) * lanes, V::zero());
      for (std::int64_t j = end; j < last; ++j) V::store(to + (j - origin) * lanes, V::zero());
    }
    const std::int64_t stop = rows.end * g.x.w;
    std::int64_t row = rows.begin, col = 0;
    for (std::int64_t at = rows.begin * g.x.w; at < stop; at += lanes) {
      const int n = static_cast<int>(smaller<std::int64_t>(lanes, stop - at));
      typename V::Reg r[lanes];
      load_channels(planes + at, channels, n, r);
      V::transpose(r);
      CONVKIT_UNROLL
      for (int k = 0; k < lanes; ++k) {
        if (k < n) {
          // Columns that no tile reads land behind those that are read.
          V::store(scratch + row * strip_row + (col - origin) * lanes, r[k]);
          if (++col == g.x.w) col = 0, ++row;
        }
      }
    }
  }

  // `cols` columns of each channel; zeros for the channels that do not exist.
  CONVKIT_INLINE void load_channels(const T* from, int channels, int cols, typename V::Reg (&r)[lanes]) const {
    if (channels == lanes && cols == lanes) {
      CONVKIT_UNROLL
      for (int k = 0; k < lanes; ++k) r[k] = V::load(from + k * g.x.channel);
    } else {
      for (int k = 0; k < lanes; ++k) r[k] = k < channels ? V::load(from + k * g.x.channel, cols) : V::zero();
    }
  }

  void copy_cols(const T* from, int channels, std::int64_t cols, T* to) const {
    for (std::int64_t j = 0; j < cols; ++j) {
      for (int k = 0; k < channels; ++k) to[j * lanes + k] = from[j + k * g.x.channel];
      for (int k = channels; k < lanes; ++k) to[j * lanes + k] = T(0);
    }
  }

  __attribute__((noinline)) void transpose(const T* from, T* to) const {
    typename V::Reg r[lanes];
    CONVKIT_UNROLL
    for (int k = 0; k < lanes; ++k) r[k] = V::load(from + k * g.x.channel);
    V::transpose(r);
    CONVKIT_UNROLL
    for (int k = 0; k < lanes; ++k) V::store(to + k * lanes, r[k]);
  }

  // `cols` columns of the first `channels` channels; zeros for the channels that do not exist.
  void transpose_part(const T* from, int channels, int cols, T* to) const {
    typename V::Reg r[lanes];
    load_channels(from, channels, cols, r);
    V::transpose(r);
    CONVKIT_UNROLL
    for (int k = 0; k < lanes; ++k) V::store(to + k * lanes, r[k]);
  }
};

}  // namespace convkit::CONVKIT_ISA
