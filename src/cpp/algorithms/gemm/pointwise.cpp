// 1x1 convolution: a matrix product on the tensors as they are.
//
// NHWC, stride 1, no padding: rows of pixels times packed panels of outputs. The channels may lie in several images.
//
// NCHW: the weights' rows times columns of pixels. Both stay as they are: a panel of B is touched once per tile of outputs
// and its rows are contiguous, so packing never pays. Pixels that fill no vector go with lanes on channels.
//
// NCHW, outputs: packed panels of outputs, walking down the columns, and through a transpose of an L1 scratch on the way to
// y; for small images, whose columns fill few vectors.
//
// NCHW with strides or pads: the pixels that are read are copied first, plane by plane, and are then the tensor as it is.
#include "algorithms/adjoint.hpp"
#include "microkernels/dot_tile.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

constexpr ParameterSpec rows_schema[] = {{"block", 1, 1 << 20}, {nullptr, 0, 0}};

bool pointwise_applies(const ConvProblem& p) {
  return p.kh == 1 && p.kw == 1 && p.stride_h == 1 && p.stride_w == 1 && p.pad_top == 0 && p.pad_bottom == 0 &&
         p.pad_left == 0 && p.pad_right == 0;
}

// --- NHWC -------------------------------------------------------------------------------------------------------------

template <class T>
int rows_candidates(const ConvProblem& p, const Machine& machine, int, Parameters* out, int capacity) {
  // A block of input rows stays in half of L1 or L2 while all panels pass over it.
  const std::int64_t row_bytes = larger<std::int64_t>(p.c / p.groups, 1) * static_cast<std::int64_t>(sizeof(T));
  const std::int64_t sizes[] = {machine.l2 / 4, machine.l1d / 2, machine.l2};
  int count = 0;
  for (const std::int64_t bytes : sizes) {
    const std::int64_t rows = round_up(larger<std::int64_t>(bytes / row_bytes, 1), 12);
    const std::int32_t block = within(rows_schema[0], rows);
    if (count < capacity && (count == 0 || out[count - 1].value[0] != block)) out[count++] = {{block}};
  }
  return count;
}

template <class T>
void rows_cost(const ConvProblem& p, const Parameters& parameters, const Machine&, int threads, Cost* out) {
  *out = lanes_on_outputs_cost<T>(p);
  const std::int64_t pixels = p.n * p.oh * p.ow;
  out->bytes_l2 = static_cast<double>(ceil_div(pixels, parameters.value[0])) * static_cast<double>(panels_bytes<T>(p));
  const Panels<T> panels{p.o / p.groups};
  out->imbalance = grid_imbalance(ceil_div(pixels, 6), p.groups * panels.count(), threads, panels.missing(p.groups));
  add_cold_packing<T>(p, static_cast<double>(panels_bytes<T>(p)), out);
}

template <class T>
std::int64_t rows_workspace(const ConvProblem& p, const Parameters&, const Machine&, int) {
  return p.packed ? 0 : panels_bytes<T>(p);
}

// Pixels `rows` whose channels lie in several images, times the panels `which`. Each part is a part of the reduction; so few
// rows at a time that y stays in L1 from one to the next.
template <class T>
void multiply_parts(const Arguments& args, const Finish<T>& finish, const T* packed, const Share& rows,
                    const Share& which) {
  constexpr std::int64_t most = 48;
  const ConvProblem& p = *args.problem;
  const Panels<T> panels{p.o};
  for (std::int64_t begin = rows.begin; begin < rows.end; begin += most) {
    const std::int64_t count = smaller(rows.end - begin, most);
    for (std::int64_t panel = which.begin; panel < which.end; ++panel) {
      ReductionPart part{0, 0, p.c};
      for (int i = 0; i < args.parts->count; ++i, part.begin += part.k) {
        const Parts::Part& x = args.parts->part[i];
        part.k = x.channels;
        rows_product<T>(count, part, static_cast<const T*>(x.from) + begin * x.stride, x.stride, packed, panels,
                        {panel, panel + 1}, finish, static_cast<T*>(args.y) + begin * p.o, finish.bias,
                        finish.residual ? finish.residual + begin * p.o : nullptr, p.o);
      }
    }
  }
}

