// What weight gradients read: chunks of output pixels, the inputs under them as strips, their gradients as panels.
//
// A chunk is a number of whole output rows, counted over images, or a piece of a single long one. Its strip holds the input
// rows that some tap reads, one block of channels after the other: [block][row][plane][column][channels of a block], so
// that for a given tap the inputs of a run of output pixels lie at constant distance, on lines of their own. Columns of a
// strided convolution are sorted into planes by their remainder, which leaves every run dense.
//
// Small images of a large batch are `batched`: a chunk is a number of whole images, and a run goes over the images at one
// place of the output, since their rows are too short to be runs: [block][row][plane][column][image][channels].
//
// With very few channels a block would not fill a register tile. Then the strip is `narrow`: rows stay as NHWC has them,
// and all taps of a filter row together are kw * channels consecutive elements from the pixel's first.
#pragma once
#include "algorithms/gemm/columns.hpp"
#include "microkernels/outer_tile.hpp"
#include "microkernels/transpose_block.hpp"

namespace convkit::CONVKIT_ISA {

// Channels in a block: whole tiles of 6, 5 or 4 rows, and few vectors.
template <class T>
inline constexpr int channel_block = Vec<T>::lanes == 16 ? 16 : 3 * Vec<T>::lanes;

// Output rows [row, row + rows) of one image, columns [first, first + count): part of a chunk. Stored rows begin at element
// `stored` of the strip, pixels at `pixel` of the panel.
struct Segment {
  std::int64_t image, row, rows, first, count, stored, pixel;
};

template <class T>
struct Strips {
  const ConvProblem& p;
  std::int64_t channels, outputs;  // of a group
  bool narrow, batched;
  std::int64_t block, blocks;   // channels in a block, blocks in a group
  std::int64_t filter_columns;  // taps of a filter row that are products of their own
  std::int64_t block_rows;  // rows of dW that one of them adds to: channels of a block, padded; narrow: kw * channels
  std::int64_t row_step, tap_step;    // stored rows from output row to output row, from tap to tap
  std::int64_t planes, plane_step;    // see `column`
  std::int64_t columns, rows;         // most columns of a plane and most stored rows
  std::int64_t pieces, chunk_rows;    // of an output row; of a chunk
  std::int64_t images;                // batched: most in a chunk; else 1
  std::int64_t chunks, chunk_pixels;  // in all; most in one

  // `vector`: a block is one vector, whatever the channels.
  CONVKIT_INLINE Strips(const ConvProblem& problem, std::int64_t pixels, bool vector = false)
      : p(problem), channels(problem.c / problem.groups), outputs(problem.o / problem.groups) {
    narrow = !vector && channels < 6 && p.kw > 1 && p.dilation_w == 1;
    block = vector ? Vec<T>::lanes : narrow ? channels : smaller<std::int64_t>(channels, channel_block<T>);
    blocks = ceil_div(channels, block);
    filter_columns = narrow ? 1 : p.kw;
    block_rows = narrow ? p.kw * channels : block;
    // Taps that reach into the next output pixel's inputs share them; others store what they read, and only that.
    const bool shared_rows = (p.kh - 1) * p.dilation_h >= p.stride_h;
    row_step = shared_rows ? p.stride_h : p.kh;
    tap_step = shared_rows ? p.dilation_h : 1;
    const bool shared_columns = (p.kw - 1) * p.dilation_w >= p.stride_w;
    planes = narrow ? 1 : shared_columns ? p.stride_w : p.kw;
    plane_step = shared_columns ? 1 : p.dilation_w;
    pieces = ceil_div(p.ow, larger<std::int64_t>(2 * pixels, 1));
    batched = !narrow && !vector && p.ow <= 8 && p.n >= 2 * p.ow;
    images = 1;
    if (batched) {
      const std::int64_t wanted = larger<std::int64_t>(pixels / (p.oh * p.ow), p.ow);
      chunks = ceil_div(p.n, wanted);
      images = ceil_div(p.n, chunks);
      chunk_rows = p.oh;
      chunk_pixels = images * p.oh * p.ow;
      columns = stored_columns(p.ow);
      rows = (p.oh - 1) * row_step + (p.kh - 1) * tap_step + 1;
      return;
    }
    const std::int64_t total_rows = larger<std::int64_t>(p.n * p.oh, 1);  // plans ask about empty batches, too
    chunk_rows = pieces > 1 ? 1 : smaller(larger<std::int64_t>(pixels / p.ow, 1), total_rows);
    chunks = pieces > 1 ? total_rows * pieces : ceil_div(total_rows, chunk_rows);
    chunk_pixels = chunk_rows * ceil_div(p.ow, pieces);
    columns = stored_columns(ceil_div(p.ow, pieces));
    const std::int64_t segments = smaller((chunk_rows - 1) / p.oh + 2, chunk_rows);
    rows = chunk_rows * row_step + segments * ((p.kh - 1) * tap_step + 1);
  }

