// Input gradient of a strided convolution, by phases. The pixels of dx with (y + pad) mod stride = r along both axes meet the
// same subset of the filter's taps, and their gradient is a convolution of dy with stride 1 and those taps only. A tile of such
// pixels gathers its dy through pointers as the forward's direct tiles do, so no tap is multiplied by an inserted zero.
//
// The phases of a piece of dx are computed into an L1 scratch of one panel of channels, one phase after the other, and
// interleaved on the way to dx. NCHW first transposes the rows of dy that a block needs into an NHWC strip.
//
// Strides, dilations and pads are arbitrary; pads wider than the filter's reach included.
#include "algorithms/adjoint.hpp"
#include "algorithms/input_grad/axis.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

constexpr std::int64_t piece_pixels = 96;

constexpr ParameterSpec phases_schema[] = {{"block", 1, 1 << 20}, {nullptr, 0, 0}};

bool phases_applies(const ConvProblem& p) { return !has_adjoint(p); }

// How dx is cut: pieces are whole rows, or parts of one row where a row is longer than a piece.
struct Pieces {
  std::int64_t rows, columns;
  CONVKIT_INLINE explicit Pieces(const ConvProblem& p)
      : rows(larger<std::int64_t>(piece_pixels / p.w, 1)), columns(ceil_div(p.w, ceil_div(p.w, piece_pixels))) {}
};

// Rows of dy that rows [begin, end) of dx depend on.
CONVKIT_INLINE Share needed_rows(const Axis& axis, std::int64_t begin, std::int64_t end) {
  const std::int64_t low = begin + axis.pad - (axis.taps - 1) * axis.dilation;
  const std::int64_t first = low <= 0 ? 0 : ceil_div(low, axis.stride);
  const std::int64_t last = smaller((end - 1 + axis.pad) / axis.stride, axis.outputs - 1);
  return {smaller(first, last + 1), last + 1};
}

CONVKIT_INLINE std::int64_t most_needed_rows(const Axis& axis, std::int64_t block) {
  const std::int64_t rows = (block - 1 + (axis.taps - 1) * axis.dilation) / axis.stride + 1;
  return smaller(rows, axis.outputs);
}

template <class T>
int phases_candidates(const ConvProblem& p, const Machine& machine, int threads, Parameters* out, int capacity) {
  const Pieces pieces(p);
  int count = 0;
  if (p.layout == Layout::nhwc) {
    const std::int64_t sizes[] = {pieces.rows, 4 * pieces.rows, 16 * pieces.rows};
    for (const std::int64_t rows : sizes) {
      const std::int32_t block =
          within(phases_schema[0], smaller<std::int64_t>(rows, larger<std::int64_t>(p.n * p.h / threads, 1)));
      if (count < capacity && (count == 0 || out[count - 1].value[0] != block)) out[count++] = {{block}};
    }
    return count;
  }
  // Rows whose strip of dy fills part of L2, in blocks of one size, enough of them for the team.
  const Axis axis = rows_axis(p);
  const std::int64_t row = p.ow * (p.o / p.groups) * static_cast<std::int64_t>(sizeof(T));
  const std::int64_t budgets[] = {machine.l2 / 2, machine.l2 / 4};
  for (const std::int64_t bytes : budgets) {
    std::int64_t rows = (bytes / row) * axis.stride - (axis.taps - 1) * axis.dilation;
    rows = smaller(larger(rows, pieces.rows), ceil_div(p.n * p.h, threads));
    const std::int64_t blocks = ceil_div(p.h, larger<std::int64_t>(rows, 1));
    const std::int32_t block = within(phases_schema[0], ceil_div(p.h, blocks));
    if (count < capacity && (count == 0 || out[count - 1].value[0] != block)) out[count++] = {{block}};
  }
  return count;
}

