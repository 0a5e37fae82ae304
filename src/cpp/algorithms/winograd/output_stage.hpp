// From M to y: tiles [begin, end) and one panel of outputs, in either layout, with bias, residual and activation.
//
// Inner NHWC tiles of whole vectors are written in place, past the caches where y is large and aligned. Everything else is
// transformed into L1 first: tiles at the border and partial vectors to be stored in part, NCHW to be transposed back.
#pragma once
#include "algorithms/winograd/geometry.hpp"
#include "microkernels/activation.hpp"

namespace convkit::CONVKIT_ISA {

template <class T>
struct OutputStage {
  using V = Vec<T>;
  static constexpr int lanes = V::lanes;

  const Geometry& g;
  const WinogradTile<T>& tile;
  const Epilogue& epilogue;
  T* y;               // first output of the group
  const T* residual;  // likewise; or null
  const T* bias;      // of the group's outputs, padded with zeros to whole vectors
  bool stream;        // y is large
  T* scratch;

  // Tiles whose columns fill whole vectors, so that NCHW stores can be aligned; as many as make long runs of stores.
  static std::int64_t strip_tiles(const WinogradTile<T>& tile) {
    std::int64_t tiles = lanes;
    for (int m = tile.mx; m % 2 == 0 && tiles > 1; m /= 2) tiles /= 2;
    while (2 * tiles * tile.mx <= 4 * lanes) tiles *= 2;
    return tiles;
  }
  // Rows that are not whole vectors, but as long as a row of tiles, are stored as if they were one: all but the ends of
  // the tile row is aligned again.
  static bool joins_rows(const Geometry& g, const WinogradTile<T>& tile) {
    return g.dilation_h == 1 && g.dilation_w == 1 && g.y.w % lanes != 0 && g.y.w % tile.mx == 0 &&
           tile.my * g.y.w * V::bytes <= 32 << 10;
  }
  static std::int64_t scratch_elements(const Geometry& g, const WinogradTile<T>& tile) {
    if (g.nhwc) return tile.my * tile.mx * lanes;
    const std::int64_t strip = tile.my * round_up(strip_tiles(tile) * tile.mx, lanes);
    return (larger(strip, joins_rows(g, tile) ? tile.my * g.y.w : 0) + lanes) * lanes;
  }

  // M of the panel [point][tiles][vectors * lanes] starts with tile `begin`; the panel's first output is `o`.
  void run(std::int64_t begin, std::int64_t end, const T* m, std::ptrdiff_t point_stride, std::int64_t o,
           int vectors) const {
    if (g.nhwc) {
      run_nhwc(begin, end, m, point_stride, o, vectors);
    } else {
      run_nchw(begin, end, m, point_stride, o, vectors);
    }
  }

 private:
  T lo() const { return static_cast<T>(epilogue.lo); }
  T hi() const { return static_cast<T>(epilogue.hi); }
  bool clamps() const { return epilogue.activation == Activation::clamp; }
  bool activates() const { return outlasts_store(epilogue); }
  static bool aligned(const T* p) { return reinterpret_cast<std::uintptr_t>(p) % V::bytes == 0; }

  void run_nhwc(std::int64_t begin, std::int64_t end, const T* m, std::ptrdiff_t point_stride, std::int64_t o,
                int vectors) const {
    const std::ptrdiff_t row_stride = g.dilation_h * g.y.row, col_stride = g.dilation_w * g.y.col;
    const int panel = vectors * lanes;
    const int width = static_cast<int>(smaller<std::int64_t>(panel, g.o - o));
    const bool whole = width == panel;
    const bool streams = stream && !activates() && g.y.col % lanes == 0 && aligned(y + o);
    TilePlace place(g, begin);
    for (std::int64_t t = begin; t < end; ++t, m += panel, place.next(g)) {
      const std::int64_t row = place.out_row(g, tile.my), col = place.out_col(g, tile.mx);
      const Inside rows = inside(row, tile.my, g.dilation_h, g.y.h), cols = inside(col, tile.mx, g.dilation_w, g.y.w);
      const std::ptrdiff_t at = place.n * g.y.image + row * g.y.row + col * g.y.col + o;
      T* const out = y + at;
      const T* const add = residual ? residual + at : nullptr;
      if (whole && rows.end == tile.my && cols.end == tile.mx) {
        tile.output({m, point_stride, lanes, out, row_stride, col_stride, lanes, bias + o, lanes, add, lo(), hi(),
                     clamps(), streams, vectors});
      } else {
        for (int j = 0; j < vectors; ++j) {
          tile.output({m + j * lanes, point_stride, lanes, scratch, tile.mx * lanes, lanes, 0, bias + o + j * lanes, 0,
                       nullptr, lo(), hi(), clamps() && !residual, false, 1});
          store_part(out + j * lanes, add ? add + j * lanes : nullptr, rows.end, cols.end,
                     smaller(lanes, width - j * lanes), streams);
        }
      }
      if (activates()) {
        for (std::int64_t i = 0; i < rows.end; ++i) {
          activate_rows(out + i * row_stride, cols.end, col_stride, width, epilogue);
        }
      }
    }
  }

