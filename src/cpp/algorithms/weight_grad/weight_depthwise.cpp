// Weight gradients of depthwise convolutions, and of grouped ones with few channels in a group: lanes on outputs.
//
// For input channel j of each group, lane i of a strip holds the channel that output i reads as its j-th. Then all
// products are lane by lane, and a filter row's taps are sums over pixels of shifted strips times gradients. A strip holds
// the zeros of horizontal padding, filter rows above or below the image are left out.
//
// Parts of the reduction as in weight_direct.cpp.
//
// 3x3 filters of plain depthwise convolutions need no strips where registers have masks: x and dy are read where they are.
#include "algorithms/entries.hpp"
#include "algorithms/weight_grad/division.hpp"
#include "algorithms/weight_grad/strips.hpp"
#include "microkernels/channel_gradients.hpp"
#include "microkernels/plane_gradients.hpp"
#include "microkernels/tap_sums.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

constexpr ParameterSpec depthwise_schema[] = {
    {"pixels", 0, 1 << 20}, {"parts", 1, 1 << 10}, {"prefetch", 0, 1}, {nullptr, 0, 0}};

constexpr int most_spans = 32;

bool depthwise_applies(const ConvProblem& p) { return p.groups > 1 && p.c / p.groups <= 16; }

template <class T>
CONVKIT_INLINE std::int64_t output_vectors(const ConvProblem& p) {
  return ceil_div(p.o, Vec<T>::lanes);
}
template <class T>
CONVKIT_INLINE std::int64_t vector_sums(const Strips<T>& s) {
  return s.channels * s.taps() * Vec<T>::lanes;
}

// Problems that may be read where they are, without strips: pixels = 0.
template <class T>
CONVKIT_INLINE bool reads_in_place(const ConvProblem& p) {
  if (p.groups != p.c || p.o != p.c || p.kh != 3 || p.kw != 3 || p.stride_h != p.stride_w || p.stride_h > 2)
    return false;
  if (p.dilation_h != 1 || p.dilation_w != 1) return false;
  if (p.layout == Layout::nchw) return Vec<T>::masks && p.ow <= most_spans * Vec<T>::lanes;
  return many_registers<T> && p.c % Vec<T>::lanes == 0 && p.pad_top <= 1 &&
         (p.oh - 1) * p.stride_h + 2 - p.pad_top <= p.h;
}
// Whoever stored pixels = 0 may have had another problem.
template <class T>
CONVKIT_INLINE bool in_place(const ConvProblem& p, const Parameters& parameters) {
  return parameters.value[0] == 0 && reads_in_place<T>(p);
}
template <class T>
CONVKIT_INLINE Strips<T> strips_of(const ConvProblem& p, const Parameters& parameters) {
  return Strips<T>(p, larger(parameters.value[0], 1), true);
}

template <class T>
int depthwise_candidates(const ConvProblem& p, const Machine& machine, int, Parameters* out, int capacity) {
  // Strip and gradients of a chunk stay in half of L1, or in L2 with longer runs of whole rows.
  const std::int64_t by_l1 = machine.l1d / 4 / Vec<T>::bytes;
  const std::int64_t sizes[] = {2 * by_l1, 8 * by_l1, by_l1};
  int count = 0;
  if (reads_in_place<T>(p)) {
    const std::int64_t groups = p.n * ceil_div(p.oh, gradient_rows);
    const std::int64_t parts = smaller(smaller(ceil_div(64, output_vectors<T>(p)), groups), std::int64_t{32});
    // NHWC: a prefetch pays where the tensors come from memory. NCHW prefetches by itself.
    const bool nhwc = p.layout == Layout::nhwc;
    const int streams = nhwc && tensor_bytes(p, sizeof(T)) > 0.5 * static_cast<double>(machine.l3);
    const std::int32_t divided = nhwc ? within(depthwise_schema[1], parts) : 1;
    out[count++] = {{0, divided, streams}};
    if (nhwc && count < capacity) out[count++] = {{0, divided, 1 - streams}};
  }
  for (const std::int64_t pixels : sizes) {
    if (count == capacity) break;
    const Strips<T> s(p, pixels, true);
    const std::int64_t items = output_vectors<T>(p) * s.channels;
    const std::int64_t parts = smaller(smaller(ceil_div(64, items), s.chunks), std::int64_t{32});
    out[count++] = {{within(depthwise_schema[0], pixels), within(depthwise_schema[1], parts), 0}};
  }
  return count;
}

template <class T>
struct Scratch {
  T *strip, *gradients;
  OuterRun* runs;
};