template <class T>
void phases_cost(const ConvProblem& p, const Parameters& parameters, const Machine& machine, int threads, Cost* out) {
  const ConvProblem q = adjoint_filter(p);
  const Panels<T> panels{q.o / q.groups};
  const double pixels = static_cast<double>(p.n * p.h * p.w), lanes = static_cast<double>(q.groups * panels.padded());
  const double depth = static_cast<double>(q.c / q.groups);
  const double taps = static_cast<double>(p.kh * p.kw) / static_cast<double>(p.stride_h * p.stride_w);
  *out = {};
  out->fmas = pixels * taps * depth * lanes;
  out->efficiency = tile_efficiency<T>(panels.vectors(0)) * depth / (depth + 4.0);
  out->vector_ops =
      4.0 * pixels * lanes / Vec<T>::lanes + 5.0 * pixels * taps * static_cast<double>(q.groups * panels.count());
  const Pieces pieces(p);
  const double pieces_count = pixels / static_cast<double>(pieces.rows * pieces.columns);
  const double weights = static_cast<double>(panels_bytes<T>(q));
  (weights > 0.7 * static_cast<double>(machine.l2) ? out->bytes_l3 : out->bytes_l2) += pieces_count * weights;
  if (p.layout == Layout::nchw) {
    const Axis axis = rows_axis(p);
    const double again =
        static_cast<double>(most_needed_rows(axis, parameters.value[0]) * ceil_div(p.h, parameters.value[0])) /
        static_cast<double>(p.oh);
    out->vector_ops += 6.0 * again * static_cast<double>(p.n * p.o * p.oh * p.ow) / Vec<T>::lanes +
                       4.0 * pixels * lanes / Vec<T>::lanes;
  }
  out->bytes_dram = tensor_bytes(p, sizeof(T));
  const std::int64_t blocks =
      p.layout == Layout::nhwc ? ceil_div(p.n * p.h, parameters.value[0]) : p.n * ceil_div(p.h, parameters.value[0]);
  out->imbalance = grid_imbalance(blocks, q.groups * panels.count(), threads, panels.missing(q.groups));
  add_cold_packing<T>(p, weights, out);
}

template <class T>
struct Scratch {
  Run<T>* runs;
  RunTile<T>* tiles;
  T *zeros, *strip, *panel;
  const T** pixels;  // where each pixel of a row of dx lies in `panel`
};

template <class T, class Cut>
CONVKIT_INLINE Scratch<T> carve(const ConvProblem& p, const Parameters& parameters, Cut& carver) {
  Scratch<T> s{};
  const Axis rows = rows_axis(p), columns = columns_axis(p);
  const std::int64_t inputs = p.o / p.groups;
  s.runs = carver.template take<Run<T>>(piece_pixels + 1, rows.taps_of_a_phase() * columns.taps_of_a_phase());
  s.tiles = carver.template take<RunTile<T>>(piece_pixels);
  s.zeros = carver.template take<T>(inputs);
  s.panel = carver.template take<T>(piece_pixels * TileShape<T>::panel);
  s.pixels = carver.template take<const T*>(piece_pixels);
  if (p.layout == Layout::nchw)
    s.strip = carver.template take<T>(most_needed_rows(rows, parameters.value[0]), p.ow * inputs);
  return s;
}

template <class T>
std::int64_t phases_workspace(const ConvProblem& p, const Parameters& parameters, const Machine&, int threads) {
  return members_workspace([&](auto& cut) { return carve<T>(p, parameters, cut); }, threads,
                           p.packed ? 0 : panels_bytes<T>(adjoint_filter(p)));
}

// dy as the tiles see it: NHWC, in place or in a strip that begins at row `first_row` of one image.
template <class T>
struct Gradient {
  const T* data;
  std::int64_t first_row;
  std::ptrdiff_t image_stride, row_stride, pixel_stride;
  CONVKIT_INLINE const T* at(std::int64_t image, std::int64_t y, std::int64_t x) const {
    return data + image * image_stride + (y - first_row) * row_stride + x * pixel_stride;
  }
};