template <class T>
void rows_run(const Arguments& args) {
  const ConvProblem& p = *args.problem;
  const T* const packed = packed_weights<T>(args, pack_panels<T>, static_cast<char*>(args.workspace));
  const Panels<T> panels{p.o / p.groups};
  const std::int64_t pixels = p.n * p.oh * p.ow, channels = p.c / p.groups, count = panels.count();
  const Finish<T> finish(args.epilogue);
  const ReductionPart whole{0, channels, channels};
  auto member = [&](int index, int size) {
    const Grid grid = make_grid(ceil_div(pixels, 6), p.groups * count, size, panels.missing(p.groups));
    const Share rows = share(pixels, index / grid.columns, grid.rows);
    const Share columns = share(p.groups * count, index % grid.columns, grid.columns);
    if (args.parts) return multiply_parts(args, finish, packed, rows, columns);
    for (std::int64_t begin = rows.begin; begin < rows.end; begin += args.parameters->value[0]) {
      const std::int64_t block = smaller<std::int64_t>(rows.end - begin, args.parameters->value[0]);
      for (std::int64_t group = columns.begin / count; group * count < columns.end; ++group) {
        const Share which{larger<std::int64_t>(columns.begin - group * count, 0),
                          smaller<std::int64_t>(columns.end - group * count, count)};
        const std::int64_t o = group * panels.outputs;
        rows_product<T>(block, whole, static_cast<const T*>(args.x) + begin * p.c + group * channels, p.c,
                        packed + group * panels.padded() * channels, panels, which, finish,
                        static_cast<T*>(args.y) + begin * p.o + o, finish.bias ? finish.bias + o : nullptr,
                        finish.residual ? finish.residual + begin * p.o + o : nullptr, p.o);
      }
    }
  };
  team(worthwhile_threads(p, args.threads), member);
}

// --- NCHW -------------------------------------------------------------------------------------------------------------

bool planes_apply(const ConvProblem& p) { return p.kh == 1 && p.kw == 1; }

// The pixels of x that are read; nothing where that is all of them.
CONVKIT_INLINE std::int64_t copied_elements(const ConvProblem& p) {
  return pointwise_applies(p) ? 0 : round_up(p.n * p.c * p.oh * p.ow, 16);
}

// x, or a copy of the pixels that are read in `to`.
template <class T>
const T* read_pixels(const Arguments& args, T* to) {
  const ConvProblem& p = *args.problem;
  const T* const x = static_cast<const T*>(args.x);
  if (pointwise_applies(p)) return x;
  const std::int64_t pixels = p.oh * p.ow;
  auto member = [&](int index, int size) {
    const Share planes = share(p.n * p.c, index, size);
    for (std::int64_t i = planes.begin; i < planes.end; ++i) {
      fill_columns_of_pixels(p, x + i * p.h * p.w, 0, pixels, pixels, 0, 1, to + i * pixels, pixels);
    }
  };
  team(worthwhile_threads(p, args.threads), member);
  return to;
}

template <class T>
void add_copy(const ConvProblem& p, Cost* cost) {
  const double copied = static_cast<double>(copied_elements(p));
  if (copied == 0) return;
  cost->vector_ops += 4 * copied / Vec<T>::lanes;
  cost->bytes_l3 += 2 * copied * sizeof(T);
  cost->barriers += 1;
}

constexpr std::int64_t scratch_pixels = 48;
template <class T>
constexpr std::int64_t scratch_elements = scratch_pixels * TileShape<T>::panel;

