// Input gradient where taps lie apart: of a filter that reaches no further than its stride no two outputs meet in a pixel of
// dx. Every tap is a matrix product whose rows are written once, a stride apart; pixels that no tap reaches hold bias and
// residual alone.
//
// A piece is a few rows of dy with the rows of dx that belong to them, by one panel of channels. NCHW transposes the rows
// of dy into an NHWC strip, and computes a piece of dx into a band that is transposed back.
#include "algorithms/input_grad/products.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

constexpr std::int64_t piece_pixels = 48;  // of dy: enough tiles to use a panel of weights that lies in L2

bool apart_applies(const ConvProblem& p) {
  return !has_adjoint(p) && p.oh > 0 && p.ow > 0 && (p.kh - 1) * p.dilation_h < p.stride_h &&
         (p.kw - 1) * p.dilation_w < p.stride_w;
}

CONVKIT_INLINE std::int64_t piece_rows(const ConvProblem& p) { return smaller(p.oh, ceil_div(piece_pixels, p.ow)); }

template <class T>
void apart_cost(const ConvProblem& p, const Parameters&, const Machine& machine, int threads, Cost* out) {
  const ConvProblem q = adjoint_filter(p);
  const Panels<T> panels{q.o / q.groups};
  const double dy_rows = static_cast<double>(p.n * p.oh * p.kh * p.kw), dy_columns = static_cast<double>(p.ow);
  const double pixels = static_cast<double>(p.n * p.h * p.w), lanes = static_cast<double>(q.groups * panels.padded());
  const double depth = static_cast<double>(q.c / q.groups);
  const double weights = static_cast<double>(panels_bytes<T>(q));
  *out = {};
  out->fmas = dy_rows * dy_columns * lanes * depth;
  out->efficiency = tile_efficiency<T>(panels.vectors(0)) * depth / (depth + 4.0);
  const double reached = dy_rows * dy_columns * lanes / Vec<T>::lanes, all = pixels * lanes / Vec<T>::lanes;
  out->vector_ops = 2 * reached + 2 * (all - reached) + 12 * dy_rows * static_cast<double>(q.groups * panels.count());
  const double pieces = static_cast<double>(p.n * ceil_div(p.oh, piece_rows(p)));
  (weights > 0.7 * static_cast<double>(machine.l2) ? out->bytes_l3 : out->bytes_l2) += pieces * weights;
  if (p.layout == Layout::nchw) {
    out->vector_ops += 6 * static_cast<double>(p.n * p.o * p.oh * p.ow) / Vec<T>::lanes + 6 * all;
  }
  out->bytes_dram = tensor_bytes(p, sizeof(T));
  out->imbalance =
      grid_imbalance(p.n * ceil_div(p.oh, piece_rows(p)), q.groups * panels.count(), threads, panels.missing(q.groups));
  add_cold_packing<T>(p, weights, out);
}

template <class T>
struct Scratch {
  T *strip, *band;  // NCHW: a piece of dy and of dx, channels last
};

template <class T, class Cut>
CONVKIT_INLINE Scratch<T> carve(const ConvProblem& p, Cut& carver) {
  Scratch<T> s{};
  if (p.layout == Layout::nchw) {
    s.strip = carver.template take<T>(piece_rows(p) * p.ow * (p.o / p.groups));
    // The last rows of dx that no output reaches are fewer than a stride.
    s.band = carver.template take<T>(piece_rows(p) + 1, p.stride_h * p.w, TileShape<T>::panel);
  }
  return s;
}

template <class T>
std::int64_t apart_workspace(const ConvProblem& p, const Parameters&, const Machine&, int threads) {
  return products_workspace<T>(p, [&](auto& cut) { return carve<T>(p, cut); }, threads);
}

// One panel of channels of dx, and where its pixels go.
template <class T>
struct PanelOut {
  T* to;  // pixel 0 of row 0
  const T* residual;
  std::ptrdiff_t pixel_stride;
  const Epilogue* after;  // of `finish`, if the pixels are those of dx itself
};

