// Input gradient with lanes on pixels, for results of few channels a group: first layers, and depthwise in NCHW.
//
// Of the 16 lanes that other kernels put on the channels of dx, a first layer's three would waste 13. Here the rows of dy
// that a block of dx needs are brought into planes with a margin of zeros, one plane a channel. In such a plane all pixels of
// one phase (see phases.cpp) find each tap at a constant distance, over row ends as well, so a phase of a block is one
// long run of pixels; what falls into the margins is computed and dropped. Stride 1 is the case of a single phase.
//
// Register budget: channels x vectors accumulators, a broadcast weight a channel, one vector of dy: 3 x 8 + 3 + 1 of 32,
// 3 x 4 + 3 + 1 of 16.
#include "algorithms/adjoint.hpp"
#include "algorithms/input_grad/axis.hpp"
#include "isa/interleave.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

constexpr int most_channels = 4;
constexpr int most_vectors = 8;

// Vectors of pixels in a tile of `channels` rows.
template <class T>
constexpr int tile_vectors(int channels) {
  if (many_registers<T>) return channels == 4 ? 6 : 8;
  return channels == 1 ? 8 : channels == 4 ? 2 : 4;
}

constexpr ParameterSpec pixels_schema[] = {{"block", 1, 1 << 20}, {nullptr, 0, 0}};

bool pixels_applies(const ConvProblem& p) {
  // NHWC interleaves all channels of a pixel at once.
  return p.c / p.groups <= most_channels && (p.layout == Layout::nchw || p.groups == 1) && p.stride_h <= 16 &&
         p.stride_w <= 16;
}

// --- the tile ---------------------------------------------------------------------------------------------------------

template <class T>
struct PixelRun {
  const T* planes;       // first pixel of the run in the first plane, tap 0's distance not added
  std::ptrdiff_t plane;  // from plane to plane
  std::int64_t inputs;   // planes
  const T* weights;      // [inputs][taps][channels]
  const std::ptrdiff_t* distances;
  std::int64_t taps;
  const T* bias;  // of the channels, or null
  T* out;
  std::ptrdiff_t out_stride;  // from channel to channel
};

template <class T, int Channels, int NV>
void pixels_tile(const PixelRun<T>& run) {
  using V = Vec<T>;
  typename V::Reg c[Channels][NV];
  CONVKIT_UNROLL
  for (int i = 0; i < Channels; ++i) {
    const auto value = run.bias ? V::broadcast(run.bias + i) : V::zero();
    CONVKIT_UNROLL
    for (int j = 0; j < NV; ++j) c[i][j] = value;
  }
  const T* weights = run.weights;
  const T* plane = run.planes;
  for (std::int64_t input = 0; input < run.inputs; ++input, plane += run.plane) {
    for (std::int64_t tap = 0; tap < run.taps; ++tap, weights += Channels) {
      const T* b = plane + run.distances[tap];
      typename V::Reg w[Channels];
      CONVKIT_UNROLL
      for (int i = 0; i < Channels; ++i) w[i] = V::broadcast(weights + i);
      CONVKIT_UNROLL
      for (int j = 0; j < NV; ++j) {
        const auto pixels = V::load(b + j * V::lanes);
        CONVKIT_UNROLL
        for (int i = 0; i < Channels; ++i) c[i][j] = w[i] * pixels + c[i][j];
      }
    }
  }
  CONVKIT_UNROLL
  for (int i = 0; i < Channels; ++i) {
    CONVKIT_UNROLL
    for (int j = 0; j < NV; ++j) V::store(run.out + i * run.out_stride + j * V::lanes, c[i][j]);
  }
}

template <class T>
using PixelsTile = void (*)(const PixelRun<T>&);

template <class T>
struct PixelsTable {
  PixelsTile<T> of[most_channels + 1][most_vectors + 1];
};

template <class T, int Channels, int NV>
constexpr void fill(PixelsTable<T>& table) {
  if constexpr (NV > 0) {
    table.of[Channels][NV] = pixels_tile<T, Channels, NV>;
    fill<T, Channels, NV - 1>(table);
  } else if constexpr (Channels > 1) {
    fill<T, Channels - 1, tile_vectors<T>(Channels - 1)>(table);
  }
}