  // Rows of the accumulated dW of a panel: [block][kh][filter column][block row].
  CONVKIT_INLINE std::int64_t accumulated_rows() const { return blocks * p.kh * filter_columns * block_rows; }
  CONVKIT_INLINE std::int64_t taps() const { return p.kh * p.kw; }
  CONVKIT_INLINE std::int64_t most_runs() const { return batched ? p.oh * p.ow : chunk_rows; }
  CONVKIT_INLINE std::int64_t row_elements() const { return planes * columns * column_step(); }
  CONVKIT_INLINE std::int64_t block_elements() const { return round_up(rows * row_elements(), Vec<T>::lanes); }
  CONVKIT_INLINE std::int64_t block_channels(std::int64_t b) const { return smaller(channels - b * block, block); }

  // Columns of a plane that `count` output columns read.
  CONVKIT_INLINE std::int64_t stored_columns(std::int64_t count) const {
    if (narrow) return (count - 1) * p.stride_w + p.kw;
    return count + (shared() ? (p.kw - 1) * p.dilation_w / p.stride_w : 0);
  }
  CONVKIT_INLINE bool shared() const { return (p.kw - 1) * p.dilation_w >= p.stride_w; }
  // Distance of neighbouring columns in the strip, and of a run's pixels.
  CONVKIT_INLINE std::int64_t column_step() const { return images * block; }
  CONVKIT_INLINE std::int64_t pixel_step() const { return narrow ? p.stride_w * block : block; }
  // Where in a stored row the first output column of a chunk finds its input for filter column kx.
  CONVKIT_INLINE std::int64_t tap_offset(std::int64_t kx) const {
    if (narrow) return 0;
    const std::int64_t plane = shared() ? kx * p.dilation_w % p.stride_w : kx;
    const std::int64_t column = shared() ? kx * p.dilation_w / p.stride_w : 0;
    return (plane * columns + column) * column_step();
  }
  // Input row of stored row j of a segment.
  CONVKIT_INLINE std::int64_t input_row(const Segment& s, std::int64_t j) const {
    const std::int64_t first = s.row * p.stride_h - p.pad_top;
    if (row_step == p.stride_h && tap_step == p.dilation_h) return first + j;
    return first + j / row_step * p.stride_h + j % row_step * p.dilation_h;
  }
  CONVKIT_INLINE std::int64_t stored_rows(const Segment& s) const {
    return (s.rows - 1) * row_step + (p.kh - 1) * tap_step + 1;
  }

