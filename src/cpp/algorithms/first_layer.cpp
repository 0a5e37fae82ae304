// Convolutions with few channels a group: first layers, and grouped convolutions in NCHW.
//
// The input rows that a few output rows need are copied once, with their padding, to a block in L1 or L2. The window's
// values are then at fixed distances from each output pixel: one table of offsets stands for filter, dilation and stride.
//
//   NHWC  copied rows are pixels as they are; lanes on outputs, packed panels
//   NCHW  copied rows are planes, one a channel, with stride S as S blocks of every S-th pixel; lanes on pixels, weights
//         as they are. Nothing is transposed and nothing packed.
#include "algorithms/entries.hpp"
#include "algorithms/planar_rows.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

constexpr ParameterSpec schema[] = {{"rows", 1, 64}, {"tile", 1, 8}, {nullptr, 0, 0}};

constexpr std::int64_t most_channels = 4;

bool rows_apply(const ConvProblem& p) { return p.groups == 1 && p.c <= most_channels; }

bool planes_apply(const ConvProblem& p) {
  const std::int64_t channels = p.c / p.groups;
  return channels <= most_channels || (p.groups > 1 && channels <= 32 && p.kh * p.kw > 1);
}

// Output rows [first, first + rows) of one image, and the input rows that they meet.
struct Chunk {
  std::int64_t image, first, rows;
  std::int64_t input, begin, end;  // the first input row met, may be negative; those that exist, counted from it

  CONVKIT_INLINE Chunk(const ConvProblem& p, std::int64_t item, std::int64_t most) {
    const std::int64_t per_image = ceil_div(p.oh, most), index = item % per_image;
    image = item / per_image;
    const Share outputs = share(p.oh, index, per_image);
    first = outputs.begin;
    rows = outputs.end - outputs.begin;
    input = first * p.stride_h - p.pad_top;
    const std::int64_t met = (rows - 1) * p.stride_h + (p.kh - 1) * p.dilation_h + 1;
    begin = smaller(larger<std::int64_t>(-input, 0), met);
    end = larger(begin, smaller(p.h - input, met));
  }
};

CONVKIT_INLINE std::int64_t rows_met(const ConvProblem& p, std::int64_t outputs) {
  return (outputs - 1) * p.stride_h + (p.kh - 1) * p.dilation_h + 1;
}

// Where copied rows lie.
template <class T>
struct Copied {
  static constexpr int lanes = Vec<T>::lanes;
  std::int64_t rows, block, pitch, plane, size;  // block: a phase of a row; plane: a channel's rows (NCHW)

  Copied(const ConvProblem& p, const Parameters& parameters) {
    rows = rows_met(p, smaller<std::int64_t>(parameters.value[0], p.oh));
    if (p.layout == Layout::nhwc) {
      block = round_up((p.pad_left + p.w + p.pad_right) * p.c, lanes) + lanes;
      pitch = block;
      plane = 0;
      size = rows * pitch;
    } else {
      block = round_up(p.ow, lanes) + round_up((p.kw - 1) * p.dilation_w / p.stride_w, lanes) + lanes;
      pitch = block * p.stride_w;
      plane = rows * pitch;
      size = plane * (p.c / p.groups);
    }
  }
  // Of each weight in the order of its packing: [KH][KW][C] for panels, [C][KH][KW] as they are.
  void fill(const ConvProblem& p, std::ptrdiff_t* offset) const {
    const std::int64_t channels = p.c / p.groups;
    for (std::int64_t c = 0; c < channels; ++c) {
      for (std::int64_t ky = 0; ky < p.kh; ++ky) {
        for (std::int64_t kx = 0; kx < p.kw; ++kx) {
          const std::int64_t row = ky * p.dilation_h * pitch, pixel = kx * p.dilation_w;
          if (p.layout == Layout::nhwc) {
            offset[(ky * p.kw + kx) * channels + c] = row + pixel * channels + c;
          } else {
            offset[(c * p.kh + ky) * p.kw + kx] = c * plane + row + pixel % p.stride_w * block + pixel / p.stride_w;
          }
        }
      }
    }
  }
};

template <class T>
struct Scratch {
  std::ptrdiff_t* offset;
  T* copy;
};

template <class T, class Cut>
CONVKIT_INLINE Scratch<T> carve(const ConvProblem& p, const Parameters& parameters, Cut& cut) {
  std::ptrdiff_t* const offset = cut.template take<std::ptrdiff_t>(p.c / p.groups, p.kh * p.kw);
  return {offset, cut.template take<T>(Copied<T>(p, parameters).size)};
}

