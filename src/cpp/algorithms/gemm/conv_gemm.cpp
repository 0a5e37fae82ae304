// ConvGEMM: the im2col matrix exists only as the panel that the product is about to read. San Juan et al., "High
// performance and portable convolution operators for multicore processors", SBAC-PAD 2020.
//
// NHWC packs a block of pixel rows and multiplies it with packed panels of weights; NCHW packs a panel of pixel columns and
// multiplies the weights' rows, as they are, with it. The reduction is cut into chunks so that what was packed stays in L2;
// chunks depend on the problem alone, so results do not depend on the team.
#include "algorithms/adjoint.hpp"
#include "algorithms/entries.hpp"
#include "algorithms/gemm/columns.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

// block: pixel rows packed at a time (NHWC only); chunk: most steps of the reduction at a time.
constexpr ParameterSpec conv_gemm_schema[] = {{"block", 1, 4096}, {"chunk", 1, 1 << 30}, {nullptr, 0, 0}};

bool conv_gemm_applies(const ConvProblem&) { return true; }

// The reduction in even parts of at most `chunk` steps.
CONVKIT_INLINE ReductionPart reduction_part(std::int64_t total, std::int64_t chunk, std::int64_t index) {
  const std::int64_t parts = ceil_div(total, chunk);
  const Share part = share(total, index, parts);
  return {part.begin, part.end - part.begin, total};
}

template <class T>
int conv_gemm_candidates(const ConvProblem& p, const Machine& machine, int, Parameters* out, int capacity) {
  const std::int64_t k = reduction(p), step = TileShape<T>::panel * static_cast<std::int64_t>(sizeof(T));
  const std::int32_t whole = within(conv_gemm_schema[1], k);
  const std::int32_t third =
      smaller(within(conv_gemm_schema[1], larger<std::int64_t>(machine.l2 / 3 / step, 64)), whole);
  const std::int32_t block = p.layout == Layout::nhwc ? 96 : 1;
  int count = 0;
  out[count++] = {{block, third}};
  if (third < whole && count < capacity) out[count++] = {{block, whole}};
  if (third > 512 && count < capacity) out[count++] = {{block, 512}};
  if (p.layout == Layout::nhwc && count < capacity) out[count++] = {{48, third}};
  return count;
}

template <class T>
void conv_gemm_cost(const ConvProblem& p, const Parameters& parameters, const Machine&, int threads, Cost* out) {
  const std::int64_t k = reduction(p), pixels = p.oh * p.ow, chunks = ceil_div(k, parameters.value[1]);
  const double columns = static_cast<double>(p.n * pixels) * static_cast<double>(p.groups * k);
  if (p.layout == Layout::nhwc) {
    *out = lanes_on_outputs_cost<T>(p);
    out->efficiency *= 0.95;
    out->vector_ops += 2.5 * columns / Vec<T>::lanes +
                       12.0 * static_cast<double>(p.n * pixels) * static_cast<double>(p.groups * p.kh * p.kw);
    out->vector_ops += 2.0 * static_cast<double>(p.n * pixels * p.o) / Vec<T>::lanes * static_cast<double>(chunks - 1);
    out->bytes_l2 = columns * sizeof(T) + static_cast<double>(ceil_div(p.n * pixels, parameters.value[0])) *
                                              static_cast<double>(panels_bytes<T>(p));
    out->imbalance = grid_imbalance(ceil_div(p.n * pixels, parameters.value[0]), Panels<T>{p.o / p.groups}.count(),
                                    threads, Panels<T>{p.o / p.groups}.missing(1));
    return add_cold_packing<T>(p, static_cast<double>(panels_bytes<T>(p)), out);
  }
  const PixelPanels<T> panels(larger<std::int64_t>(pixels, 1));
  *out = {};
  out->fmas =
      static_cast<double>(p.n * p.o) * static_cast<double>(k) * static_cast<double>(round_up(pixels, Vec<T>::lanes));
  out->efficiency = 0.93 * tile_efficiency<T>(panels.split.big ? panels.split.rows + 1 : panels.split.rows);
  const double segments = static_cast<double>(p.n) * static_cast<double>(panels.count() + p.oh);
  out->vector_ops = 3.0 * columns / Vec<T>::lanes + 30.0 * segments * static_cast<double>(p.groups * k) +
                    2.0 * static_cast<double>(p.n * pixels * p.o) / Vec<T>::lanes * static_cast<double>(chunks);
  out->bytes_l2 = columns * sizeof(T) + static_cast<double>(p.n * panels.count()) * static_cast<double>(p.o) *
                                            static_cast<double>(k) * sizeof(T);
  out->bytes_dram = tensor_bytes(p, sizeof(T));
  out->imbalance = grid_imbalance(p.n * panels.count(), ceil_div(p.o / p.groups, 6), threads);
}

template <class T>
void conv_gemm_packing(const ConvProblem& p, const Parameters& parameters, Packing* out) {
  p.layout == Layout::nhwc ? panels_entry<T>(p, parameters, out) : no_packing(p, parameters, out);
}

// What one member packs at a time.
template <class T, class Cut>
CONVKIT_INLINE T* carve(const ConvProblem& p, const Parameters& parameters, Cut& carver) {
  const std::int64_t rows = p.layout == Layout::nhwc ? parameters.value[0] : TileShape<T>::panel;
  return carver.template take<T>(rows, smaller<std::int64_t>(reduction(p), parameters.value[1]));
}