template <class T>
constexpr PixelsTable<T> make_tiles() {
  PixelsTable<T> table{};
  fill<T, most_channels, tile_vectors<T>(most_channels)>(table);
  return table;
}

template <class T>
constexpr PixelsTable<T> pixels_tiles = make_tiles<T>();

// --- geometry ---------------------------------------------------------------------------------------------------------

// One axis of a block of dx that begins at `begin`, as phases in the order in which its pixels meet them.
struct BlockAxis {
  const Axis& axis;
  std::int64_t begin, end;
  std::int64_t low, high;  // outputs that some pixel of the block meets, inside dy or not

  CONVKIT_INLINE BlockAxis(const Axis& axis_, std::int64_t begin_, std::int64_t end_)
      : axis(axis_), begin(begin_), end(end_), low(1LL << 40), high(-(1LL << 40)) {
    for (std::int64_t phase = 0; phase < phases(); ++phase) {
      const std::int64_t taps = this->taps(phase);
      if (!taps) continue;
      low = smaller(low, first_output(phase) - (taps - 1) * axis.output_step);
      high = larger(high, first_output(phase) + count(phase) - 1);
    }
    if (low > high) low = high = 0;
    high = larger(high, low + count(0) - 1);  // phases that meet nothing have pixels, too
  }
  CONVKIT_INLINE std::int64_t phases() const { return smaller(axis.stride, end - begin); }
  CONVKIT_INLINE std::int64_t count(std::int64_t phase) const { return ceil_div(end - begin - phase, axis.stride); }
  CONVKIT_INLINE std::int64_t first_tap(std::int64_t phase) const {
    return axis.first_tap(axis.residue(begin + phase));
  }
  CONVKIT_INLINE std::int64_t taps(std::int64_t phase) const {
    return ceil_div(axis.taps - first_tap(phase), axis.tap_step);
  }
  CONVKIT_INLINE std::int64_t first_output(std::int64_t phase) const {
    return axis.output(begin + phase, first_tap(phase));
  }
  CONVKIT_INLINE std::int64_t outputs() const { return high - low + 1; }
};

// The most outputs that a block of `length` pixels meets, wherever it begins.
CONVKIT_INLINE std::int64_t most_outputs(const Axis& axis, std::int64_t length) {
  return (length - 1 + (axis.taps - 1) * axis.dilation) / axis.stride + 2;
}

template <class T>
struct Planes {
  std::int64_t width, rows, size;  // of one plane: pixels from row to row, rows, and from plane to plane
  std::int64_t run;                // pixels of the longest phase of a block, whole vectors
  CONVKIT_INLINE Planes(const ConvProblem& p, std::int64_t most_rows) {
    const Axis across = columns_axis(p), down = rows_axis(p);
    const std::int64_t block = smaller(most_rows, p.h);
    width = BlockAxis(across, 0, p.w).outputs();
    rows = most_outputs(down, block);
    run = round_up(ceil_div(block, p.stride_h) * width, Vec<T>::lanes);
    size = rows * width + 8;  // apart from a power of two
  }
};

template <class T>
std::int64_t block_rows(const ConvProblem& p, std::int64_t bytes) {
  const Axis down = rows_axis(p);
  std::int64_t rows = p.h;
  while (rows > 1 && Planes<T>(p, rows).size * (p.o / p.groups) * static_cast<std::int64_t>(sizeof(T)) > bytes) {
    rows = rows > 2 * down.stride ? round_up(rows / 2, down.stride) : rows - 1;
  }
  return rows;
}

template <class T>
int pixels_candidates(const ConvProblem& p, const Machine& machine, int threads, Parameters* out, int capacity) {
  const std::int64_t budgets[] = {machine.l2 / 2, machine.l2 / 4, machine.l1d, machine.l2};
  int count = 0;
  for (const std::int64_t bytes : budgets) {
    std::int64_t rows = block_rows<T>(p, bytes);
    rows = smaller(rows, larger<std::int64_t>(ceil_div(p.n * p.groups * p.h, threads), 1));
    const std::int32_t block = within(pixels_schema[0], ceil_div(p.h, ceil_div(p.h, rows)));
    if (count < capacity && (count == 0 || out[count - 1].value[0] != block)) out[count++] = {{block}};
  }
  return count;
}