template <class T>
std::int64_t workspace_bytes(const ConvProblem& p, const Parameters& parameters, const Machine&, int threads) {
  return members_workspace([&](auto& cut) { return carve<T>(p, parameters, cut); }, threads,
                           p.layout == Layout::nchw || p.packed ? 0 : panels_bytes<T>(p));
}

template <class T>
CONVKIT_INLINE void clear(T* p, std::int64_t count) {
  for (std::int64_t i = 0; i < count; i += Vec<T>::lanes) Vec<T>::store(p + i, Vec<T>::zero());
}

// --- NHWC -------------------------------------------------------------------------------------------------------------

// Copies a chunk's rows; columns outside the image hold zeros from before.
template <class T>
void copy_pixels(const ConvProblem& p, const Chunk& chunk, const Copied<T>& where, const T* x, T* to) {
  using V = Vec<T>;
  const std::int64_t width = p.w * p.c, met = rows_met(p, chunk.rows);
  for (std::int64_t r = 0; r < met; ++r) {
    T* row = to + r * where.pitch;
    if (r < chunk.begin || r >= chunk.end) {
      clear(row, where.pitch);
      continue;
    }
    const T* from = x + (chunk.image * p.h + chunk.input + r) * width;
    row += p.pad_left * p.c;
    std::int64_t i = 0;
    for (; i + V::lanes <= width; i += V::lanes) V::store(row + i, V::load(from + i));
    if (i < width) V::store(row + i, V::load(from + i, static_cast<int>(width - i)));
  }
}

template <class T>
void run_rows(const Arguments& args) {
  const ConvProblem& p = *args.problem;
  const Parameters& parameters = *args.parameters;
  const Copied<T> where(p, parameters);
  const Finish<T> finish(args.epilogue);
  const Panels<T> panels{p.o};
  const std::int64_t k = p.c * p.kh * p.kw, chunks = ceil_div(p.oh, parameters.value[0]);
  const auto work = [&](const T* packed, const Scratch<T>& scratch, int index, int size) {
    where.fill(p, scratch.offset);
    clear(scratch.copy, where.size);
    const Grid grid = make_grid(p.n * chunks, panels.count(), size);
    const Share mine = share(p.n * chunks, index / grid.columns, grid.rows);
    const Share columns = share(panels.count(), index % grid.columns, grid.columns);
    for (std::int64_t item = mine.begin; item < mine.end && columns.begin < columns.end; ++item) {
      const Chunk chunk(p, item, parameters.value[0]);
      copy_pixels(p, chunk, where, static_cast<const T*>(args.x), scratch.copy);
      for (std::int64_t row = 0; row < chunk.rows; ++row) {
        const std::ptrdiff_t at = (chunk.image * p.oh + chunk.first + row) * p.ow * p.o;
        T* const y = static_cast<T*>(args.y) + at;
        const T* const pixels = scratch.copy + row * p.stride_h * where.pitch;
        for (std::int64_t panel = columns.begin; panel < columns.end; ++panel) {
          const int nv = panels.vectors(panel), most = smaller<int>(parameters.value[1], TileShape<T>::listed_rows(nv));
          const std::int64_t o = panel * Panels<T>::width;
          const T* const b = packed + panels.offset(panel, k);
          for_row_tiles(p.ow, most, [&](int height, std::int64_t count, std::int64_t first) CONVKIT_LAMBDA {
            const TileOut<T> out{y + first * p.o + o,
                                 p.o,
                                 finish.bias ? finish.bias + o : nullptr,
                                 finish.residual ? finish.residual + at + first * p.o + o : nullptr,
                                 finish.lo,
                                 finish.hi,
                                 panels.tail(panel),
                                 false,
                                 finish.clamp};
            const std::int64_t step = p.stride_w * p.c;
            listed_tiles<T>(nv, height, count, k, scratch.offset, pixels + first * step, step, b, out);
          });
          if (finish.after) activate_rows(y + o, p.ow, p.o, panels.valid(panel), *finish.after);
        }
      }
    }
  };
  run_members<T>(
      args, worthwhile_threads(p, args.threads), pack_panels<T>,
      [&](auto& cut) { return carve<T>(p, parameters, cut); }, [](const T* packed) { return packed; }, work);
}

// --- NCHW -------------------------------------------------------------------------------------------------------------