template <class T>
std::int64_t conv_gemm_workspace(const ConvProblem& p, const Parameters& parameters, const Machine&, int threads) {
  return members_workspace([&](auto& cut) { return carve<T>(p, parameters, cut); }, threads,
                           p.packed || p.layout == Layout::nchw ? 0 : panels_bytes<T>(p));
}

template <class T>
void rows_member(const Arguments& args, const T* packed, T* columns, int index, int size) {
  const ConvProblem& p = *args.problem;
  const std::int64_t pixels = p.n * p.oh * p.ow, k = reduction(p), channels = p.c / p.groups;
  const std::int64_t block = args.parameters->value[0], chunk = args.parameters->value[1];
  const Panels<T> panels{p.o / p.groups};
  const Finish<T> finish(args.epilogue);
  const Grid grid = make_grid(ceil_div(pixels, 6), panels.count(), size, panels.missing(1));
  const Share rows = share(pixels, index / grid.columns, grid.rows);
  const Share which = share(panels.count(), index % grid.columns, grid.columns);
  if (which.begin == which.end) return;
  for (std::int64_t begin = rows.begin; begin < rows.end; begin += block) {
    const std::int64_t count = smaller(rows.end - begin, block);
    for (std::int64_t group = 0; group < p.groups; ++group) {
      const std::int64_t o = group * panels.outputs, first = begin * p.o + o;
      for (std::int64_t i = 0; i < ceil_div(k, chunk); ++i) {
        const ReductionPart part = reduction_part(k, chunk, i);
        fill_rows_of_pixels(p, static_cast<const T*>(args.x) + group * channels, begin, count, part.begin,
                            part.begin + part.k, columns, part.k);
        rows_product<T>(count, part, columns, part.k, packed + group * panels.padded() * k, panels, which, finish,
                        static_cast<T*>(args.y) + first, finish.bias ? finish.bias + o : nullptr,
                        finish.residual ? finish.residual + first : nullptr, p.o);
      }
    }
  }
}

template <class T>
void columns_member(const Arguments& args, T* columns, int index, int size) {
  const ConvProblem& p = *args.problem;
  const std::int64_t pixels = p.oh * p.ow, k = reduction(p), channels = p.c / p.groups, outputs = p.o / p.groups;
  const std::int64_t chunk = args.parameters->value[1];
  const PixelPanels<T> panels(pixels);
  const Finish<T> finish(args.epilogue);
  const Grid grid = make_grid(p.n * panels.count(), ceil_div(outputs, 6), size);
  const Share mine = share(p.n * panels.count(), index / grid.columns, grid.rows);
  const Share o = share(outputs, index % grid.columns, grid.columns);
  if (o.begin == o.end) return;
  for (std::int64_t item = mine.begin; item < mine.end; ++item) {
    const std::int64_t image = item / panels.count(), panel = item % panels.count();
    const std::int64_t first = panels.begin(panel), count = panels.begin(panel + 1) - first;
    const std::int64_t width = round_up(count, Vec<T>::lanes);
    for (std::int64_t group = 0; group < p.groups; ++group) {
      const std::int64_t y = (image * p.o + group * outputs) * pixels + first;
      for (std::int64_t i = 0; i < ceil_div(k, chunk); ++i) {
        const ReductionPart part = reduction_part(k, chunk, i);
        fill_columns_of_pixels(p, static_cast<const T*>(args.x) + (image * p.c + group * channels) * p.h * p.w, first,
                               count, width, part.begin, part.begin + part.k, columns, width);
        spread_product<T>(o, part, static_cast<const T*>(args.w.data) + group * outputs * k, k, columns, width, true,
                          static_cast<int>(count), finish, static_cast<T*>(args.y) + y,
                          finish.bias ? finish.bias + group * outputs : nullptr,
                          finish.residual ? finish.residual + y : nullptr, pixels);
      }
    }
  }
}

template <class T>
void conv_gemm_run(const Arguments& args) {
  const ConvProblem& p = *args.problem;
  const bool nhwc = p.layout == Layout::nhwc;
  run_members<T>(
      args, worthwhile_threads(p, args.threads), nhwc ? pack_panels<T> : nullptr,
      [&](auto& cut) { return carve<T>(p, *args.parameters, cut); }, [](const T* packed) { return packed; },
      [&](const T* packed, T* columns, int index, int size) {
        if (nhwc) {
          rows_member<T>(args, packed, columns, index, size);
        } else {
          columns_member<T>(args, columns, index, size);
        }
      });
}

template <class T>
constexpr Kernel conv_gemm_entry(const char* name) {
  return kernel_of<T>("conv_gemm", name, Op::forward, layout_nchw | layout_nhwc, 1,
                      {conv_gemm_schema, conv_gemm_applies, conv_gemm_candidates<T>, conv_gemm_cost<T>,
                       conv_gemm_workspace<T>, conv_gemm_run<T>},
                      {conv_gemm_packing<T>, pack_panels<T>});
}

constexpr Kernel kernels[] = {
    conv_gemm_entry<float>("f32_conv_gemm__" CONVKIT_ISA_NAME),
    conv_gemm_entry<double>("f64_conv_gemm__" CONVKIT_ISA_NAME),
};

}  // namespace

extern const KernelTable conv_gemm_table;
constexpr KernelTable conv_gemm_table = WithAdjoints<kernels>::table;

}  // namespace convkit::CONVKIT_ISA
