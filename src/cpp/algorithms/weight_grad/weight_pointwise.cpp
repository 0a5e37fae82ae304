// Weight gradients of 1x1 filters with stride 1: dW = dy x^T over all pixels, from the tensors almost as they are.
//
// One operand is broadcast, element by element, straight from the tensor: in NCHW a channel's pixels lie together, in NHWC a
// pixel's channels do, and the register tile takes either as a pair of strides. Only the other, whose channels are in
// lanes, is brought into panels [pixel][panel]: in NCHW that is a transpose, so it should be the one with fewer channels.
// `swapped` says which: 0 has outputs in lanes, 1 input channels; then dW leaves the registers as OIHW wants it.
//
//   sums  [part][group][panel][row][panel]   rows are the channels of the operand that is broadcast
//
// Pixels come in chunks, pieces of an image or a few small images, so that a chunk of both operands stays in L2 while
// tiles pass over it. Chunks are cut into parts by the problem alone; parts have sums of their own, added in their order.
#include "algorithms/entries.hpp"
#include "algorithms/weight_grad/division.hpp"
#include "microkernels/transpose_block.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

enum Parameter { parameter_swapped, parameter_pixels, parameter_parts };

constexpr ParameterSpec pointwise_schema[] = {
    {"swapped", 0, 1}, {"pixels", 1, 1 << 20}, {"parts", 1, 1 << 10}, {nullptr, 0, 0}};

constexpr std::int64_t row_block = 48;  // rows that the team is divided by: whole tiles of 6 and of 8

bool pointwise_applies(const ConvProblem& p) {
  return p.kh == 1 && p.kw == 1 && p.stride_h == 1 && p.stride_w == 1 && p.pad_top == 0 && p.pad_bottom == 0 &&
         p.pad_left == 0 && p.pad_right == 0;
}

// Pixels [first, first + count) of `images` images from `image` on: a piece of one image, or all of several.
struct Chunk {
  std::int64_t image, images, first, count;
};

template <class T>
struct Sizes {
  std::int64_t rows, row_blocks;  // of a group
  std::int64_t images, pixels;    // NHWC: one image, since pixels are evenly apart throughout the batch
  Panels<T> panels;
  std::int64_t items;  // panels of all groups
  std::int64_t pieces, batch, chunks, chunk_pixels, parts;

  CONVKIT_INLINE Sizes(const ConvProblem& p, const Parameters& parameters)
      : rows((parameters.value[parameter_swapped] ? p.o : p.c) / p.groups),
        row_blocks(ceil_div(rows, row_block)),
        images(p.layout == Layout::nhwc ? 1 : p.n),
        pixels(p.layout == Layout::nhwc ? p.n * p.h * p.w : p.h * p.w),
        panels{(parameters.value[parameter_swapped] ? p.c : p.o) / p.groups},
        items(p.groups * panels.count()) {
    const std::int64_t wanted = parameters.value[parameter_pixels];
    pieces = ceil_div(larger<std::int64_t>(pixels, 1), wanted);
    batch = pieces > 1 ? 1 : larger<std::int64_t>(1, wanted / larger<std::int64_t>(pixels, 1));
    chunks = larger<std::int64_t>(1, pieces > 1 ? images * pieces : ceil_div(images, batch));
    chunk_pixels = pieces > 1 ? ceil_div(pixels, pieces) : batch * pixels;
    parts = smaller<std::int64_t>(parameters.value[parameter_parts], chunks);
  }
  CONVKIT_INLINE Chunk chunk(std::int64_t index) const {
    if (pieces == 1) return {index * batch, smaller(batch, images - index * batch), 0, pixels};
    const Share piece = share(pixels, index % pieces, pieces);
    return {index / pieces, 1, piece.begin, piece.end - piece.begin};
  }
  CONVKIT_INLINE int width(std::int64_t item) const { return panels.vectors(item % panels.count()) * Vec<T>::lanes; }
  CONVKIT_INLINE std::int64_t item_elements() const { return rows * Panels<T>::width; }
  CONVKIT_INLINE std::int64_t part_elements() const { return items * item_elements(); }
};

// One operand: `channels` of a group, pixels and channels at constant distances.
template <class T>
struct Operand {
  const T* data;
  std::ptrdiff_t image, pixel, channel;
  std::int64_t channels;