template <class T>
void pixels_cost(const ConvProblem& p, const Parameters& parameters, const Machine&, int threads, Cost* out) {
  const std::int64_t block = parameters.value[0], blocks = ceil_div(p.h, block);
  const Planes<T> planes(p, block);
  const double channels = static_cast<double>(p.c / p.groups), inputs = static_cast<double>(p.o / p.groups);
  const double groups = static_cast<double>(p.n * p.groups * blocks);
  *out = {};
  out->fmas = groups * static_cast<double>(planes.run) * static_cast<double>(p.kh * p.kw) * channels * inputs;
  out->efficiency = channels / (channels + 0.6) * inputs / (inputs + 1.0);
  const double out_pixels = static_cast<double>(p.n * p.c * p.h * p.w);
  const double copied = groups * inputs * static_cast<double>(planes.rows * planes.width);
  out->vector_ops = copied * (p.layout == Layout::nhwc ? 8.0 : 3.0) / Vec<T>::lanes +
                    12.0 * groups * inputs * static_cast<double>(planes.rows) + 4.0 * out_pixels / Vec<T>::lanes +
                    20.0 * static_cast<double>(p.n * p.c * p.h);
  out->bytes_l2 = groups * inputs * static_cast<double>(planes.size) * sizeof(T) * 2;
  out->bytes_dram = tensor_bytes(p, sizeof(T));
  out->imbalance = grid_imbalance(p.n * p.groups * blocks, 1, threads);
}

// --- weights ----------------------------------------------------------------------------------------------------------

template <class T>
CONVKIT_INLINE std::int64_t phase_weights_bytes(const ConvProblem& p) {
  return p.o * (p.c / p.groups) * p.kh * p.kw * static_cast<std::int64_t>(sizeof(T));
}

template <class T>
void phase_weights_entry(const ConvProblem& p, const Parameters&, Packing* out) {
  describe_packing("phases", phase_weights_bytes<T>(p), out);
  // Strides and dilations decide which taps meet.
  const std::int64_t numbers[] = {rows_axis(p).tap_step, columns_axis(p).tap_step};
  for (const std::int64_t number : numbers) {
    char digits[24] = {'_'};
    int length = 1;
    std::int64_t power = 1;
    while (number / power >= 10) power *= 10;
    for (; power; power /= 10) digits[length++] = static_cast<char>('0' + number / power % 10);
    append_id(digits, out);
  }
}

// [group][first tap row][first tap column][inputs][taps of the phase][channels]
template <class T>
void pack_phase_weights(const ConvProblem& p, const Parameters&, const WeightView& w, void* out, int) {
  const Axis down = rows_axis(p), across = columns_axis(p);
  const std::int64_t channels = p.c / p.groups, inputs = p.o / p.groups;
  T* to = static_cast<T*>(out);
  for (std::int64_t group = 0; group < p.groups; ++group) {
    const T* from = static_cast<const T*>(w.data) + group * w.stride_group;
    for (std::int64_t h = 0; h < smaller(down.tap_step, p.kh); ++h) {
      for (std::int64_t v = 0; v < smaller(across.tap_step, p.kw); ++v) {
        for (std::int64_t o = 0; o < inputs; ++o) {
          for (std::int64_t kh = h; kh < p.kh; kh += down.tap_step) {
            for (std::int64_t kw = v; kw < p.kw; kw += across.tap_step) {
              for (std::int64_t c = 0; c < channels; ++c) {
                *to++ = from[o * w.stride_o + c * w.stride_c + kh * w.stride_kh + kw * w.stride_kw];
              }
            }
          }
        }
      }
    }
  }
}

// --- run --------------------------------------------------------------------------------------------------------------

template <class T>
struct Scratch {
  T *planes, *phases, *row;
  std::ptrdiff_t* distances;
};