// A piece of dx: rows [row_begin, row_end), counted over images, columns [column_begin, column_end).
struct Piece {
  std::int64_t row_begin, row_end, column_begin, column_end;
};

template <class T>
struct Context {
  const Arguments& args;
  const ConvProblem& p;
  Axis rows, columns;
  std::int64_t inputs, outputs, taps;  // dy's channels and dx's channels of a group
  Panels<T> panels;
  Finish<T> finish;
  const T* packed;

  Context(const Arguments& a, const T* packed_)
      : args(a),
        p(*a.problem),
        rows(rows_axis(p)),
        columns(columns_axis(p)),
        inputs(p.o / p.groups),
        outputs(p.c / p.groups),
        taps(p.kh * p.kw),
        panels{outputs},
        finish(a.epilogue),
        packed(packed_) {}

  CONVKIT_INLINE const T* panel(std::int64_t group, std::int64_t index) const {
    const std::int64_t k = inputs * taps;
    return packed + group * panels.padded() * k + panels.offset(index, k);
  }
};

// One pixel of a phase: its image and the outputs that the phase's first taps take it to.
struct Target {
  std::int64_t image, y, x;
};

// Rows of dx, counted over images, of the phase that begins with row `phase` of an image: the first one from `row` on, and
// the one after a row of that phase.
CONVKIT_INLINE std::int64_t first_of_phase(const Axis& rows, std::int64_t row, std::int64_t phase) {
  const std::int64_t y = row % rows.inputs, image = row - y;
  const std::int64_t first = y <= phase ? phase : phase + round_up(y - phase, rows.stride);
  return first < rows.inputs ? image + first : image + rows.inputs + phase;
}
CONVKIT_INLINE std::int64_t next_of_phase(const Axis& rows, std::int64_t row) {
  const std::int64_t y = row % rows.inputs;
  return y + rows.stride < rows.inputs ? row + rows.stride : row - y + rows.inputs + y % rows.stride;
}

// Walks the pixels of one phase of a piece in memory order.
struct PhaseCursor {
  const Axis& rows;
  const Axis& columns;
  std::int64_t row;  // over images
  std::int64_t column_begin, column_end, tap_h, tap_w, column;

  template <class T>
  CONVKIT_INLINE PhaseCursor(const Context<T>& c, const Piece& piece, std::int64_t first_row, std::int64_t tap_h_,
                             std::int64_t tap_w_, std::int64_t first_column)
      : rows(c.rows),
        columns(c.columns),
        row(first_row),
        column_begin(first_column),
        column_end(piece.column_end),
        tap_h(tap_h_),
        tap_w(tap_w_),
        column(first_column) {}
  CONVKIT_INLINE Target next() {
    const Target target{row / rows.inputs, rows.output(row % rows.inputs, tap_h), columns.output(column, tap_w)};
    column += columns.stride;
    if (column >= column_end) {
      column = column_begin;
      row = next_of_phase(rows, row);
    }
    return target;
  }
};