// NCHW with lanes on outputs: pixels [block.begin, block.end), at most scratch_pixels, of one image times one panel.
template <class T>
void multiply_block(const Arguments& args, const Finish<T>& finish, const T* input, const T* packed, std::int64_t image,
                    std::int64_t group, std::int64_t panel, const Share& block, T* scratch) {
  const ConvProblem& p = *args.problem;
  const std::int64_t pixels = p.oh * p.ow, channels = p.c / p.groups;
  const Panels<T> panels{p.o / p.groups};
  const std::int64_t o = group * panels.outputs + panel * Panels<T>::width;
  const int nv = panels.vectors(panel), width = nv * Vec<T>::lanes;
  const T* x = input + (image * p.c + group * channels) * pixels + block.begin;
  const T* b = packed + group * panels.padded() * channels + panels.offset(panel, channels);
  for_row_tiles(
      block.end - block.begin, TileShape<T>::rows(nv),
      [&](int height, std::int64_t tiles_, std::int64_t row) CONVKIT_LAMBDA {
        const TileOut<T> out{
            scratch + row * width, width, finish.bias ? finish.bias + o : nullptr, nullptr, finish.lo, finish.hi,
            panels.tail(panel),    false, finish.clamp && !finish.residual};
        strided_tiles<T>(nv, height, tiles_, channels, x + row, 1, pixels, b, out);
      });
  const std::int64_t y = (image * p.o + o) * pixels + block.begin;
  store_panel(finish, scratch, width, block.end - block.begin, panels.valid(panel), static_cast<T*>(args.y) + y,
              finish.residual ? finish.residual + y : nullptr, pixels);
}

// Pixels of an image that fill no vector and go with lanes on channels instead, unless a masked vector does as well.
template <class T>
CONVKIT_INLINE std::int64_t odd_pixels(const ConvProblem& p) {
  constexpr int lanes = Vec<T>::lanes;
  const std::int64_t odd = p.oh * p.ow % lanes, k = p.c / p.groups;
  return 5 * odd * (k / lanes + 4) < 4 * k ? odd : 0;
}

// Weights that stay in L1 or near while all pixels of a part of L2 pass over them.
template <class T>
struct ColumnBlocks {
  std::int64_t outputs, panels;
  ColumnBlocks(const ConvProblem& p, const Machine& machine) {
    const std::int64_t row = p.c / p.groups * static_cast<std::int64_t>(sizeof(T));
    outputs = round_up(larger<std::int64_t>(machine.l2 / 16 / row, 1), 24);
    panels = larger<std::int64_t>(machine.l2 / 2 / (row * TileShape<T>::panel), 1);
  }
};

template <class T>
void columns_cost(const ConvProblem& p, const Parameters&, const Machine&, int threads, Cost* out) {
  const std::int64_t odd = odd_pixels<T>(p), pixels = p.oh * p.ow - odd, k = p.c / p.groups;
  const double outputs = static_cast<double>(p.n * p.o), sums = outputs * static_cast<double>(odd);
  *out = {};
  out->fmas = outputs * static_cast<double>(k * (round_up(pixels, Vec<T>::lanes) + odd));
  out->efficiency = 0.8;
  std::int64_t panels = 1;
  if (pixels) {
    const PixelPanels<T> split(pixels);
    panels = split.count();
    out->efficiency = tile_efficiency<T>(split.split.big ? split.split.rows + 1 : split.split.rows) *
                      (pixels % Vec<T>::lanes ? 0.97 : 1.0);
  }
  out->vector_ops = outputs * static_cast<double>(ceil_div(pixels, Vec<T>::lanes)) * 2 + 6 * sums;
  out->bytes_l2 = static_cast<double>(p.n * (panels + (odd ? 1 : 0)) * p.o * k) * sizeof(T);
  out->bytes_dram = tensor_bytes(p, sizeof(T));
  out->imbalance = grid_imbalance(p.n * panels, p.groups * ceil_div(p.o / p.groups, 6), threads);
  add_copy<T>(p, out);
}

// A member's scratch: the channels of odd pixels, one pixel after the other.
template <class T>
CONVKIT_INLINE std::int64_t odd_elements(const ConvProblem& p) {
  return odd_pixels<T>(p) * round_up(p.c / p.groups, 16);
}

template <class T>
std::int64_t columns_workspace(const ConvProblem& p, const Parameters&, const Machine&, int threads) {
  return (copied_elements(p) + threads * odd_elements<T>(p)) * static_cast<std::int64_t>(sizeof(T));
}