template <class T, class Cut>
CONVKIT_INLINE Scratch<T> carve(const ConvProblem& p, const Parameters& parameters, Cut& carver) {
  Scratch<T> s{};
  const Planes<T> planes(p, parameters.value[0]);
  // Runs end in whole vectors, hence read past the last plane.
  s.planes = carver.template take<T>(p.o / p.groups * planes.size + planes.width + most_vectors * Vec<T>::lanes);
  s.phases = carver.template take<T>(p.stride_w * (p.c / p.groups), planes.run + most_vectors * Vec<T>::lanes);
  s.row = p.residual ? carver.template take<T>(p.w, p.layout == Layout::nchw ? 1 : p.c) : nullptr;
  s.distances = carver.template take<std::ptrdiff_t>(p.kh * p.kw);
  return s;
}

template <class T>
std::int64_t pixels_workspace(const ConvProblem& p, const Parameters& parameters, const Machine&, int threads) {
  return members_workspace([&](auto& cut) { return carve<T>(p, parameters, cut); }, threads,
                           p.packed ? 0 : phase_weights_bytes<T>(p));
}

// Brings the outputs that a block meets into planes, zeros where there are none.
template <class T>
void fill_planes(const ConvProblem& p, const T* dy, const BlockAxis& down, const BlockAxis& across,
                 const Planes<T>& planes, T* to) {
  const std::int64_t inputs = p.o / p.groups, width = planes.width, pixels = p.oh * p.ow;
  const std::int64_t begin = larger<std::int64_t>(across.low, 0), end = smaller(across.high + 1, p.ow);
  const std::int64_t count = larger<std::int64_t>(end - begin, 0), left = smaller(begin - across.low, width);
  for (std::int64_t o = 0; o < inputs; ++o) {
    T* at = to + o * planes.size;
    for (std::int64_t y = down.low; y <= down.high; ++y, at += width) {
      if (y < 0 || y >= p.oh || !count) {
        zero_run(width, at);
        continue;
      }
      if (left) zero_run(left, at);
      if (left + count < width) zero_run(width - left - count, at + left + count);
      if (p.layout == Layout::nchw) copy_run(dy + o * pixels + y * p.ow + begin, count, at + left);
    }
  }
  if (p.layout == Layout::nchw || !count) return;
  for (std::int64_t y = larger<std::int64_t>(down.low, 0); y <= smaller(down.high, p.oh - 1); ++y) {
    T* const line = to + (y - down.low) * width + left;
    transpose_block(dy + (y * p.ow + begin) * p.o, p.o, count, inputs, line, planes.size);
  }
}

// One row of dx of one channel from its phases, `distance` apart.
template <class T>
CONVKIT_INLINE void merge_row(const T* from, std::ptrdiff_t distance, std::int64_t stride, std::int64_t pixels, T* to) {
  using V = Vec<T>;
  constexpr int n = V::lanes;
  if (stride == 1) return copy_run(from, pixels, to);
  std::int64_t i = 0;
  if (stride == 2) {
    for (; i < pixels; i += 2 * n) {
      typename V::Reg low, high;
      interleave<T>(V::load(from + i / 2), V::load(from + distance + i / 2), &low, &high);
      if (i + 2 * n <= pixels) {
        V::store(to + i, low);
        V::store(to + i + n, high);
      } else {
        const int rest = static_cast<int>(pixels - i);
        V::store(to + i, low, smaller(rest, n));
        V::store(to + i + n, high, larger(rest - n, 0));
      }
    }
    return;
  }
  if (stride == 4) {
    for (; i + 4 * n <= pixels; i += 4 * n) {
      typename V::Reg even[2], odd[2], out[4];
      interleave<T>(V::load(from + i / 4), V::load(from + 2 * distance + i / 4), &even[0], &even[1]);
      interleave<T>(V::load(from + distance + i / 4), V::load(from + 3 * distance + i / 4), &odd[0], &odd[1]);
      interleave<T>(even[0], odd[0], &out[0], &out[1]);
      interleave<T>(even[1], odd[1], &out[2], &out[3]);
      CONVKIT_UNROLL
      for (int q = 0; q < 4; ++q) V::store(to + i + q * n, out[q]);
    }
  }
  for (; i < pixels; ++i) to[i] = from[i % stride * distance + i / stride];
}