// Computes one phase of a piece into `to`, pixel after pixel. Taps are packed rotated: see adjoint.hpp.
template <class T>
void compute_phase(const Context<T>& c, const Scratch<T>& s, const Gradient<T>& dy, PhaseCursor cursor,
                   std::int64_t pixels, std::int64_t group, std::int64_t panel, T* to) {
  const ConvProblem& p = c.p;
  const int nv = c.panels.vectors(panel), width = nv * Vec<T>::lanes, most = TileShape<T>::rows(nv);
  const std::int64_t tap_h = cursor.tap_h, tap_w = cursor.tap_w;
  Run<T>* run = s.runs;
  RunTile<T>* tile = s.tiles;
  for_row_tiles(pixels, most, [&](int height, std::int64_t count, std::int64_t first) CONVKIT_LAMBDA {
    RunTile<T>* const begin = tile;
    for (std::int64_t left = count; left > 0; --left, ++tile) {
      Target target[TileShape<T>::most_rows];
      for (int i = 0; i < height; ++i) target[i] = cursor.next();
      tile->runs = run;
      tile->k = c.inputs;
      std::int64_t up = 0;
      for (std::int64_t kh = tap_h; kh < p.kh; kh += c.rows.tap_step, up += c.rows.output_step) {
        std::int64_t back = 0;
        for (std::int64_t kw = tap_w; kw < p.kw; kw += c.columns.tap_step, back += c.columns.output_step) {
          bool live = false;
          for (int i = 0; i < height; ++i) {
            const std::int64_t y = target[i].y - up, x = target[i].x - back;
            const bool exists = static_cast<std::uint64_t>(y) < static_cast<std::uint64_t>(p.oh) &&
                                static_cast<std::uint64_t>(x) < static_cast<std::uint64_t>(p.ow);
            run->row[i] = exists ? dy.at(target[i].image, y, x) : s.zeros;
            live |= exists;
          }
          run->panel_offset = ((p.kh - 1 - kh) * p.kw + p.kw - 1 - kw) * c.inputs;
          run += live;
        }
      }
      tile->count = run - tile->runs;
    }
    const std::int64_t channel = panel * Panels<T>::width;
    const TileOut<T> out{to + first * width,
                         width,
                         c.finish.bias ? c.finish.bias + group * c.outputs + channel : nullptr,
                         nullptr,
                         c.finish.lo,
                         c.finish.hi,
                         c.panels.tail(panel),
                         false,
                         c.finish.clamp && !c.finish.residual};
    gather_tiles<T>(nv, height, count, begin, c.panel(group, panel), out);
  });
}

// Copies one row of a piece from its pixels in scratch to dx, channels last.
template <class T>
void store_row_nhwc(const Context<T>& c, const T* const* from, std::int64_t pixels, int valid, T* y,
                    const T* residual) {
  using V = Vec<T>;
  const std::int64_t stride = c.p.c;
  const auto lo = V::set1(c.finish.lo), hi = V::set1(c.finish.hi);
  for (std::int64_t i = 0; i < pixels; ++i) {
    const T* pixel = from[i];
    T* to = y + i * stride;
    for (int j = 0; j < valid; j += V::lanes) {
      const int n = smaller(valid - j, V::lanes);
      auto v = n == V::lanes ? V::load(pixel + j) : V::load(pixel + j, n);
      if (residual) {
        v += V::load(residual + i * stride + j, n);
        if (c.finish.clamp) v = V::min(hi, V::max(lo, v));
      }
      if (n == V::lanes) {
        V::store(to + j, v);
      } else {
        V::store(to + j, v, n);
      }
    }
  }
  if (c.finish.after) activate_rows(y, pixels, stride, valid, *c.finish.after);
}

// The same with channels in planes: squares of pixels x channels are transposed in registers.
template <class T>
void store_row_nchw(const Context<T>& c, const T* const* from, std::int64_t pixels, int valid, T* y,
                    const T* residual) {
  using V = Vec<T>;
  const std::int64_t stride = c.p.h * c.p.w;
  const auto lo = V::set1(c.finish.lo), hi = V::set1(c.finish.hi);
  for (std::int64_t i = 0; i < pixels; i += V::lanes) {
    const int height = static_cast<int>(smaller<std::int64_t>(pixels - i, V::lanes));
    for (int j = 0; j < valid; j += V::lanes) {
      const int columns = smaller(valid - j, V::lanes);
      typename V::Reg r[V::lanes];
      CONVKIT_UNROLL
      for (int q = 0; q < V::lanes; ++q) r[q] = q < height ? V::load(from[i + q] + j, columns) : V::zero();
      V::transpose(r);
      CONVKIT_UNROLL
      for (int q = 0; q < V::lanes; ++q) {
        if (q >= columns) break;
        auto v = r[q];
        if (residual) {
          v += V::load(residual + (j + q) * stride + i, height);
          if (c.finish.clamp) v = V::min(hi, V::max(lo, v));
        }
        V::store(y + (j + q) * stride + i, v, height);
      }
    }
  }
  if (c.finish.after) activate_rows(y, valid, stride, pixels, *c.finish.after);
}