  CONVKIT_INLINE Operand(const ConvProblem& p, const void* tensor, std::int64_t all, std::int64_t group)
      : data(static_cast<const T*>(tensor)), channels(all / p.groups) {
    const std::int64_t pixels = p.h * p.w;
    image = all * pixels;
    pixel = p.layout == Layout::nhwc ? all : 1;
    channel = p.layout == Layout::nhwc ? 1 : pixels;
    data += group * channels * channel;
  }
};

// `count` pixels of the channels in lanes, `width` elements a pixel: zeros beyond the last channel.
template <class T>
void fill_panel(const Operand<T>& b, const T* from, std::int64_t count, int valid, int width, T* to) {
  using V = Vec<T>;
  if (b.channel == 1) {
    for (std::int64_t k = 0; k < count; ++k, from += b.pixel, to += width) {
      int j = 0;
      for (; j + V::lanes <= valid; j += V::lanes) V::store(to + j, V::load(from + j));
      if (j < valid) V::store(to + j, V::load(from + j, valid - j));
    }
    return;
  }
  if (valid < width) {
    for (std::int64_t k = 0; k < count; ++k) V::store(to + k * width + width - V::lanes, V::zero());
  }
  transpose_block(from, b.channel, valid, count, to, width);
}

template <class T>
struct Context {
  const Arguments& args;
  const ConvProblem& p;
  const Sizes<T> s;
  const bool swapped;
  T* const sums;

  CONVKIT_INLINE Context(const Arguments& args_)
      : args(args_),
        p(*args_.problem),
        s(p, *args_.parameters),
        swapped(args_.parameters->value[parameter_swapped] != 0),
        sums(static_cast<T*>(args_.workspace)) {}

  CONVKIT_INLINE Operand<T> rows(std::int64_t group) const {
    return swapped ? Operand<T>(p, args.dy, p.o, group) : Operand<T>(p, args.x, p.c, group);
  }
  CONVKIT_INLINE Operand<T> lanes(std::int64_t group) const {
    return swapped ? Operand<T>(p, args.x, p.c, group) : Operand<T>(p, args.dy, p.o, group);
  }
  CONVKIT_INLINE T* item_sums(std::int64_t part, std::int64_t item) const {
    return sums + part * s.part_elements() + item * s.item_elements();
  }
};

// Rows [begin, end) of one item: adds the parts in order and writes their weights.
template <class T>
void store_rows(const Context<T>& c, std::int64_t item, std::int64_t begin, std::int64_t end) {
  using V = Vec<T>;
  const Sizes<T>& s = c.s;
  const std::int64_t group = item / s.panels.count(), panel = item % s.panels.count();
  const int valid = s.panels.valid(panel), width = s.width(item);
  T* const first = c.item_sums(0, item);
  if (s.parts > 1) {
    for (std::int64_t i = begin * width; i < end * width; i += V::lanes) {
      typename V::Reg sum = V::load(first + i);
      for (std::int64_t part = 1; part < s.parts; ++part) sum += V::load(first + part * s.part_elements() + i);
      V::store(first + i, sum);
    }
  }
  const std::int64_t channels = c.p.c / c.p.groups, outputs = c.p.o / c.p.groups;
  T* const dw = static_cast<T*>(c.args.y) + group * outputs * channels;
  const std::int64_t lane = panel * Panels<T>::width;
  if (!c.swapped) {
    transpose_block(first + begin * width, width, end - begin, valid, dw + lane * channels + begin, channels);
    return;
  }
  for (std::int64_t row = begin; row < end; ++row) {
    const T* const from = first + row * width;
    T* const to = dw + row * channels + lane;
    int j = 0;
    for (; j + V::lanes <= valid; j += V::lanes) V::store(to + j, V::load(from + j));
    if (j < valid) V::store(to + j, V::load(from + j, valid - j), valid - j);
  }
}

// Asks for what comes next while tile `i` of `count` is multiplied: in NCHW the rows of the next tile, which are other lines
// and often other pages; in NHWC this tile's share of the pixels that follow the run.
template <class T>
CONVKIT_INLINE void fetch_ahead(const Operand<T>& rows, const T* a, std::int64_t next_row, std::int64_t next_rows,
                                std::int64_t pixels, std::int64_t i, std::int64_t count) {
  constexpr std::int64_t line = 64 / static_cast<int>(sizeof(T));
  if (rows.pixel == 1) {
    for (std::int64_t r = next_row; r < next_row + next_rows; ++r) {
      for (std::int64_t k = 0; k < pixels; k += line) __builtin_prefetch(a + r * rows.channel + k, 0, 2);
    }
  } else if (rows.pixel == rows.channels) {
    const T* const next = a + pixels * rows.pixel;
    const std::int64_t elements = pixels * rows.pixel;
    for (std::int64_t k = elements * i / count; k < elements * (i + 1) / count; k += line) {
      __builtin_prefetch(next + k, 0, 2);
    }
  }
}