// Rows of dx that belong to rows [begin, end) of dy.
inline Share owned_rows(const ConvProblem& p, Share rows) {
  const auto first = [&](std::int64_t row) { return larger<std::int64_t>(row * p.stride_h - p.pad_top, 0); };
  return {rows.begin == 0 ? 0 : smaller(first(rows.begin), p.h),
          rows.end == p.oh ? p.h : smaller(first(rows.end), p.h)};
}

template <class T>
void fill(const ProductContext<T>& c, std::int64_t pixels, const T* bias, const T* residual, int valid, T* to,
          std::ptrdiff_t stride, const Epilogue* after) {
  if (pixels <= 0) return;
  fill_pixels(pixels, bias, residual, valid, to, stride);
  clamp_rows(c.finish, pixels, valid, to, stride);
  if (after) activate_rows(to, pixels, stride, valid, *after);
}

// One row of dx; `dy` is its row of dy, or null if no tap takes one there, `tap_h` the tap.
template <class T>
void compute_row(const ProductContext<T>& c, std::int64_t tap_h, const T* dy, std::ptrdiff_t dy_stride,
                 std::int64_t group, std::int64_t panel, const T* bias, const PanelOut<T>& row) {
  const ConvProblem& p = c.p;
  const int nv = c.panels.vectors(panel), valid = c.panels.valid(panel);
  if (!dy) {
    fill(c, p.w, bias, row.residual, valid, row.to, row.pixel_stride, row.after);
    return;
  }
  const std::int64_t k = c.inputs * p.kh * p.kw;
  const T* const weights = c.packed + group * c.panels.padded() * k + c.panels.offset(panel, k);
  const std::ptrdiff_t stride = p.stride_w * row.pixel_stride;
  for (std::int64_t first = 0; first < smaller(p.stride_w, p.w); ++first) {
    const std::int64_t residue = c.across.residue(first), tap_w = c.across.first_tap(residue);
    const std::int64_t output = (first + p.pad_left) / p.stride_w, pixels = ceil_div(p.w - first, p.stride_w);
    const std::int64_t reached = tap_w == p.kw ? 0 : smaller(larger<std::int64_t>(p.ow - output, 0), pixels);
    T* const to = row.to + first * row.pixel_stride;
    const T* const residual = row.residual ? row.residual + first * row.pixel_stride : nullptr;
    if (reached > 0) {
      // Packed rotated: see adjoint.hpp.
      const T* const b = weights + ((p.kh - 1 - tap_h) * p.kw + p.kw - 1 - tap_w) * c.inputs * nv * Vec<T>::lanes;
      for_row_tiles(
          reached, TileShape<T>::rows(nv), [&](int height, std::int64_t count, std::int64_t at) CONVKIT_LAMBDA {
            const TileOut<T> out{to + at * stride,
                                 stride,
                                 bias,
                                 residual ? residual + at * stride : nullptr,
                                 c.finish.lo,
                                 c.finish.hi,
                                 c.panels.tail(panel),
                                 false,
                                 c.finish.clamp};
            strided_tiles<T>(nv, height, count, c.inputs, dy + (output + at) * dy_stride, dy_stride, 1, b, out);
          });
      if (row.after) activate_rows(to, reached, stride, valid, *row.after);
    }
    fill(c, pixels - reached, bias, residual ? residual + reached * stride : nullptr, valid, to + reached * stride,
         stride, row.after);
  }
}

// Rows [rows.begin, rows.end) of dy of one image; `dy` points at the first of them.
template <class T>
void compute_piece(const ProductContext<T>& c, Share rows, const T* dy, std::ptrdiff_t dy_stride, std::int64_t group,
                   std::int64_t panel, const PanelOut<T>& first) {
  const ConvProblem& p = c.p;
  const Share owned = owned_rows(c.p, rows);
  const T* const bias = c.finish.bias ? c.finish.bias + group * c.panels.outputs + panel * Panels<T>::width : nullptr;
  for (std::int64_t y = owned.begin; y < owned.end; ++y) {
    const std::int64_t tap = c.down.first_tap(c.down.residue(y)), output = (y + p.pad_top) / p.stride_h;
    const bool reached = tap < p.kh && output < p.oh;
    const std::ptrdiff_t at = (y - owned.begin) * p.w * first.pixel_stride;
    compute_row(c, tap, reached ? dy + (output - rows.begin) * p.ow * dy_stride : nullptr, dy_stride, group, panel,
                bias, {first.to + at, first.residual ? first.residual + at : nullptr, first.pixel_stride, first.after});
  }
}