template <class T>
void compute_piece(const Context<T>& c, const Scratch<T>& s, const Gradient<T>& dy, const Piece& piece,
                   std::int64_t group, std::int64_t panel) {
  const ConvProblem& p = c.p;
  const bool nchw = p.layout == Layout::nchw;
  const int nv = c.panels.vectors(panel), width = nv * Vec<T>::lanes, valid = c.panels.valid(panel);
  const std::int64_t columns = piece.column_end - piece.column_begin;
  const std::int64_t most_h = smaller(c.rows.stride, p.h), most_w = smaller(c.columns.stride, columns);
  // All phases of rows, or, of very many, those of the piece's own rows.
  const std::int64_t height = piece.row_end - piece.row_begin;
  T* at = s.panel;
  for (std::int64_t i = 0; i < smaller(most_h, height); ++i) {
    const std::int64_t h = most_h <= height ? i : (piece.row_begin + i) % p.h % c.rows.stride;
    const std::int64_t first_row = first_of_phase(c.rows, piece.row_begin, h);
    if (first_row >= piece.row_end || (most_h > height && first_row < piece.row_begin + i)) continue;
    std::int64_t rows = 0;
    for (std::int64_t row = first_row; row < piece.row_end; row = next_of_phase(c.rows, row)) ++rows;
    T* const phase_rows = at;
    const std::int64_t tap_h = c.rows.first_tap(c.rows.residue(h));
    for (std::int64_t w = 0; w < most_w; ++w) {
      const std::int64_t first = piece.column_begin + w, count = ceil_div(columns - w, c.columns.stride);
      const std::int64_t tap_w = c.columns.first_tap(c.columns.residue(first));
      const PhaseCursor cursor(c, piece, first_row, tap_h, tap_w, first);
      compute_phase(c, s, dy, cursor, rows * count, group, panel, at);
      at += rows * count * width;
    }
    std::int64_t rank = 0;
    for (std::int64_t row = first_row; row < piece.row_end; row = next_of_phase(c.rows, row)) {
      const std::int64_t y = row % p.h, image = row / p.h;
      const T* phase = phase_rows;
      for (std::int64_t w = 0; w < most_w; ++w) {
        const std::int64_t count = ceil_div(columns - w, c.columns.stride);
        const T* pixel = phase + rank * count * width;
        for (std::int64_t i = w; i < columns; i += c.columns.stride, pixel += width) s.pixels[i] = pixel;
        phase += rows * count * width;
      }
      ++rank;
      const std::int64_t channel = group * c.outputs + panel * Panels<T>::width;
      const std::int64_t offset = nchw ? ((image * p.c + channel) * p.h + y) * p.w + piece.column_begin
                                       : ((image * p.h + y) * p.w + piece.column_begin) * p.c + channel;
      T* to = static_cast<T*>(c.args.y) + offset;
      const T* residual = c.finish.residual ? c.finish.residual + offset : nullptr;
      nchw ? store_row_nchw(c, s.pixels, columns, valid, to, residual)
           : store_row_nhwc(c, s.pixels, columns, valid, to, residual);
    }
  }
}

// Calls compute_piece for the panels `which` of one group over rows [begin, end), counted over images.
template <class T>
void compute_block(const Context<T>& c, const Scratch<T>& s, const Gradient<T>& dy, std::int64_t begin,
                   std::int64_t end, std::int64_t group, const Share& which) {
  const Pieces pieces(c.p);
  for (std::int64_t panel = which.begin; panel < which.end; ++panel) {
    for (std::int64_t row = begin; row < end; row += pieces.rows) {
      for (std::int64_t column = 0; column < c.p.w; column += pieces.columns) {
        const Piece piece{row, smaller(row + pieces.rows, end), column, smaller(column + pieces.columns, c.p.w)};
        compute_piece(c, s, dy, piece, group, panel);
      }
    }
  }
}