template <class T>
void copy_planes(const ConvProblem& p, const Chunk& chunk, const Copied<T>& where, const T* x, T* to) {
  const std::int64_t channels = p.c / p.groups, met = rows_met(p, chunk.rows);
  const std::int64_t width = round_up(p.ow, Vec<T>::lanes) + (p.kw - 1) * p.dilation_w / p.stride_w;
  for (std::int64_t c = 0; c < channels; ++c, x += p.h * p.w, to += where.plane) {
    clear(to, chunk.begin * where.pitch);
    PlanarRows<T>{x + (chunk.input + chunk.begin) * p.w,
                  to + chunk.begin * where.pitch,
                  chunk.end - chunk.begin,
                  p.w,
                  where.pitch,
                  where.block}
        .strip(p, 0, width);
    clear(to + chunk.end * where.pitch, (met - chunk.end) * where.pitch);
  }
}

template <class T>
void run_planes(const Arguments& args) {
  using V = Vec<T>;
  const ConvProblem& p = *args.problem;
  const Parameters& parameters = *args.parameters;
  const Copied<T> where(p, parameters);
  const Finish<T> finish(args.epilogue);
  const std::int64_t channels = p.c / p.groups, outputs = p.o / p.groups, k = channels * p.kh * p.kw;
  const std::int64_t chunks = ceil_div(p.oh, parameters.value[0]), pixels = p.oh * p.ow;
  const RowSplit split = split_rows(ceil_div(p.ow, V::lanes), TileShape<T>::vectors);
  const int most =
      smaller<int>(parameters.value[1], TileShape<T>::listed_spread_rows(split.rows + (split.big ? 1 : 0)));
  // Rows of many planes are more pages than the TLB holds: a result that leaves the caches is written a few planes at a time.
  const bool planes_outermost = outputs * pixels * std::int64_t(sizeof(T)) > 2 * args.machine->l2;
  const auto work = [&](const Scratch<T>& scratch, int index, int size) {
    where.fill(p, scratch.offset);
    const Share mine = share(p.groups * p.n * chunks, index, size);
    for (std::int64_t item = mine.begin; item < mine.end; ++item) {
      // Chunks innermost, then groups, then images.
      const std::int64_t group = item / chunks % p.groups;
      const Chunk chunk(p, item / (chunks * p.groups) * chunks + item % chunks, parameters.value[0]);
      const T* x = static_cast<const T*>(args.x) + (chunk.image * p.c + group * channels) * p.h * p.w;
      copy_planes(p, chunk, where, x, scratch.copy);
      const T* const w = static_cast<const T*>(args.w.data) + group * outputs * k;
      const T* const bias = finish.bias ? finish.bias + group * outputs : nullptr;
      const std::ptrdiff_t first_y = (chunk.image * p.o + group * outputs) * pixels + chunk.first * p.ow;
      const auto row_tiles = [&](int height, std::int64_t count, std::int64_t o, std::int64_t row) CONVKIT_LAMBDA {
        const T* const b = scratch.copy + row * p.stride_h * where.pitch;
        const std::ptrdiff_t at = first_y + o * pixels + row * p.ow;
        T* const y = static_cast<T*>(args.y) + at;
        for (std::int64_t panel = 0, first = 0; panel < split.big + split.small; ++panel) {
          const int nv = split.rows + (panel < split.big ? 1 : 0);
          const std::int64_t valid = smaller<std::int64_t>(p.ow - first, nv * V::lanes);
          const TileOut<T> out{y + first,
                               pixels,
                               bias ? bias + o : nullptr,
                               finish.residual ? finish.residual + at + first : nullptr,
                               finish.lo,
                               finish.hi,
                               static_cast<int>(valid - (nv - 1) * V::lanes),
                               false,
                               finish.clamp};
          listed_spread_tiles<T>(nv, height, count, k, scratch.offset, w + o * k, k, b + first, out);
          first += nv * V::lanes;
        }
        if (finish.after) activate_rows(y, count * height, pixels, p.ow, *finish.after);
      };
      if (planes_outermost) {
        for_row_tiles(outputs, most, [&](int height, std::int64_t count, std::int64_t first) CONVKIT_LAMBDA {
          for (std::int64_t i = 0; i < count; ++i) {
            for (std::int64_t row = 0; row < chunk.rows; ++row) row_tiles(height, 1, first + i * height, row);
          }
        });
      } else {
        for (std::int64_t row = 0; row < chunk.rows; ++row) {
          for_row_tiles(outputs, most, [&](int height, std::int64_t count, std::int64_t first) CONVKIT_LAMBDA {
            row_tiles(height, count, first, row);
          });
        }
      }
    }
  };
  run_in_areas(
      static_cast<char*>(args.workspace), worthwhile_threads(p, args.threads),
      [&](auto& cut) { return carve<T>(p, parameters, cut); }, work);
}