template <class T>
void columns_run(const Arguments& args) {
  const ConvProblem& p = *args.problem;
  const std::int64_t image_pixels = p.oh * p.ow, channels = p.c / p.groups, outputs = p.o / p.groups;
  const std::int64_t odd = odd_pixels<T>(p), whole = image_pixels - odd;
  const T* const weights = static_cast<const T*>(args.w.data);
  T* const odd_channels = static_cast<T*>(args.workspace);
  const T* const input = read_pixels(args, odd_channels + args.threads * odd_elements<T>(p));
  const PixelPanels<T> pixels(larger<std::int64_t>(whole, 1));
  // Odd pixels go with the last panel: alone they would be too little for a member.
  const std::int64_t panels = whole ? pixels.count() : 0, items = larger<std::int64_t>(panels, 1);
  const Finish<T> finish(args.epilogue);
  const ReductionPart all{0, channels, channels};
  const ColumnBlocks<T> blocks(p, *args.machine);
  auto member = [&](int index, int size) {
    const Grid grid = make_grid(p.n * items, ceil_div(outputs, 6), size);
    const Share mine = share(p.n * items, index / grid.columns, grid.rows);
    const Share o = share(outputs, index % grid.columns, grid.columns);
    T* const scratch = odd_channels + index * odd_elements<T>(p);
    const std::int64_t pitch = round_up(channels, 16);
    for (std::int64_t begin = mine.begin; begin < mine.end && o.begin < o.end;) {
      const std::int64_t image = begin / items, first = begin % items;
      const std::int64_t last = smaller(smaller(first + blocks.panels, items), mine.end - image * items);
      begin = image * items + last;
      const bool with_odd = odd > 0 && last == items;
      const std::int64_t step = last - first > 1 || with_odd ? blocks.outputs : outputs;
      for (std::int64_t group = 0; group < p.groups; ++group) {
        const T* const x = input + (image * p.c + group * channels) * image_pixels;
        const T* const w = weights + group * outputs * channels;
        const T* const bias = finish.bias ? finish.bias + group * outputs : nullptr;
        const std::int64_t y = (image * p.o + group * outputs) * image_pixels;
        if (with_odd) transpose_block(x + whole, image_pixels, channels, odd, scratch, pitch);
        for (std::int64_t row = o.begin; row < o.end; row += step) {
          const Share rows{row, smaller(row + step, o.end)};
          for (std::int64_t panel = first; panel < smaller(last, panels); ++panel) {
            const std::int64_t pixel = pixels.begin(panel), count = pixels.begin(panel + 1) - pixel;
            spread_product<T>(rows, all, w, channels, x + pixel, image_pixels, false, static_cast<int>(count), finish,
                              static_cast<T*>(args.y) + y + pixel, bias,
                              finish.residual ? finish.residual + y + pixel : nullptr, image_pixels);
          }
          if (!with_odd) continue;
          const std::int64_t at = y + row * image_pixels + whole, height = rows.end - row;
          const TileOut<T> out{static_cast<T*>(args.y) + at,
                               image_pixels,
                               bias ? bias + row : nullptr,
                               finish.residual ? finish.residual + at : nullptr,
                               finish.lo,
                               finish.hi,
                               0,
                               false,
                               finish.clamp};
          dot_rows<T>(height, odd, channels, w + row * channels, channels, scratch, pitch, out);
          if (finish.after) activate_rows(out.y, height, image_pixels, odd, *finish.after);
        }
      }
    }
  };
  team(worthwhile_threads(p, args.threads), member);
}

// --- NCHW, lanes on outputs -------------------------------------------------------------------------------------------

template <class T>
void outputs_cost(const ConvProblem& p, const Parameters&, const Machine&, int threads, Cost* out) {
  *out = lanes_on_outputs_cost<T>(p);
  const std::int64_t blocks = p.n * ceil_div(p.oh * p.ow, scratch_pixels);
  out->vector_ops += 6.0 * static_cast<double>(p.n * p.oh * p.ow * p.o) / Vec<T>::lanes;
  out->bytes_l2 = static_cast<double>(blocks) * static_cast<double>(panels_bytes<T>(p));
  const Panels<T> panels{p.o / p.groups};
  out->imbalance = grid_imbalance(blocks, p.groups * panels.count(), threads, panels.missing(p.groups));
  add_cold_packing<T>(p, static_cast<double>(panels_bytes<T>(p)), out);
  add_copy<T>(p, out);
}