template <class T, class Cut>
Scratch<T> carve(const Strips<T>& s, Cut& carver) {
  Scratch<T> scratch;
  scratch.strip = carver.template take<T>(s.block_elements());
  scratch.gradients = carver.template take<T>(s.chunk_pixels, Vec<T>::lanes);
  scratch.runs = carver.template take<OuterRun>(s.chunk_rows, s.p.kh);
  return scratch;
}

template <class T>
std::int64_t depthwise_workspace(const ConvProblem& p, const Parameters& parameters, const Machine&, int threads) {
  if (in_place<T>(p, parameters) && p.layout == Layout::nchw) return 0;
  const Strips<T> s = strips_of<T>(p, parameters);
  const bool direct = in_place<T>(p, parameters);
  return members_workspace([&](auto& cut) { return direct ? Scratch<T>{} : carve(s, cut); }, threads,
                           bounded_product(parameters.value[1], output_vectors<T>(p) * vector_sums(s),
                                           static_cast<std::int64_t>(sizeof(T))));
}

// --- strips -----------------------------------------------------------------------------------------------------------

// Which channels the lanes of a vector of outputs read as their j-th.
struct Lanes {
  std::int64_t channel[16];
  int valid;
  bool adjacent;
};

template <class T>
Lanes find_lanes(const Strips<T>& s, std::int64_t vector, std::int64_t j) {
  Lanes lanes{};
  const std::int64_t o = vector * Vec<T>::lanes;
  lanes.valid = static_cast<int>(smaller<std::int64_t>(s.p.o - o, Vec<T>::lanes));
  lanes.adjacent = true;
  for (int i = 0; i < lanes.valid; ++i) {
    lanes.channel[i] = (o + i) / s.outputs * s.channels + j;
    lanes.adjacent &= lanes.channel[i] == lanes.channel[0] + i;
  }
  return lanes;
}

// One stored row of a strip; `row` is the input row of channel 0.
template <class T>
void fill_lanes(const Strips<T>& s, const Segment& segment, const Lanes& lanes, const T* row, T* to) {
  using V = Vec<T>;
  const ConvProblem& p = s.p;
  const std::int64_t step = p.stride_w, count = s.stored_columns(segment.count);
  const std::int64_t plane_elements = s.columns * V::lanes;
  for (std::int64_t plane = 0; plane < s.planes; ++plane) {
    const std::int64_t x0 = segment.first * step - p.pad_left + plane * s.plane_step;
    const std::int64_t begin = smaller(x0 < 0 ? ceil_div(-x0, step) : 0, count);
    const std::int64_t end = larger(x0 >= p.w ? 0 : smaller((p.w - 1 - x0) / step + 1, count), begin);
    T* const out = to + plane * plane_elements;
    zero_run(begin * V::lanes, out);
    zero_run((count - end) * V::lanes, out + end * V::lanes);
    if (p.layout == Layout::nchw) {
      if (step > 1) continue;
      // Lanes are rows of planes: square blocks through registers.
      const std::int64_t image = p.h * p.w;
      for (std::int64_t q = begin; q < end; q += V::lanes) {
        const int width = static_cast<int>(smaller<std::int64_t>(end - q, V::lanes));
        typename V::Reg r[V::lanes];
        CONVKIT_UNROLL
        for (int i = 0; i < V::lanes; ++i) {
          const T* from = row + lanes.channel[i] * image + x0 + q;
          r[i] = i >= lanes.valid ? V::zero() : width == V::lanes ? V::load(from) : V::load(from, width);
        }
        V::transpose(r);
        CONVKIT_UNROLL
        for (int i = 0; i < V::lanes; ++i) {
          if (i < width) V::store(out + (q + i) * V::lanes, r[i]);
        }
      }
    } else if (lanes.adjacent) {
      const T* from = row + (x0 + begin * step) * p.c + lanes.channel[0];
      for (std::int64_t q = begin; q < end; ++q, from += step * p.c) {
        V::store(out + q * V::lanes, lanes.valid == V::lanes ? V::load(from) : V::load(from, lanes.valid));
      }
    } else {
      for (std::int64_t q = begin; q < end; ++q) {
        const T* from = row + (x0 + q * step) * p.c;
        T* at = out + q * V::lanes;
        for (int i = 0; i < V::lanes; ++i) at[i] = i < lanes.valid ? from[lanes.channel[i]] : T(0);
      }
    }
  }
  if (p.layout == Layout::nhwc || step == 1) return;
  // Strided rows of planes: transpose what lies together, then sort the columns.
  const std::int64_t first = segment.first * step - p.pad_left, image = p.h * p.w;
  const std::int64_t span = (count - 1) * step + (s.planes - 1) * s.plane_step + 1;
  const std::int64_t begin = smaller(larger<std::int64_t>(-first, 0), span);
  const std::int64_t end = larger(smaller(p.w - first, span), begin);
  std::int64_t q = begin / step, remainder = begin % step;
  for (std::int64_t x = begin; x < end; x += V::lanes) {
    const int width = static_cast<int>(smaller<std::int64_t>(end - x, V::lanes));
    typename V::Reg r[V::lanes];
    CONVKIT_UNROLL
    for (int i = 0; i < V::lanes; ++i) {
      r[i] = i < lanes.valid ? V::load(row + lanes.channel[i] * image + first + x, width) : V::zero();
    }
    V::transpose(r);
    alignas(64) T block[V::lanes * V::lanes];
    CONVKIT_UNROLL
    for (int i = 0; i < V::lanes; ++i) V::store(block + i * V::lanes, r[i]);
    for (int i = 0; i < width; ++i) {
      if (remainder % s.plane_step == 0 && remainder / s.plane_step < s.planes && q < count) {
        V::store(to + remainder / s.plane_step * plane_elements + q * V::lanes, V::load(block + i * V::lanes));
      }
      if (++remainder == step) remainder = 0, ++q;
    }
  }
}