// --- inventory --------------------------------------------------------------------------------------------------------

// As many output rows at once as keep their input rows in a part of L2, but enough pieces for the team.
template <class T>
int candidates(const ConvProblem& p, const Machine& machine, int threads, Parameters* out, int capacity) {
  const std::int64_t share = p.layout == Layout::nhwc ? p.n : p.n * p.groups;
  const std::int64_t fair = larger<std::int64_t>(p.oh * share / (4 * threads), 1);
  const auto rows_within = [&](std::int64_t bytes) {
    std::int64_t rows = smaller<std::int64_t>(smaller<std::int64_t>(fair, p.oh), 64);
    while (rows > 1 && Copied<T>(p, {{static_cast<std::int32_t>(rows)}}).size * std::int64_t(sizeof(T)) > bytes) {
      rows = (rows + 1) / 2;
    }
    return static_cast<std::int32_t>(rows);
  };
  const std::int32_t large = rows_within(machine.l2 / 4), small = rows_within(machine.l1d);
  int count = 0;
  const auto add = [&](std::int32_t rows, std::int32_t tile) {
    if (count < capacity) out[count++] = {{rows, tile}};
  };
  // Short sums end often: of small tiles, one's end overlaps the next one's begin.
  const bool few = many_registers<T> && p.layout == Layout::nchw && p.c / p.groups * p.kh * p.kw < 64 &&
                   ceil_div(p.ow, Vec<T>::lanes) > TileShape<T>::vectors / 2;
  const std::int32_t tile = few ? 3 : TileShape<T>::most_rows, other = few ? TileShape<T>::most_rows : 3;
  add(large, tile);
  if (small != large) add(small, tile);
  add(large, other);
  return count;
}

template <class T>
void cost(const ConvProblem& p, const Parameters& parameters, const Machine&, int threads, Cost* out) {
  const std::int64_t chunks = p.n * ceil_div(p.oh, parameters.value[0]);
  const double copied =
      static_cast<double>(chunks) * static_cast<double>(p.groups) * static_cast<double>(Copied<T>(p, parameters).size);
  if (p.layout == Layout::nhwc) {
    *out = lanes_on_outputs_cost<T>(p);
    out->imbalance = grid_imbalance(chunks, Panels<T>{p.o}.count(), threads);
    add_cold_packing<T>(p, static_cast<double>(panels_bytes<T>(p)), out);
  } else {
    const double vectors = static_cast<double>(p.n * p.o * p.oh) * static_cast<double>(ceil_div(p.ow, Vec<T>::lanes));
    *out = {};
    out->fmas = vectors * Vec<T>::lanes * static_cast<double>(p.c / p.groups * p.kh * p.kw);
    out->efficiency = p.o / p.groups < 4 ? 0.4 : 0.95;
    out->vector_ops = 2 * vectors;
    out->bytes_dram = tensor_bytes(p, sizeof(T));
    out->imbalance = grid_imbalance(chunks * p.groups, 1, threads);
  }
  out->vector_ops += 2 * copied / Vec<T>::lanes;
}

template <class T>
constexpr Kernel entry(const char* name, Layout layout) {
  const bool rows = layout == Layout::nhwc;
  return kernel_of<T>("first_layer", name, Op::forward, rows ? layout_nhwc : layout_nchw, rows ? 1 : 2,
                      {schema, rows ? rows_apply : planes_apply, candidates<T>, cost<T>, workspace_bytes<T>,
                       rows ? run_rows<T> : run_planes<T>},
                      {rows ? panels_entry<T> : no_packing, rows ? pack_panels<T> : nullptr});
}

constexpr Kernel kernels[] = {
    entry<float>("f32_first_layer_nhwc__" CONVKIT_ISA_NAME, Layout::nhwc),
    entry<double>("f64_first_layer_nhwc__" CONVKIT_ISA_NAME, Layout::nhwc),
    entry<float>("f32_first_layer_nchw__" CONVKIT_ISA_NAME, Layout::nchw),
    entry<double>("f64_first_layer_nchw__" CONVKIT_ISA_NAME, Layout::nchw),
};

}  // namespace

extern const KernelTable first_layer_table;
constexpr KernelTable first_layer_table = {kernels, sizeof kernels / sizeof kernels[0]};

}  // namespace convkit::CONVKIT_ISA
