// Input gradient as a matrix product whose rows are added to dx as they leave the registers: GEMM with col2im fused in the
// store. The matrix of columns, KH * KW times as large as dx, never exists.
//
// Each member owns whole images and panels of channels, and adds a row of dy, tap after tap, to the pixels of dx that the tap
// takes it to: no two members write to one place, and every sum has a fixed order. NCHW adds to an NHWC band of dx in the
// workspace, whose rows are transposed to dx once nothing is added to them any more.
#include "algorithms/input_grad/products.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

bool col2im_applies(const ConvProblem&) { return true; }

template <class T>
void col2im_cost(const ConvProblem& p, const Parameters&, const Machine& machine, int threads, Cost* out) {
  const ConvProblem q = adjoint_filter(p);
  const Panels<T> panels{q.o / q.groups};
  const double rows = static_cast<double>(p.n * p.oh * p.ow * p.kh * p.kw);
  const double lanes = static_cast<double>(q.groups * panels.padded());
  const double depth = static_cast<double>(q.c / q.groups);
  const double weights = static_cast<double>(panels_bytes<T>(q));
  *out = {};
  out->fmas = rows * lanes * depth;
  out->efficiency = tile_efficiency<T>(panels.vectors(0)) * depth / (depth + 4.0);
  // Every product is loaded, added and stored again; dx is filled first and finished last.
  out->vector_ops = 2.0 * rows * lanes / Vec<T>::lanes +
                    4.0 * static_cast<double>(p.n * p.h * p.w) * lanes / Vec<T>::lanes +
                    12.0 * static_cast<double>(p.n * p.oh * p.kh * p.kw * q.groups * panels.count());
  out->bytes_l2 = rows * lanes * sizeof(T);
  (weights > 0.7 * static_cast<double>(machine.l2) ? out->bytes_l3 : out->bytes_l2) +=
      static_cast<double>(p.n * p.oh) * weights;
  if (p.layout == Layout::nchw) {
    out->vector_ops += 8.0 * static_cast<double>(p.n * p.o * p.oh * p.ow * panels.count()) / Vec<T>::lanes +
                       6.0 * static_cast<double>(p.n * p.h * p.w) * lanes / Vec<T>::lanes;
  }
  out->bytes_dram = tensor_bytes(p, sizeof(T));
  out->imbalance = grid_imbalance(p.n, q.groups * panels.count(), threads);
  add_cold_packing<T>(p, weights, out);
}

template <class T>
struct Scratch {
  T *band, *row;  // NCHW: dx of one image and panel, and a row of dy, channels last
};

template <class T, class Cut>
CONVKIT_INLINE Scratch<T> carve(const ConvProblem& p, Cut& carver) {
  Scratch<T> s{};
  if (p.layout == Layout::nchw) {
    s.band = carver.template take<T>(p.h * p.w, TileShape<T>::panel);
    s.row = carver.template take<T>(p.ow * (p.o / p.groups));
  }
  return s;
}

template <class T>
std::int64_t col2im_workspace(const ConvProblem& p, const Parameters&, const Machine&, int threads) {
  return products_workspace<T>(p, [&](auto& cut) { return carve<T>(p, cut); }, threads);
}

// The outputs [begin, end) whose tap lies inside dx along an axis.
CONVKIT_INLINE Share reaching(const Axis& axis, std::int64_t tap) {
  const std::int64_t shift = tap * axis.dilation - axis.pad;  // input = output * stride + shift
  const std::int64_t begin = shift >= 0 ? 0 : ceil_div(-shift, axis.stride);
  const std::int64_t inside = axis.inputs - 1 - shift;
  const std::int64_t end = inside < 0 ? 0 : smaller(inside / axis.stride + 1, axis.outputs);
  return {smaller(begin, end), end};
}