template <class T>
CONVKIT_INLINE std::int64_t copied_bytes(const ConvProblem& p) {
  return copied_elements(p) * static_cast<std::int64_t>(sizeof(T));
}

template <class T>
std::int64_t outputs_workspace(const ConvProblem& p, const Parameters&, const Machine&, int threads) {
  const auto carve = [](auto& cut) { return cut.template take<T>(scratch_elements<T>); };
  return bounded_sum(round_up(copied_bytes<T>(p), 64),
                     members_workspace(carve, threads, p.packed ? 0 : panels_bytes<T>(p)));
}

template <class T>
void outputs_run(const Arguments& args) {
  const ConvProblem& p = *args.problem;
  const T* const input = read_pixels(args, static_cast<T*>(args.workspace));
  Arguments products = args;
  products.workspace = static_cast<char*>(args.workspace) + round_up(copied_bytes<T>(p), 64);
  const std::int64_t pixels = p.oh * p.ow;
  const Panels<T> panels{p.o / p.groups};
  const std::int64_t count = panels.count();
  const Finish<T> finish(args.epilogue);
  run_members<T>(
      products, worthwhile_threads(p, args.threads), pack_panels<T>,
      [](auto& cut) { return cut.template take<T>(scratch_elements<T>); }, [](const T* packed) { return packed; },
      [&](const T* packed, T* scratch, int index, int size) {
        std::int64_t blocks = ceil_div(pixels, scratch_pixels);
        // Where panels do not share out evenly, blocks do.
        if (p.groups * count % size) blocks = smaller(round_up(blocks, size), ceil_div(pixels, 6));
        const Grid grid = make_grid(p.n * blocks, p.groups * count, size, panels.missing(p.groups));
        const Share mine = share(p.n * blocks, index / grid.columns, grid.rows);
        const Share columns = share(p.groups * count, index % grid.columns, grid.columns);
        for (std::int64_t item = mine.begin; item < mine.end; ++item) {
          const Share block = share(pixels, item % blocks, blocks);
          for (std::int64_t column = columns.begin; column < columns.end; ++column) {
            multiply_block(args, finish, input, packed, item / blocks, column / count, column % count, block, scratch);
          }
        }
      });
}

template <class T>
constexpr Kernel rows_entry(const char* name) {
  return kernel_of<T>(
      "pointwise", name, Op::forward, layout_nhwc, 2,
      {rows_schema, pointwise_applies, rows_candidates<T>, rows_cost<T>, rows_workspace<T>, rows_run<T>},
      {panels_entry<T>, pack_panels<T>}, direct_summation, true);
}

template <class T>
constexpr Kernel columns_entry(const char* name) {
  return kernel_of<T>(
      "pointwise", name, Op::forward, layout_nchw, 3,
      {no_parameters, planes_apply, one_candidate, columns_cost<T>, columns_workspace<T>, columns_run<T>});
}

template <class T>
constexpr Kernel outputs_entry(const char* name) {
  return kernel_of<T>(
      "pointwise", name, Op::forward, layout_nchw, 2,
      {no_parameters, planes_apply, one_candidate, outputs_cost<T>, outputs_workspace<T>, outputs_run<T>},
      {panels_entry<T>, pack_panels<T>});
}

constexpr Kernel kernels[] = {
    rows_entry<float>("f32_pointwise_nhwc__" CONVKIT_ISA_NAME),
    rows_entry<double>("f64_pointwise_nhwc__" CONVKIT_ISA_NAME),
    columns_entry<float>("f32_pointwise_nchw__" CONVKIT_ISA_NAME),
    columns_entry<double>("f64_pointwise_nchw__" CONVKIT_ISA_NAME),
    outputs_entry<float>("f32_pointwise_nchw__" CONVKIT_ISA_NAME "_outputs"),
    outputs_entry<double>("f64_pointwise_nchw__" CONVKIT_ISA_NAME "_outputs"),
};

}  // namespace

extern const KernelTable pointwise_table;
constexpr KernelTable pointwise_table = WithAdjoints<kernels>::table;

}  // namespace convkit::CONVKIT_ISA
