// im2col + GEMM as the published systems describe it: the whole matrix of one image (and group) is written, then
// multiplied. The baseline that the other algorithms are measured against.
#include "algorithms/adjoint.hpp"
#include "algorithms/entries.hpp"
#include "algorithms/gemm/columns.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

bool im2col_applies(const ConvProblem&) { return true; }

template <class T>
void im2col_cost(const ConvProblem& p, const Parameters&, const Machine& machine, int threads, Cost* out) {
  const std::int64_t k = reduction(p), pixels = p.oh * p.ow;
  const double matrix = static_cast<double>(pixels) * static_cast<double>(k) * sizeof(T);
  const double all = matrix * static_cast<double>(p.n * p.groups);
  if (p.layout == Layout::nhwc) {
    *out = lanes_on_outputs_cost<T>(p);
    add_cold_packing<T>(p, static_cast<double>(panels_bytes<T>(p)), out);
  } else {
    *out = {};
    out->fmas =
        static_cast<double>(p.n * p.o) * static_cast<double>(k) * static_cast<double>(round_up(pixels, Vec<T>::lanes));
    const PixelPanels<T> panels(larger<std::int64_t>(pixels, 1));
    out->efficiency = 0.93 * tile_efficiency<T>(panels.split.big ? panels.split.rows + 1 : panels.split.rows);
    out->bytes_dram = tensor_bytes(p, sizeof(T));
  }
  // Rows of columns are short runs in NCHW, each with its own ends.
  const double run = p.layout == Layout::nhwc ? 12.0 : 30.0;
  out->vector_ops +=
      3.0 * all / sizeof(T) / Vec<T>::lanes + run * static_cast<double>(p.n * p.oh) * static_cast<double>(p.groups * k);
  (matrix > static_cast<double>(machine.l3) / 2   ? out->bytes_dram
   : matrix > static_cast<double>(machine.l2) / 2 ? out->bytes_l3
                                                  : out->bytes_l2) += 3.0 * all;
  out->imbalance = grid_imbalance(ceil_div(pixels, 6), 1, threads);
  out->barriers += static_cast<std::int32_t>(smaller<std::int64_t>(2 * p.n * p.groups, 1 << 20));
}

template <class T>
void im2col_packing(const ConvProblem& p, const Parameters& parameters, Packing* out) {
  p.layout == Layout::nhwc ? panels_entry<T>(p, parameters, out) : no_packing(p, parameters, out);
}

template <class T>
CONVKIT_INLINE std::int64_t matrix_bytes(const ConvProblem& p) {
  return round_up(bounded_product(p.oh * p.ow, reduction(p), static_cast<std::int64_t>(sizeof(T))), 64);
}

template <class T>
std::int64_t im2col_workspace(const ConvProblem& p, const Parameters&, const Machine&, int) {
  return bounded_sum(matrix_bytes<T>(p), p.packed || p.layout == Layout::nchw ? 0 : panels_bytes<T>(p));
}

template <class T>
void rows_image(const Arguments& args, const T* packed, T* matrix, std::int64_t image, std::int64_t group, int index,
                int size) {
  const ConvProblem& p = *args.problem;
  const std::int64_t pixels = p.oh * p.ow, k = reduction(p);
  const Panels<T> panels{p.o / p.groups};
  const Finish<T> finish(args.epilogue);
  const Share filled = share(pixels, index, size);
  fill_rows_of_pixels(p, static_cast<const T*>(args.x) + group * (p.c / p.groups), image * pixels + filled.begin,
                      filled.end - filled.begin, 0, k, matrix + filled.begin * k, k);
  team_barrier();
  const Grid grid = make_grid(ceil_div(pixels, 6), panels.count(), size, panels.missing(1));
  const Share rows = share(pixels, index / grid.columns, grid.rows);
  const Share which = share(panels.count(), index % grid.columns, grid.columns);
  const std::int64_t o = group * panels.outputs, block = 96;
  for (std::int64_t begin = rows.begin; begin < rows.end; begin += block) {
    const std::int64_t first = (image * pixels + begin) * p.o + o;
    rows_product<T>(smaller(rows.end - begin, block), {0, k, k}, matrix + begin * k, k,
                    packed + group * panels.padded() * k, panels, which, finish, static_cast<T*>(args.y) + first,
                    finish.bias ? finish.bias + o : nullptr, finish.residual ? finish.residual + first : nullptr, p.o);
  }
}

template <class T>
void columns_image(const Arguments& args, T* matrix, std::int64_t image, std::int64_t group, int index, int size) {
  const ConvProblem& p = *args.problem;
  const std::int64_t pixels = p.oh * p.ow, k = reduction(p), outputs = p.o / p.groups;
  const Finish<T> finish(args.epilogue);
  const Share filled = share(k, index, size);
  fill_columns_of_pixels(p, static_cast<const T*>(args.x) + (image * p.c + group * (p.c / p.groups)) * p.h * p.w, 0,
                         pixels, pixels, filled.begin, filled.end, matrix + filled.begin * pixels, pixels);
  team_barrier();
  const PixelPanels<T> panels(pixels);
  const Grid grid = make_grid(panels.count(), ceil_div(outputs, 6), size);
  const Share mine = share(panels.count(), index / grid.columns, grid.rows);
  const Share o = share(outputs, index % grid.columns, grid.columns);
  for (std::int64_t panel = mine.begin; panel < mine.end && o.begin < o.end; ++panel) {
    const std::int64_t first = panels.begin(panel), count = panels.begin(panel + 1) - first;
    const std::int64_t y = (image * p.o + group * outputs) * pixels + first;
    spread_product<T>(o, {0, k, k}, static_cast<const T*>(args.w.data) + group * outputs * k, k, matrix + first, pixels,
                      false, static_cast<int>(count), finish, static_cast<T*>(args.y) + y,
                      finish.bias ? finish.bias + group * outputs : nullptr,
                      finish.residual ? finish.residual + y : nullptr, pixels);
  }
}

template <class T>
void im2col_run(const Arguments& args) {
  const ConvProblem& p = *args.problem;
  T* const matrix = static_cast<T*>(args.workspace);
  const T* const packed = packed_weights<T>(args, p.layout == Layout::nhwc ? pack_panels<T> : nullptr,
                                            static_cast<char*>(args.workspace) + matrix_bytes<T>(p));
  auto member = [&](int index, int size) {
    for (std::int64_t image = 0; image < p.n; ++image) {
      for (std::int64_t group = 0; group < p.groups; ++group) {
        if (p.layout == Layout::nhwc) {
          rows_image<T>(args, packed, matrix, image, group, index, size);
        } else {
          columns_image<T>(args, matrix, image, group, index, size);
        }
        team_barrier();
      }
    }
  };
  team(worthwhile_threads(p, args.threads), member);
}

template <class T>
constexpr Kernel im2col_entry(const char* name) {
  return kernel_of<T>(
      "im2col", name, Op::forward, layout_nchw | layout_nhwc, 1,
      {no_parameters, im2col_applies, one_candidate, im2col_cost<T>, im2col_workspace<T>, im2col_run<T>},
      {im2col_packing<T>, pack_panels<T>});
}

constexpr Kernel kernels[] = {
    im2col_entry<float>("f32_im2col__" CONVKIT_ISA_NAME),
    im2col_entry<double>("f64_im2col__" CONVKIT_ISA_NAME),
};

}  // namespace

extern const KernelTable im2col_table;
constexpr KernelTable im2col_table = WithAdjoints<kernels>::table;

}  // namespace convkit::CONVKIT_ISA