// --- sums -------------------------------------------------------------------------------------------------------------

template <class T>
void accumulate_chunk(const Strips<T>& s, const Arguments& args, const Scratch<T>& scratch, std::int64_t chunk,
                      const Share& vectors, const Share& channels, T* sums) {
  using V = Vec<T>;
  const ConvProblem& p = s.p;
  const bool sliding = s.planes == 1 && p.dilation_w == 1;
  for (std::int64_t vector = vectors.begin; vector < vectors.end; ++vector) {
    const std::int64_t o = vector * V::lanes;
    fill_gradients(s, static_cast<const T*>(args.dy), chunk, o,
                   static_cast<int>(smaller<std::int64_t>(p.o - o, V::lanes)), scratch.gradients);
    for (std::int64_t j = channels.begin; j < channels.end; ++j) {
      const Lanes lanes = find_lanes(s, vector, j);
      s.for_segments(chunk, [&](const Segment& segment) CONVKIT_LAMBDA {
        const std::int64_t stored = s.stored_rows(segment);
        for (std::int64_t i = 0; i < stored; ++i) {
          const std::int64_t y = s.input_row(segment, i);
          if (y < 0 || y >= p.h) continue;
          const std::int64_t row =
              p.layout == Layout::nhwc ? (segment.image * p.h + y) * p.w * p.c : (segment.image * p.c * p.h + y) * p.w;
          fill_lanes(s, segment, lanes, static_cast<const T*>(args.x) + row,
                     scratch.strip + segment.stored + i * s.row_elements());
        }
      });
      for (std::int64_t ky = 0; ky < p.kh; ++ky) {
        const Runs found = find_padded_runs(s, chunk, ky, V::lanes, scratch.runs);
        if (found.count == 0) continue;
        for (std::int64_t kx = 0; kx < p.kw; kx += most_taps) {
          const int taps = static_cast<int>(smaller<std::int64_t>(p.kw - kx, most_taps));
          TapRow<T> row{scratch.strip + s.tap_offset(kx),
                        scratch.gradients,
                        scratch.runs,
                        found.count,
                        found.steps,
                        {},
                        sums + vector * vector_sums(s) + (j * s.taps() + ky * p.kw + kx) * V::lanes};
          for (int i = 0; i < taps; ++i) row.offset[i] = s.tap_offset(kx + i) - s.tap_offset(kx);
          add_taps<T>(row, taps, sliding);
        }
      }
    }
  }
}

// --- in place ---------------------------------------------------------------------------------------------------------