  // The pixels of one vector of outputs that exist, from scratch [my][mx][lanes].
  void store_part(T* out, const T* add, std::int64_t rows, std::int64_t cols, int n, bool streams) const {
    const auto low = V::set1(lo()), high = V::set1(hi());
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j < cols; ++j) {
        const std::ptrdiff_t at = i * g.dilation_h * g.y.row + j * g.dilation_w * g.y.col;
        auto value = V::load(scratch + (i * tile.mx + j) * lanes);
        if (add) {
          value += V::load(add + at, n);
          if (clamps()) value = V::min(high, V::max(low, value));
        }
        if (n < lanes) {
          V::store(out + at, value, n);
        } else if (streams) {
          V::stream(out + at, value);
        } else {
          V::store(out + at, value);
        }
      }
    }
  }

  void run_nchw(std::int64_t begin, std::int64_t end, const T* m, std::ptrdiff_t point_stride, std::int64_t o,
                int vectors) const {
    const std::int64_t most = strip_tiles(tile);
    const int panel = vectors * lanes;
    for (int v = 0; v < vectors; ++v, o += lanes, m += lanes) {
      const int outputs = static_cast<int>(smaller<std::int64_t>(lanes, g.o - o));
      TilePlace place(g, begin);
      for (std::int64_t t = begin; t < end;) {
        const bool join = joins_rows(g, tile) && place.tx == 0 && end - t >= g.tiles_x;
        const std::int64_t count =
            join ? g.tiles_x : smaller(smaller(end - t, g.tiles_x - place.tx), most - place.tx % most);
        const std::int64_t row = place.out_row(g, tile.my), col = place.out_col(g, tile.mx);
        const Inside rows = inside(row, tile.my, g.dilation_h, g.y.h);
        const Inside cols = inside(col, count * tile.mx, g.dilation_w, g.y.w);
        const std::int64_t width = join ? g.y.w : round_up(count * tile.mx, lanes);
        tile.output({m + (t - begin) * panel, point_stride, panel, scratch, width * lanes, lanes, tile.mx * lanes,
                     bias + o, 0, nullptr, lo(), hi(), clamps() && !residual, false, count});
        const std::ptrdiff_t at = place.n * g.y.image + o * g.y.channel + row * g.y.row + col;
        if (join) transpose_row(scratch, rows.end * g.y.w, outputs, y + at, residual ? residual + at : nullptr);
        for (std::int64_t i = join ? rows.end : 0; i < rows.end; ++i) {
          const std::ptrdiff_t row_at = at + i * g.dilation_h * g.y.row;
          if (g.dilation_w == 1) {
            transpose_row(scratch + i * width * lanes, cols.end, outputs, y + row_at,
                          residual ? residual + row_at : nullptr);
          } else {
            scatter_row(scratch + i * width * lanes, cols.end, outputs, y + row_at,
                        residual ? residual + row_at : nullptr);
          }
        }
        if (activates()) activate_columns(y + at, rows.end, cols.end, outputs);
        t += count;
        place.tx += count;
        if (place.tx == g.tiles_x) place.next_row(g);
      }
    }
  }

  // strip [cols][lanes] to `outputs` rows of y.
  void transpose_row(const T* strip, std::int64_t cols, int outputs, T* out, const T* add) const {
    const auto low = V::set1(lo()), high = V::set1(hi());
    const bool streams = stream && !activates() && g.y.channel % lanes == 0 && aligned(out);
    for (std::int64_t j = 0; j < cols; j += lanes) {
      const int n = static_cast<int>(smaller<std::int64_t>(cols - j, lanes));
      typename V::Reg r[lanes];
      CONVKIT_UNROLL
      for (int k = 0; k < lanes; ++k) r[k] = V::load(strip + (j + k) * lanes);
      V::transpose(r);
      if (n == lanes && outputs == lanes && !add) {
        if (streams) {
          CONVKIT_UNROLL
          for (int k = 0; k < lanes; ++k) V::stream(out + j + k * g.y.channel, r[k]);
        } else {
          CONVKIT_UNROLL
          for (int k = 0; k < lanes; ++k) V::store(out + j + k * g.y.channel, r[k]);
        }
        continue;
      }
      for (int k = 0; k < outputs; ++k) {
        if (add) {
          r[k] += V::load(add + j + k * g.y.channel, n);
          if (clamps()) r[k] = V::min(high, V::max(low, r[k]));
        }
        V::store(out + j + k * g.y.channel, r[k], n);
      }
    }
  }

  // The same where columns are a dilation apart.
  void scatter_row(const T* strip, std::int64_t cols, int outputs, T* out, const T* add) const {
    for (int k = 0; k < outputs; ++k) {
      for (std::int64_t j = 0; j < cols; ++j) {
        const std::ptrdiff_t at = j * g.dilation_w + k * g.y.channel;
        T value = strip[j * lanes + k];
        if (add) {
          value += add[at];
          if (clamps()) {
            value = lo() > value ? lo() : value;
            value = hi() < value ? hi() : value;
          }
        }
        out[at] = value;
      }
    }
  }

  void activate_columns(T* out, std::int64_t rows, std::int64_t cols, int outputs) const {
    for (std::int64_t i = 0; i < rows; ++i) {
      T* const row = out + i * g.dilation_h * g.y.row;
      if (g.dilation_w == 1) {
        activate_rows(row, outputs, g.y.channel, cols, epilogue);
      } else {
        for (std::int64_t j = 0; j < cols; ++j)
          activate_rows(row + j * g.dilation_w, outputs, g.y.channel, 1, epilogue);
      }
    }
  }
};

}  // namespace convkit::CONVKIT_ISA