// Adds one run of pixels, both operands at its first, to rows [begin, end).
template <class T>
void multiply_run(const Operand<T>& rows, const T* a, const T* panel, std::int64_t pixels, int vectors,
                  std::int64_t begin, std::int64_t end, bool accumulate, bool fetch, T* sums) {
  const int width = vectors * Vec<T>::lanes;
  const RowSplit split = split_rows(end - begin, TileShape<T>::rows(vectors));
  std::int64_t row = begin;
  for (std::int64_t i = 0; i < split.big + split.small; ++i) {
    const int height = split.rows + (i < split.big);
    if (fetch) {
      const std::int64_t next = row + height;
      fetch_ahead(rows, a, next, smaller<std::int64_t>(height, end - next), pixels, i, split.big + split.small);
    }
    const TileOut<T> out{sums + row * width, width, nullptr, nullptr, T(0), T(0), Vec<T>::lanes, accumulate, false};
    strided_tiles<T>(vectors, height, 1, pixels, a + row * rows.channel, rows.channel, rows.pixel, panel, out);
    row += height;
  }
}

template <class T>
void accumulate_share(const Context<T>& c, T* panel, const Share& parts, const Share& items, const Share& blocks) {
  const Sizes<T>& s = c.s;
  const std::int64_t begin = blocks.begin * row_block, end = smaller(blocks.end * row_block, s.rows);
  if (begin >= end) return;
  for (std::int64_t part = parts.begin; part < parts.end; ++part) {
    const Share chunks = share(s.chunks, part, s.parts);
    for (std::int64_t index = chunks.begin; index < chunks.end; ++index) {
      const Chunk chunk = s.chunk(index);
      for (std::int64_t item = items.begin; item < items.end; ++item) {
        const std::int64_t group = item / s.panels.count(), which = item % s.panels.count();
        const int valid = s.panels.valid(which), width = s.width(item);
        const Operand<T> rows = c.rows(group), lanes = c.lanes(group);
        T* const sums = c.item_sums(part, item);
        const bool fetch = item == items.begin || which == 0;  // later panels find the rows in L2
        for (std::int64_t i = 0; i < chunk.images; ++i) {
          const std::int64_t image = chunk.image + i;
          fill_panel(
              lanes,
              lanes.data + image * lanes.image + chunk.first * lanes.pixel + which * Panels<T>::width * lanes.channel,
              chunk.count, valid, width, panel);
          multiply_run(rows, rows.data + image * rows.image + chunk.first * rows.pixel, panel, chunk.count,
                       width / Vec<T>::lanes, begin, end, index > chunks.begin || i > 0, fetch, sums);
        }
        if (s.parts == 1 && index + 1 == chunks.end) store_rows(c, item, begin, end);
      }
    }
  }
}

template <class T>
std::int64_t sums_bytes(const Sizes<T>& s) {
  return round_up(bounded_product(s.parts, s.part_elements(), static_cast<std::int64_t>(sizeof(T))), 64);
}
template <class T>
std::int64_t panel_bytes(const Sizes<T>& s) {
  const std::int64_t run = s.pieces > 1 ? s.chunk_pixels : s.pixels;
  return round_up(run * Panels<T>::width * static_cast<std::int64_t>(sizeof(T)), 64);
}

template <class T>
std::int64_t pointwise_workspace(const ConvProblem& p, const Parameters& parameters, const Machine&, int threads) {
  const Sizes<T> s(p, parameters);
  return team_bytes(panel_bytes(s), threads, sums_bytes(s));
}