template <class T, int S, bool Paired>
void run_planes(const Arguments& args) {
  using V = Vec<T>;
  using Span = PlaneSpan<T, S, Paired>;
  const ConvProblem& p = *args.problem;
  Span spans[most_spans];
  int count = 0;
  for (std::int64_t o = 0; o < p.ow; o += V::lanes) {
    spans[count++] = Span(o, smaller<std::int64_t>(p.ow - o, V::lanes), p.pad_left, p.w, Paired);
  }
  const Span last(0, smaller<std::int64_t>(p.ow, V::lanes), p.pad_left, p.w, false);
  const std::int64_t x_plane = p.h * p.w, dy_plane = p.oh * p.ow;
  auto member = [&](int index, int size) {
    const Share mine = share(p.c, index, size);
    for (std::int64_t c = mine.begin; c < mine.end; ++c) {
      const PlaneGradients<T> planes{static_cast<const T*>(args.x) + c * x_plane,
                                     static_cast<const T*>(args.dy) + c * dy_plane,
                                     p.c * x_plane,
                                     p.c * dy_plane,
                                     p.h,
                                     p.w,
                                     p.oh,
                                     p.ow,
                                     p.pad_top};
      add_planes<T, S, Paired>(planes, p.n, spans, count, last, static_cast<T*>(args.y) + 9 * c);
    }
  };
  team(worthwhile_threads(p, args.threads), member);
}

template <class T>
void run_in_planes(const Arguments& args) {
  const ConvProblem& p = *args.problem;
  if constexpr (Vec<T>::masks) {
    // What lies under filter column 2 is one lane on from a column loaded.
    const bool paired = p.n > 1 && p.ow < Vec<T>::lanes / 2 && (p.stride_w == 2 || p.pad_left == 1);
    if (p.stride_w == 1) return paired ? run_planes<T, 1, true>(args) : run_planes<T, 1, false>(args);
    return paired ? run_planes<T, 2, true>(args) : run_planes<T, 2, false>(args);
  }
}

// Part `part` of the rows of outputs, counted over images in groups.
template <class T, int S>
void add_part(const Arguments& args, std::int64_t part, const Share& vectors, T* sums) {
  using V = Vec<T>;
  const ConvProblem& p = *args.problem;
  const std::int64_t parts = args.parameters->value[1], per_image = ceil_div(p.oh, gradient_rows);
  constexpr void (*add[4])(const ChannelGradients<T>&, std::int64_t, std::int64_t) = {
      add_channels<T, S, 1>, add_channels<T, S, 2>, add_channels<T, S, 3>, add_channels<T, S, 4>};
  const std::int64_t c = vectors.begin * V::lanes;
  const Share groups = share(p.n * per_image, part, parts);
  for (std::int64_t group = groups.begin; group < groups.end; ++group) {
    const std::int64_t image = group / per_image;
    const Share outputs = share(p.oh, group % per_image, per_image);
    const std::int64_t o = outputs.begin, rows = outputs.end - o, y = o * S - p.pad_top;
    const ChannelGradients<T> first{static_cast<const T*>(args.x) + ((image * p.h + y) * p.w - p.pad_left) * p.c + c,
                                    static_cast<const T*>(args.dy) + (image * p.oh + o) * p.ow * p.o + c,
                                    p.w * p.c,
                                    p.c,
                                    p.ow * p.o,
                                    -p.pad_left,
                                    p.w,
                                    y >= 0,
                                    y + (rows - 1) * S + 2 < p.h,
                                    sums + vectors.begin * 9 * V::lanes,
                                    args.parameters->value[2] != 0};
    add[rows - 1](first, p.ow, vectors.end - vectors.begin);
  }
}

template <class T>
void depthwise_run(const Arguments& args) {
  using V = Vec<T>;
  const ConvProblem& p = *args.problem;
  const bool direct = in_place<T>(p, *args.parameters);
  if (direct && p.layout == Layout::nchw) return run_in_planes<T>(args);
  const Strips<T> s = strips_of<T>(p, *args.parameters);
  const std::int64_t parts = args.parameters->value[1], vectors = output_vectors<T>(p), per_vector = vector_sums(s);
  T* const sums = static_cast<T*>(args.workspace);
  char* const own = reinterpret_cast<char*>(sums + parts * vectors * per_vector);
  const auto work = [&](const Scratch<T>& scratch, int index, int size) {
    const Division division = divide(parts, vectors, s.channels, size);
    if (index < division.size()) {
      const Share mine = division.part(parts, index), rows = division.row(vectors, index);
      const Share channels = division.column(s.channels, index);
      const std::int64_t per_channel = per_vector / s.channels;
      for (std::int64_t part = mine.begin; part < mine.end; ++part) {
        T* const to = sums + part * vectors * per_vector;
        for (std::int64_t v = rows.begin; v < rows.end; ++v) {
          zero_run((channels.end - channels.begin) * per_channel, to + v * per_vector + channels.begin * per_channel);
        }
        if constexpr (many_registers<T>) {
          if (direct) {
            p.stride_w == 1 ? add_part<T, 1>(args, part, rows, to) : add_part<T, 2>(args, part, rows, to);
            continue;
          }
        }
        const Share chunks = share(s.chunks, part, parts);
        for (std::int64_t chunk = chunks.begin; chunk < chunks.end; ++chunk) {
          accumulate_chunk(s, args, scratch, chunk, rows, channels, to);
        }
      }
    }
    team_barrier();
    const Share mine = share(vectors, index, size);
    const std::int64_t weights = per_vector / V::lanes;
    for (std::int64_t v = mine.begin; v < mine.end; ++v) {
      T* const to = sums + v * per_vector;
      for (std::int64_t part = 1; part < parts; ++part) {
        for (std::int64_t i = 0; i < per_vector; i += V::lanes) {
          V::store(to + i, V::load(to + i) + V::load(to + part * vectors * per_vector + i));
        }
      }
      transpose_block(to, V::lanes, weights, smaller<std::int64_t>(p.o - v * V::lanes, V::lanes),
                      static_cast<T*>(args.y) + v * V::lanes * weights, weights);
    }
  };
  run_in_areas(
      own, worthwhile_threads(p, args.threads), [&](auto& cut) { return direct ? Scratch<T>{} : carve(s, cut); }, work);
}