template <class T>
void compute(const ProductContext<T>& c, const Scratch<T>& s, int index, int size) {
  const ConvProblem& p = c.p;
  const std::int64_t count = c.panels.count(), in_image = ceil_div(p.oh, piece_rows(p));
  const Grid grid = make_grid(p.n * in_image, p.groups * count, size, c.panels.missing(p.groups));
  const Share mine = share(p.n * in_image, index / grid.columns, grid.rows);
  const Share columns = share(p.groups * count, index % grid.columns, grid.columns);
  const std::int64_t pixels = p.h * p.w, dy_pixels = p.oh * p.ow;
  for (std::int64_t item = mine.begin; item < mine.end; ++item) {
    const std::int64_t image = item / in_image, piece = item % in_image;
    const Share rows{piece * piece_rows(p), smaller((piece + 1) * piece_rows(p), p.oh)}, owned = owned_rows(c.p, rows);
    std::int64_t in_strip = -1;
    for (std::int64_t column = columns.begin; column < columns.end; ++column) {
      const std::int64_t group = column / count, panel = column % count;
      const std::int64_t channel = group * c.panels.outputs + panel * Panels<T>::width;
      const T* const x = static_cast<const T*>(c.args.x);
      T* const y = static_cast<T*>(c.args.y);
      if (p.layout == Layout::nhwc) {
        const std::ptrdiff_t at = (image * pixels + owned.begin * p.w) * p.c + channel;
        compute_piece(c, rows, x + (image * dy_pixels + rows.begin * p.ow) * p.o + group * c.inputs, p.o, group, panel,
                      PanelOut<T>{y + at, c.finish.residual ? c.finish.residual + at : nullptr, p.c, c.finish.after});
        continue;
      }
      if (group != in_strip) {
        const T* const planes = x + (image * p.o + group * c.inputs) * dy_pixels + rows.begin * p.ow;
        transpose_block(planes, dy_pixels, c.inputs, (rows.end - rows.begin) * p.ow, s.strip, c.inputs, EveryColumn{},
                        c.inputs);
        in_strip = group;
      }
      const int valid = c.panels.valid(panel);
      const std::ptrdiff_t width = c.panels.vectors(panel) * Vec<T>::lanes;
      const std::ptrdiff_t at = (image * p.c + channel) * pixels + owned.begin * p.w;
      const std::int64_t band = (owned.end - owned.begin) * p.w;
      if (c.finish.residual) transpose_block(c.finish.residual + at, pixels, valid, band, s.band, width);
      compute_piece(c, rows, s.strip, c.inputs, group, panel,
                    PanelOut<T>{s.band, c.finish.residual ? s.band : nullptr, width, nullptr});
      transpose_block(s.band, width, band, valid, y + at, pixels);
      if (c.finish.after) activate_rows(y + at, valid, pixels, band, *c.finish.after);
    }
  }
}

template <class T>
void apart_run(const Arguments& args) {
  run_products<T>(args, [&](Carver& cut) { return carve<T>(*args.problem, cut); }, compute<T>);
}

template <class T>
constexpr Kernel apart_entry(const char* name) {
  return kernel_of<T>("direct", name, Op::input_grad, layout_nchw | layout_nhwc, 1,
                      {no_parameters, apart_applies, one_candidate, apart_cost<T>, apart_workspace<T>, apart_run<T>},
                      {adjoint_panels_entry<T>, pack_adjoint_panels<T>});
}

constexpr Kernel kernels[] = {
    apart_entry<float>("f32_direct_apart_input_grad__" CONVKIT_ISA_NAME),
    apart_entry<double>("f64_direct_apart_input_grad__" CONVKIT_ISA_NAME),
};

}  // namespace

extern const KernelTable apart_table;
constexpr KernelTable apart_table = {kernels, sizeof kernels / sizeof kernels[0]};

}  // namespace convkit::CONVKIT_ISA