template <class T>
void pointwise_run(const Arguments& args) {
  const Context<T> c(args);
  const Sizes<T>& s = c.s;
  char* const own = static_cast<char*>(args.workspace) + sums_bytes(s);
  auto member = [&](int index, int size) {
    const Division division = divide(s.parts, s.items, s.row_blocks, size);
    if (index < division.size()) {
      accumulate_share(c, reinterpret_cast<T*>(own + index * panel_bytes(s)), division.part(s.parts, index),
                       division.row(s.items, index), division.column(s.row_blocks, index));
    }
    if (s.parts == 1) return;
    team_barrier();
    const Share mine = share(s.items * s.row_blocks, index, size);
    for (std::int64_t i = mine.begin; i < mine.end; ++i) {
      const std::int64_t begin = i % s.row_blocks * row_block;
      store_rows(c, i / s.row_blocks, begin, smaller(begin + row_block, s.rows));
    }
  };
  team(worthwhile_threads(c.p, args.threads), member);
}

template <class T>
int pointwise_candidates(const ConvProblem& p, const Machine& machine, int, Parameters* out, int capacity) {
  int count = 0;
  const bool few_channels = p.c < p.o;
  constexpr std::int64_t l2_quarters[] = {2, 4, 1};
  for (const std::int64_t quarters : l2_quarters) {
    for (int other = 0; other < 2; ++other) {
      const bool swapped = few_channels != (other == 1);
      if (count == capacity) return count;
      const std::int64_t rows = (swapped ? p.o : p.c) / p.groups;
      const std::int64_t fit = quarters * machine.l2 / 4 / (rows * static_cast<std::int64_t>(sizeof(T)));
      Parameters candidate{
          {swapped,
           within(pointwise_schema[parameter_pixels], smaller<std::int64_t>(larger<std::int64_t>(fit, 128), 1024)), 1}};
      const Sizes<T> s(p, candidate);
      // Enough independent sums for a large team, where that costs little memory.
      const std::int64_t products = s.items * s.row_blocks;
      candidate.value[parameter_parts] =
          within(pointwise_schema[parameter_parts], smaller(ceil_div(16, products), s.chunks));
      bool known = false;
      for (int i = 0; i < count; ++i) {
        known |= out[i].value[0] == candidate.value[0] && out[i].value[1] == candidate.value[1];
      }
      if (!known) out[count++] = candidate;
    }
  }
  return count;
}

template <class T>
void pointwise_cost(const ConvProblem& p, const Parameters& parameters, const Machine&, int threads, Cost* out) {
  const Sizes<T> s(p, parameters);
  const double pixels = static_cast<double>(s.images * s.pixels), groups = static_cast<double>(p.groups);
  const double rows = static_cast<double>(s.rows), lanes = static_cast<double>(s.panels.padded());
  *out = {};
  out->fmas = pixels * rows * lanes * groups;
  const double full = static_cast<double>(s.panels.outputs / Panels<T>::width * Panels<T>::width), rest = lanes - full;
  out->efficiency = lanes / (full / tile_efficiency<T>(TileShape<T>::vectors) +
                             rest / tile_efficiency<T>(s.panels.vectors(s.panels.count() - 1)));
  if (rows < 6) out->efficiency *= rows / 6;
  // A run of pixels loads and stores its sums once.
  const double runs = static_cast<double>(s.pieces * s.images);
  const double moves = p.layout == Layout::nchw ? 6 : 2;
  out->vector_ops = groups * lanes / Vec<T>::lanes * (moves * pixels + 2.0 * runs * rows + 3.0 * rows);
  out->bytes_l3 = 2.0 * sizeof(T) * groups * lanes * rows * static_cast<double>(s.chunks) / 4;
  out->bytes_dram = tensor_bytes(p, sizeof(T));
  const Division division = divide(s.parts, s.items, s.row_blocks, threads);
  out->imbalance = division.imbalance(s.parts, s.items, s.row_blocks, threads);
  out->barriers = s.parts > 1 ? 1 : 0;
}

template <class T>
constexpr Kernel pointwise_entry(const char* name) {
  return kernel_of<T>("pointwise", name, Op::weight_grad, layout_nchw | layout_nhwc, 1,
                      {pointwise_schema, pointwise_applies, pointwise_candidates<T>, pointwise_cost<T>,
                       pointwise_workspace<T>, pointwise_run<T>});
}

constexpr Kernel kernels[] = {
    pointwise_entry<float>("f32_pointwise_weight_grad__" CONVKIT_ISA_NAME),
    pointwise_entry<double>("f64_pointwise_weight_grad__" CONVKIT_ISA_NAME),
};

}  // namespace

extern const KernelTable weight_pointwise_table;
constexpr KernelTable weight_pointwise_table = {kernels, sizeof kernels / sizeof kernels[0]};

}  // namespace convkit::CONVKIT_ISA