template <class T>
void depthwise_cost(const ConvProblem& p, const Parameters& parameters, const Machine&, int threads, Cost* out) {
  if (in_place<T>(p, parameters)) {
    const bool nchw = p.layout == Layout::nchw;
    const double vectors = static_cast<double>(nchw ? p.n * p.oh * ceil_div(p.ow, Vec<T>::lanes) * p.c
                                                    : p.n * p.oh * p.ow * output_vectors<T>(p));
    *out = {};
    out->fmas = 9 * vectors * Vec<T>::lanes;
    out->efficiency = 0.5;
    out->vector_ops = vectors * static_cast<double>(2 * p.stride_h * p.stride_w);
    out->bytes_dram = tensor_bytes(p, sizeof(T));
    const Division division = divide(parameters.value[1], output_vectors<T>(p), 1, threads);
    out->imbalance = nchw ? grid_imbalance(p.c, 1, threads)
                          : division.imbalance(parameters.value[1], output_vectors<T>(p), 1, threads);
    out->barriers = nchw ? 0 : 1;
    return;
  }
  const Strips<T> s = strips_of<T>(p, parameters);
  const double vectors = static_cast<double>(output_vectors<T>(p)), pixels = static_cast<double>(p.n * p.oh * p.ow);
  const double channels = static_cast<double>(s.channels), taps = static_cast<double>(s.taps());
  *out = {};
  out->fmas = pixels * vectors * Vec<T>::lanes * channels * taps;
  out->efficiency = s.planes == 1 && p.dilation_w == 1 ? 0.7 : 0.5;
  const double inputs = static_cast<double>(p.n * p.h * p.w);
  const bool adjacent = s.channels == 1 && s.outputs == 1;
  const double fill = p.layout == Layout::nchw ? 8 : adjacent ? 3 : 2.0 * Vec<T>::lanes;
  const double runs = static_cast<double>(p.n * p.oh * p.kh) * vectors * channels;
  out->vector_ops = vectors * (inputs * channels * fill + pixels * (p.layout == Layout::nchw ? 8 : 3)) + 10.0 * runs;
  out->bytes_dram = tensor_bytes(p, sizeof(T));
  const Division division = divide(parameters.value[1], output_vectors<T>(p), s.channels, threads);
  out->imbalance = division.imbalance(parameters.value[1], output_vectors<T>(p), s.channels, threads);
  out->barriers = 1;
}

template <class T>
constexpr Kernel depthwise_entry(const char* name) {
  return kernel_of<T>("depthwise", name, Op::weight_grad, layout_nchw | layout_nhwc, 2,
                      {depthwise_schema, depthwise_applies, depthwise_candidates<T>, depthwise_cost<T>,
                       depthwise_workspace<T>, depthwise_run<T>});
}

constexpr Kernel kernels[] = {
    depthwise_entry<float>("f32_depthwise_weight_grad__" CONVKIT_ISA_NAME),
    depthwise_entry<double>("f64_depthwise_weight_grad__" CONVKIT_ISA_NAME),
};

}  // namespace

extern const KernelTable weight_depthwise_table;
constexpr KernelTable weight_depthwise_table = {kernels, sizeof kernels / sizeof kernels[0]};

}  // namespace convkit::CONVKIT_ISA