  // Calls visit(segment) for the parts of chunk `index`, in order.
  template <class Visit>
  CONVKIT_INLINE void for_segments(std::int64_t index, const Visit& visit) const {
    if (pieces > 1) {
      const std::int64_t row = index / pieces, piece = index % pieces;
      const Share outputs = share(p.ow, piece, pieces);
      visit(Segment{row / p.oh, row % p.oh, 1, outputs.begin, outputs.end - outputs.begin, 0, 0});
      return;
    }
    if (batched) {
      const Share all = share(p.n, index, chunks);
      for (std::int64_t n = all.begin; n < all.end; ++n) {
        visit(Segment{n, 0, p.oh, 0, p.ow, (n - all.begin) * block, n - all.begin});
      }
      return;
    }
    const Share all = share(p.n * p.oh, index, chunks);
    std::int64_t row = all.begin, stored = 0, pixel = 0;
    while (row < all.end) {
      const std::int64_t count = smaller(p.oh - row % p.oh, all.end - row);
      const Segment segment{row / p.oh, row % p.oh, count, 0, p.ow, stored, pixel};
      visit(segment);
      stored += stored_rows(segment) * row_elements();
      pixel += count * p.ow;
      row += count;
    }
  }
};

// --- strips -----------------------------------------------------------------------------------------------------------

// One stored row of one block from an NHWC image row; `row` points at the block's first channel.
template <class T>
void fill_row_nhwc(const Strips<T>& s, const Segment& segment, const T* row, std::int64_t valid, T* to) {
  const ConvProblem& p = s.p;
  const std::int64_t first = segment.first * p.stride_w - p.pad_left;
  if (s.narrow) {
    const std::int64_t count = s.stored_columns(segment.count);
    const std::int64_t begin = smaller(larger<std::int64_t>(-first, 0), count);
    const std::int64_t end = larger(smaller(p.w - first, count), begin);
    zero_run(begin * valid, to);
    if (p.groups == 1) {
      copy_run(row + (first + begin) * p.c, (end - begin) * valid, to + begin * valid);
    } else {
      for (std::int64_t q = begin; q < end; ++q) copy_run(row + (first + q) * p.c, valid, to + q * valid);
    }
    zero_run((count - end) * valid, to + end * valid);
    return;
  }
  const std::int64_t count = s.stored_columns(segment.count), step = p.stride_w;
  for (std::int64_t plane = 0; plane < s.planes; ++plane, to += s.columns * s.column_step()) {
    const std::int64_t x0 = first + plane * s.plane_step;
    const std::int64_t begin = x0 < 0 ? ceil_div(-x0, step) : 0;
    const std::int64_t end = x0 >= p.w ? 0 : smaller((p.w - 1 - x0) / step + 1, count);
    const T* from = row + (x0 + begin * step) * p.c;
    T* out = to + begin * s.column_step();
    if (valid == channel_block<T>) {
      for (std::int64_t q = begin; q < end; ++q, from += step * p.c, out += s.column_step()) {
        using V = Vec<T>;
        CONVKIT_UNROLL
        for (int i = 0; i < channel_block<T>; i += V::lanes) V::store(out + i, V::load(from + i));
      }
    } else {
      for (std::int64_t q = begin; q < end; ++q, from += step * p.c, out += s.column_step()) copy_run(from, valid, out);
    }
  }
}

// The same from the planes of an NCHW image; `row` points at the row of the block's first channel.
template <class T>
void fill_row_nchw(const Strips<T>& s, const Segment& segment, const T* row, std::int64_t valid, T* to) {
  using V = Vec<T>;
  const ConvProblem& p = s.p;
  const std::int64_t plane = p.h * p.w, first = segment.first * p.stride_w - p.pad_left;
  const std::int64_t count = s.stored_columns(segment.count);
  if (s.narrow || p.stride_w == 1) {
    const std::int64_t begin = smaller(larger<std::int64_t>(-first, 0), count);
    const std::int64_t end = larger(smaller(p.w - first, count), begin);
    if (s.narrow) zero_run(begin * s.block, to), zero_run((count - end) * s.block, to + end * s.block);
    transpose_block(row + first + begin, plane, valid, end - begin, to + begin * s.column_step(), s.column_step());
    return;
  }
  // Column x is column x / stride of the plane that its remainder names, if any.
  const std::int64_t span = (count - 1) * p.stride_w + (s.planes - 1) * s.plane_step + 1;
  const std::int64_t begin = smaller(larger<std::int64_t>(-first, 0), span);
  const std::int64_t end = larger(smaller(p.w - first, span), begin);
  for (std::int64_t c = 0; c < valid; c += V::lanes) {
    const int height = static_cast<int>(smaller<std::int64_t>(valid - c, V::lanes));
    std::int64_t q = begin / p.stride_w, remainder = begin % p.stride_w;
    for (std::int64_t x = begin; x < end; x += V::lanes) {
      const int width = static_cast<int>(smaller<std::int64_t>(end - x, V::lanes));
      alignas(64) T block[V::lanes * V::lanes];
      transpose_block(row + c * plane + first + x, plane, height, width, block, V::lanes);
      for (int i = 0; i < width; ++i) {
        if (remainder % s.plane_step == 0 && remainder / s.plane_step < s.planes && q < count) {
          T* out = to + (remainder / s.plane_step * s.columns + q) * s.column_step() + c;
          V::store(out, V::load(block + i * V::lanes), height);
        }
        if (++remainder == p.stride_w) remainder = 0, ++q;
      }
    }
  }
}

// The strip of blocks [blocks.begin, blocks.end) of a group under one chunk. Rows in the padding are left as they are:
// no run reads them.
template <class T>
void fill_strip(const Strips<T>& s, const T* x, std::int64_t chunk, std::int64_t group, const Share& blocks, T* strip) {
  const ConvProblem& p = s.p;
  s.for_segments(chunk, [&](const Segment& segment) CONVKIT_LAMBDA {
    const std::int64_t stored = s.stored_rows(segment);
    for (std::int64_t j = 0; j < stored; ++j) {
      const std::int64_t y = s.input_row(segment, j);
      if (y < 0 || y >= p.h) continue;
      for (std::int64_t b = blocks.begin; b < blocks.end; ++b) {
        const std::int64_t c = group * s.channels + b * s.block;
        T* to = strip + (b - blocks.begin) * s.block_elements() + segment.stored + j * s.row_elements();
        if (p.layout == Layout::nhwc) {
          fill_row_nhwc(s, segment, x + ((segment.image * p.h + y) * p.w) * p.c + c, s.block_channels(b), to);
        } else {
          fill_row_nchw(s, segment, x + ((segment.image * p.c + c) * p.h + y) * p.w, s.block_channels(b), to);
        }
      }
    }
  });
}

// --- panels -----------------------------------------------------------------------------------------------------------

// The gradients of `valid` outputs from `o` (counted over groups) of one chunk: [pixel][vectors * lanes], zeros beyond.
template <class T>
void fill_gradients(const Strips<T>& s, const T* dy, std::int64_t chunk, std::int64_t o, int valid, T* panel) {
  using V = Vec<T>;
  const ConvProblem& p = s.p;
  const int vectors = static_cast<int>(ceil_div(valid, V::lanes)), width = vectors * V::lanes;
  const int tail = valid - (vectors - 1) * V::lanes;
  s.for_segments(chunk, [&](const Segment& segment) CONVKIT_LAMBDA {
    const std::int64_t first = segment.row * p.ow + segment.first, count = (segment.rows - 1) * p.ow + segment.count;
    const std::int64_t step = s.images * width;
    T* to = panel + segment.pixel * width;
    if (p.layout == Layout::nhwc) {
      const T* from = dy + (segment.image * p.oh * p.ow + first) * p.o + o;
      for (std::int64_t i = 0; i < count; ++i, from += p.o, to += step) {
        for (int j = 0; j + 1 < vectors; ++j) V::store(to + j * V::lanes, V::load(from + j * V::lanes));
        const int last = (vectors - 1) * V::lanes;
        V::store(to + last, tail == V::lanes ? V::load(from + last) : V::load(from + last, tail));
      }
    } else {
      const T* from = dy + (segment.image * p.o + o) * p.oh * p.ow + first;
      if (tail < V::lanes) {
        for (std::int64_t i = 0; i < count; ++i) V::store(to + i * step + width - V::lanes, V::zero());
      }
      transpose_block(from, p.oh * p.ow, valid, count, to, step);
    }
  });
}

// --- runs -------------------------------------------------------------------------------------------------------------

// How many runs a tap has in a chunk, and how many pixels each has.
struct Runs {
  std::int64_t count, steps;
};

// Output columns of a chunk that read the image through filter column kx; narrow strips hold the padding.
template <class T>
CONVKIT_INLINE Share columns_inside(const Strips<T>& s, std::int64_t first, std::int64_t count, std::int64_t kx) {
  if (s.narrow) return {0, count};
  const ConvProblem& p = s.p;
  const std::int64_t x0 = first * p.stride_w + kx * p.dilation_w - p.pad_left;
  const std::int64_t begin = smaller(x0 < 0 ? ceil_div(-x0, p.stride_w) : 0, count);
  const std::int64_t end = x0 >= p.w ? 0 : smaller((p.w - 1 - x0) / p.stride_w + 1, count);
  return {begin, larger(begin, end)};
}

// Calls visit(segment, r) for the rows of a chunk that read the image through filter row ky.
template <class T, class Visit>
CONVKIT_INLINE void for_rows_inside(const Strips<T>& s, std::int64_t chunk, std::int64_t ky, const Visit& visit) {
  const ConvProblem& p = s.p;
  s.for_segments(chunk, [&](const Segment& segment) CONVKIT_LAMBDA {
    for (std::int64_t r = 0; r < segment.rows; ++r) {
      const std::int64_t y = (segment.row + r) * p.stride_h + ky * p.dilation_h - p.pad_top;
      if (y >= 0 && y < p.h) visit(segment, r);
    }
  });
}

// Fills `runs` (room for chunk_rows) for filter row ky of strips that hold the padding of their columns.
template <class T>
CONVKIT_INLINE Runs find_padded_runs(const Strips<T>& s, std::int64_t chunk, std::int64_t ky, int width,
                                     OuterRun* runs) {
  Runs found{0, 0};
  for_rows_inside(s, chunk, ky, [&](const Segment& segment, std::int64_t r) CONVKIT_LAMBDA {
    found.steps = segment.count;
    runs[found.count++] = {segment.stored + (r * s.row_step + ky * s.tap_step) * s.row_elements(),
                           (segment.pixel + r * s.p.ow) * width};
  });
  return found;
}

// Fills `runs` (room for most_runs) for filter row ky and filter column kx, offsets from block and panel starts. Runs
// that meet are one.
template <class T>
CONVKIT_INLINE Runs find_runs(const Strips<T>& s, std::int64_t chunk, std::int64_t ky, std::int64_t kx, int width,
                              OuterRun* runs) {
  Runs found{0, 0};
  if (s.batched) {
    const Share images = share(s.p.n, chunk, s.chunks);
    found.steps = images.end - images.begin;
    const Share inside = columns_inside(s, 0, s.p.ow, kx);
    for (std::int64_t r = 0; r < s.p.oh; ++r) {
      const std::int64_t y = r * s.p.stride_h + ky * s.p.dilation_h - s.p.pad_top;
      if (y < 0 || y >= s.p.h) continue;
      for (std::int64_t x = inside.begin; x < inside.end; ++x) {
        runs[found.count++] = {
            (r * s.row_step + ky * s.tap_step) * s.row_elements() + s.tap_offset(kx) + x * s.column_step(),
            (r * s.p.ow + x) * s.images * width};
      }
    }
    return found;
  }
  for_rows_inside(s, chunk, ky, [&](const Segment& segment, std::int64_t r) CONVKIT_LAMBDA {
    const Share inside = columns_inside(s, segment.first, segment.count, kx);
    if (inside.begin == inside.end) return;
    found.steps = inside.end - inside.begin;
    runs[found.count++] = {segment.stored + (r * s.row_step + ky * s.tap_step) * s.row_elements() + s.tap_offset(kx) +
                               inside.begin * s.pixel_step(),
                           (segment.pixel + r * s.p.ow + inside.begin) * width};
  });
  if (found.count > 1) {
    const std::int64_t a = found.steps * s.pixel_step(), b = found.steps * width;
    const OuterRun last = runs[found.count - 1];
    // Stored rows are at least row_elements apart, so that equal ends leave no gap between.
    if (a == s.row_elements() && last.a - runs[0].a == a * (found.count - 1) &&
        last.b - runs[0].b == b * (found.count - 1)) {
      found = {1, found.steps * found.count};
    }
  }
  return found;
}

}  // namespace convkit::CONVKIT_ISA