template <class T>
void compute(const Context<T>& c, const Scratch<T>& s, int index, int size) {
  const ConvProblem& p = c.p;
  const bool nchw = p.layout == Layout::nchw;
  const std::int64_t block = c.args.parameters->value[0], count = c.panels.count();
  const std::int64_t in_image = ceil_div(p.h, block);
  const std::int64_t blocks = nchw ? p.n * in_image : ceil_div(p.n * p.h, block);
  const Grid grid = make_grid(blocks, p.groups * count, size, c.panels.missing(p.groups));
  const Share mine = share(blocks, index / grid.columns, grid.rows);
  const Share columns = share(p.groups * count, index % grid.columns, grid.columns);
  for (std::int64_t item = mine.begin; item < mine.end; ++item) {
    for (std::int64_t group = columns.begin / count; group * count < columns.end; ++group) {
      const Share which{larger<std::int64_t>(columns.begin - group * count, 0),
                        smaller<std::int64_t>(columns.end - group * count, count)};
      const T* x = static_cast<const T*>(c.args.x);
      if (!nchw) {
        const Gradient<T> dy{x + group * c.inputs, 0, p.oh * p.ow * p.o, p.ow * p.o, p.o};
        compute_block(c, s, dy, item * block, smaller((item + 1) * block, p.n * p.h), group, which);
        continue;
      }
      const std::int64_t image = item / in_image, y = item % in_image * block, end = smaller(y + block, p.h);
      const Share needed = needed_rows(c.rows, y, end);
      const std::int64_t row = p.ow * c.inputs;
      const T* planes = x + (image * p.o + group * c.inputs) * p.oh * p.ow;
      for (std::int64_t oy = needed.begin; oy < needed.end; ++oy) {
        transpose_block(planes + oy * p.ow, p.oh * p.ow, c.inputs, p.ow, s.strip + (oy - needed.begin) * row, c.inputs,
                        EveryColumn{}, c.inputs);
      }
      const Gradient<T> dy{s.strip, needed.begin, 0, row, c.inputs};
      compute_block(c, s, dy, image * p.h + y, image * p.h + end, group, which);
    }
  }
}

template <class T>
void phases_run(const Arguments& args) {
  const ConvProblem& p = *args.problem;
  run_members<T>(
      args, worthwhile_threads(p, args.threads), pack_adjoint_panels<T>,
      [&](auto& cut) { return carve<T>(p, *args.parameters, cut); },
      [&](const T* packed) { return Context<T>(args, packed); },
      [](const Context<T>& context, const Scratch<T>& scratch, int index, int size) {
        zero_run(context.inputs, scratch.zeros);
        compute(context, scratch, index, size);
      });
}

template <class T>
constexpr Kernel phases_entry(const char* name) {
  return kernel_of<T>(
      "direct", name, Op::input_grad, layout_nchw | layout_nhwc, 1,
      {phases_schema, phases_applies, phases_candidates<T>, phases_cost<T>, phases_workspace<T>, phases_run<T>},
      {adjoint_panels_entry<T>, pack_adjoint_panels<T>});
}

constexpr Kernel kernels[] = {
    phases_entry<float>("f32_direct_phases_input_grad__" CONVKIT_ISA_NAME),
    phases_entry<double>("f64_direct_phases_input_grad__" CONVKIT_ISA_NAME),
};

}  // namespace

extern const KernelTable phases_table;
constexpr KernelTable phases_table = {kernels, sizeof kernels / sizeof kernels[0]};

}  // namespace convkit::CONVKIT_ISA