// Adds one row of dy to dx. `dx` is the panel's first channel of the image's first pixel.
template <class T>
void add_row(const ProductContext<T>& c, std::int64_t oy, const T* dy, std::ptrdiff_t dy_stride, std::int64_t group,
             std::int64_t panel, T* dx, std::ptrdiff_t pixel_stride) {
  const ConvProblem& p = c.p;
  const int nv = c.panels.vectors(panel);
  const std::int64_t k = c.inputs * p.kh * p.kw;
  const T* const weights = c.packed + group * c.panels.padded() * k + c.panels.offset(panel, k);
  for (std::int64_t kh = 0; kh < p.kh; ++kh) {
    const std::int64_t y = oy * p.stride_h - p.pad_top + kh * p.dilation_h;
    if (y < 0 || y >= p.h) continue;
    for (std::int64_t kw = 0; kw < p.kw; ++kw) {
      const Share outputs = reaching(c.across, kw);
      if (outputs.begin == outputs.end) continue;
      const std::int64_t x = outputs.begin * p.stride_w - p.pad_left + kw * p.dilation_w;
      T* const to = dx + (y * p.w + x) * pixel_stride;
      const std::ptrdiff_t stride = p.stride_w * pixel_stride;
      // Packed rotated: see adjoint.hpp.
      const T* b = weights + ((p.kh - 1 - kh) * p.kw + p.kw - 1 - kw) * c.inputs * nv * Vec<T>::lanes;
      for_row_tiles(outputs.end - outputs.begin, TileShape<T>::rows(nv),
                    [&](int height, std::int64_t count, std::int64_t row) CONVKIT_LAMBDA {
                      const TileOut<T> out{to + row * stride,    stride, nullptr, nullptr, c.finish.lo, c.finish.hi,
                                           c.panels.tail(panel), true,   false};
                      strided_tiles<T>(nv, height, count, c.inputs, dy + (outputs.begin + row) * dy_stride, dy_stride,
                                       1, b, out);
                    });
    }
  }
}

template <class T>
void compute(const ProductContext<T>& c, const Scratch<T>& scratch, int index, int size) {
  const ConvProblem& p = c.p;
  const bool nchw = p.layout == Layout::nchw;
  const std::int64_t count = c.panels.count(), pixels = p.h * p.w, dy_pixels = p.oh * p.ow;
  const Share mine = share(p.n * p.groups * count, index, size);
  for (std::int64_t item = mine.begin; item < mine.end; ++item) {
    const std::int64_t image = item / count / p.groups, group = item / count % p.groups, panel = item % count;
    const int valid = c.panels.valid(panel);
    const std::int64_t channel = group * c.panels.outputs + panel * Panels<T>::width;
    const T* bias = c.finish.bias ? c.finish.bias + channel : nullptr;
    const T* x = static_cast<const T*>(c.args.x);
    T* const y = static_cast<T*>(c.args.y) + (nchw ? (image * p.c + channel) * pixels : image * pixels * p.c + channel);
    const T* const residual = c.finish.residual ? c.finish.residual + (y - static_cast<T*>(c.args.y)) : nullptr;
    if (!nchw) {
      const T* dy = x + image * dy_pixels * p.o + group * c.inputs;
      fill_pixels(pixels, bias, residual, valid, y, p.c);
      for (std::int64_t oy = 0; oy < p.oh; ++oy) add_row(c, oy, dy + oy * p.ow * p.o, p.o, group, panel, y, p.c);
      finish_rows(c.finish, pixels, valid, y, p.c);
      continue;
    }
    const std::ptrdiff_t width = c.panels.vectors(panel) * Vec<T>::lanes;
    const T* planes = x + (image * p.o + group * c.inputs) * dy_pixels;
    if (residual) transpose_block(residual, pixels, valid, pixels, scratch.band, width);
    fill_pixels(pixels, bias, residual ? scratch.band : nullptr, valid, scratch.band, width);
    for (std::int64_t oy = 0; oy < p.oh; ++oy) {
      transpose_block(planes + oy * p.ow, dy_pixels, c.inputs, p.ow, scratch.row, c.inputs, EveryColumn{}, c.inputs);
      add_row(c, oy, scratch.row, c.inputs, group, panel, scratch.band, width);
    }
    transpose_block(scratch.band, width, pixels, valid, y, pixels);
    finish_rows(c.finish, valid, pixels, y, pixels);
  }
}

template <class T>
void col2im_run(const Arguments& args) {
  run_products<T>(args, [&](Carver& cut) { return carve<T>(*args.problem, cut); }, compute<T>);
}

template <class T>
constexpr Kernel col2im_entry(const char* name) {
  return kernel_of<T>(
      "col2im", name, Op::input_grad, layout_nchw | layout_nhwc, 1,
      {no_parameters, col2im_applies, one_candidate, col2im_cost<T>, col2im_workspace<T>, col2im_run<T>},
      {adjoint_panels_entry<T>, pack_adjoint_panels<T>});
}

constexpr Kernel kernels[] = {
    col2im_entry<float>("f32_col2im_input_grad__" CONVKIT_ISA_NAME),
    col2im_entry<double>("f64_col2im_input_grad__" CONVKIT_ISA_NAME),
};

}  // namespace

extern const KernelTable col2im_table;
constexpr KernelTable col2im_table = {kernels, sizeof kernels / sizeof kernels[0]};

}  // namespace convkit::CONVKIT_ISA