// What is left of the epilogue, on values that lie together; `from` may be y, and so may the residual.
template <class T>
CONVKIT_INLINE void finish_run(const Finish<T>& finish, const T* from, const T* residual, T* y, std::int64_t count) {
  using V = Vec<T>;
  if (residual || finish.clamp) {
    const auto lo = V::set1(finish.lo), hi = V::set1(finish.hi);
    for (std::int64_t i = 0; i < count; i += V::lanes) {
      const int n = static_cast<int>(smaller<std::int64_t>(count - i, V::lanes));
      auto v = V::load(from + i, n);
      if (residual) v += V::load(residual + i, n);
      if (finish.clamp) v = V::min(hi, V::max(lo, v));
      V::store(y + i, v, n);
    }
  }
  if (finish.after) activate_rows(y, 1, count, count, *finish.after);
}

template <class T>
struct Context {
  const Arguments& args;
  const ConvProblem& p;
  Axis down, across;
  std::int64_t channels, inputs;
  Finish<T> finish;
  const T* packed;

  Context(const Arguments& a, const T* packed_)
      : args(a),
        p(*a.problem),
        down(rows_axis(p)),
        across(columns_axis(p)),
        channels(p.c / p.groups),
        inputs(p.o / p.groups),
        finish(a.epilogue),
        packed(packed_) {}
};

// Weights of the phase with these first taps; phases lie one after the other, whatever their numbers of taps.
template <class T>
CONVKIT_INLINE const T* phase_weights(const Context<T>& c, std::int64_t group, std::int64_t tap_h, std::int64_t tap_w) {
  const std::int64_t row = smaller(c.across.tap_step, c.p.kw), taps_h = ceil_div(c.p.kh - tap_h, c.down.tap_step);
  std::int64_t before = 0;
  for (std::int64_t h = 0; h < tap_h; ++h) before += ceil_div(c.p.kh - h, c.down.tap_step) * c.p.kw;
  for (std::int64_t v = 0; v < smaller(tap_w, row); ++v) before += taps_h * ceil_div(c.p.kw - v, c.across.tap_step);
  return c.packed + (group * c.p.kh * c.p.kw + before) * c.inputs * c.channels;
}

template <class T>
void compute_block(const Context<T>& c, const Scratch<T>& s, std::int64_t image, std::int64_t group, std::int64_t begin,
                   std::int64_t end) {
  const ConvProblem& p = c.p;
  const bool nchw = p.layout == Layout::nchw;
  const Planes<T> planes(p, c.args.parameters->value[0]);
  const BlockAxis down(c.down, begin, end), across(c.across, 0, p.w);
  const std::int64_t dy = nchw ? (image * p.o + group * c.inputs) * p.oh * p.ow : image * p.oh * p.ow * p.o;
  fill_planes(p, static_cast<const T*>(c.args.x) + dy, down, across, planes, s.planes);
  const int most = tile_vectors<T>(static_cast<int>(c.channels));
  const std::ptrdiff_t distance = planes.run + most_vectors * Vec<T>::lanes;  // from one run to the next in s.phases
  for (std::int64_t h = 0; h < down.phases(); ++h) {
    const std::int64_t rows = down.count(h), taps_h = down.taps(h), tap_h = down.first_tap(h);
    const std::int64_t vectors = ceil_div(rows * planes.width, Vec<T>::lanes);
    for (std::int64_t v = 0; v < across.phases(); ++v) {
      const std::int64_t taps_w = across.taps(v), tap_w = across.first_tap(v);
      PixelRun<T> run{};
      run.plane = planes.size;
      run.inputs = c.inputs;
      run.bias = c.finish.bias ? c.finish.bias + group * c.channels : nullptr;
      run.out_stride = distance;
      run.distances = s.distances;
      run.planes = s.planes;
      run.taps = taps_h * taps_w;
      if (run.taps) {
        run.weights = phase_weights(c, group, tap_h, tap_w);
        run.planes += (down.first_output(h) - down.low) * planes.width + across.first_output(v) - across.low;
        std::ptrdiff_t* at = s.distances;
        for (std::int64_t i = 0; i < taps_h; ++i) {
          for (std::int64_t j = 0; j < taps_w; ++j) {
            *at++ = -(i * c.down.output_step * planes.width + j * c.across.output_step);
          }
        }
      }
      T* const out = s.phases + v * c.channels * distance;
      const RowSplit split = split_rows(vectors, most);
      std::int64_t first = 0;
      for (std::int64_t tile = 0; tile < split.big + split.small; ++tile) {
        const int nv = split.rows + (tile < split.big ? 1 : 0);
        PixelRun<T> part = run;
        part.planes += first * Vec<T>::lanes;
        part.out = out + first * Vec<T>::lanes;
        pixels_tiles<T>.of[c.channels][nv](part);
        first += nv;
      }
    }
    for (std::int64_t row = 0; row < rows; ++row) {
      const std::int64_t y = begin + h + row * c.down.stride;
      const T* const from = s.phases + row * planes.width;
      if (nchw) {
        for (std::int64_t i = 0; i < c.channels; ++i) {
          const std::int64_t offset = ((image * p.c + group * c.channels + i) * p.h + y) * p.w;
          T* const to = static_cast<T*>(c.args.y) + offset;
          T* const merged = c.finish.residual ? s.row : to;
          merge_row(from + i * distance, c.channels * distance, across.phases(), p.w, merged);
          finish_run(c.finish, merged, c.finish.residual ? c.finish.residual + offset : nullptr, to, p.w);
        }
        continue;
      }
      const std::int64_t offset = (image * p.h + y) * p.w * p.c, together = across.phases() * p.c;
      T* const to = static_cast<T*>(c.args.y) + offset;
      const std::int64_t whole = p.w / across.phases();
      T* const merged = c.finish.residual ? s.row : to;
      transpose_block(from, distance, together, whole, merged, together);
      for (std::int64_t i = whole * together; i < p.w * p.c; ++i) {
        merged[i] = from[i % together * distance + i / together];
      }
      finish_run(c.finish, merged, c.finish.residual ? c.finish.residual + offset : nullptr, to, p.w * p.c);
    }
  }
}

template <class T>
void pixels_run(const Arguments& args) {
  const ConvProblem& p = *args.problem;
  const std::int64_t block = args.parameters->value[0], blocks = ceil_div(p.h, block);
  run_members<T>(
      args, worthwhile_threads(p, args.threads), pack_phase_weights<T>,
      [&](auto& cut) { return carve<T>(p, *args.parameters, cut); },
      [&](const T* packed) { return Context<T>(args, packed); },
      [&](const Context<T>& context, const Scratch<T>& scratch, int index, int size) {
        const Share mine = share(p.n * p.groups * blocks, index, size);
        for (std::int64_t item = mine.begin; item < mine.end; ++item) {
          const std::int64_t begin = item % blocks * block, group = item / blocks % p.groups;
          compute_block(context, scratch, item / blocks / p.groups, group, begin, smaller(begin + block, p.h));
        }
      });
}

template <class T>
constexpr Kernel pixels_entry(const char* name) {
  return kernel_of<T>(
      "direct", name, Op::input_grad, layout_nchw | layout_nhwc, 1,
      {pixels_schema, pixels_applies, pixels_candidates<T>, pixels_cost<T>, pixels_workspace<T>, pixels_run<T>},
      {phase_weights_entry<T>, pack_phase_weights<T>});
}

constexpr Kernel kernels[] = {
    pixels_entry<float>("f32_direct_pixels_input_grad__" CONVKIT_ISA_NAME),
    pixels_entry<double>("f64_direct_pixels_input_grad__" CONVKIT_ISA_NAME),
};

}  // namespace

extern const KernelTable pixels_table;
constexpr KernelTable pixels_table = {kernels, sizeof kernels / sizeof kernels[0]};

}  // namespace convkit::CONVKIT_ISA
