// Input gradient of a depthwise convolution whose columns have stride 2, NCHW: lanes on the even and the odd pixels of a row
// of dx, which meet different taps at neighbouring outputs and are interleaved on the way out.
//
// Rows of dy are first copied to a block in L1 with zeros around them, so that every load is a whole vector and every tap of
// a row phase lies at one distance, for all rows and planes of a call.
//
// NHWC is in depthwise_phases_nhwc.cpp, stride 1 the adjoint of the forward kernel, other strides are in pixels.cpp.
#include "algorithms/adjoint.hpp"
#include "algorithms/input_grad/axis.hpp"
#include "isa/interleave.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

constexpr std::int64_t most_taps = 128, most_phases = 16;
constexpr std::int64_t block_bytes = 16384;

bool planes_apply(const ConvProblem& p) {
  return p.groups == p.c && p.o == p.c && p.stride_w == 2 && p.stride_h <= most_phases && p.kh * p.kw <= most_taps &&
         !has_adjoint(p);
}

// A tap of some pixels: which weight, and how far its output lies from that of their row's first one.
struct Tap {
  std::int32_t weight;
  std::ptrdiff_t distance;
};

// Rows of dx that meet the same taps: those of their even pixels, then those of their odd ones.
struct RowPhase {
  std::int64_t first_tap;
  Tap taps[most_taps];
  int evens, all;
};

// The block that rows [begin, end) of dx need of a plane of dy: `margin` zeros, the columns, more zeros.
template <class T>
struct Block {
  std::int64_t margin, pitch;
  std::int64_t band;  // most rows of dx that it serves
  std::int64_t rows;  // most rows of dy for them

  explicit Block(const ConvProblem& p, const Axis& down, const Axis& across) {
    std::int64_t lowest = 0, highest = 0;
    for (std::int64_t phase = 0; phase < 2; ++phase) {
      const std::int64_t tap = across.first_tap(across.residue(phase));
      if (tap >= across.taps) continue;
      const std::int64_t first = across.output(phase, tap);
      lowest = smaller(lowest, first - (ceil_div(across.taps - tap, across.tap_step) - 1) * across.output_step);
      highest = larger(highest, first);
    }
    margin = -lowest;
    pitch = round_up(margin + larger(p.ow, highest + round_up(ceil_div(p.w, 2), Vec<T>::lanes)), Vec<T>::lanes) +
            Vec<T>::lanes;
    const std::int64_t reach = (down.taps_of_a_phase() - 1) * down.output_step + 2;
    const std::int64_t fitting = block_bytes / (pitch * static_cast<std::int64_t>(sizeof(T)));
    band = smaller(p.h, larger<std::int64_t>(fitting - reach, 1) * p.stride_h);
    rows = band / p.stride_h + reach + 1;
  }
};

void list_taps(const Axis& down, const Axis& across, std::int64_t margin, std::int64_t pitch, std::int64_t residue,
               RowPhase* phase) {
  phase->first_tap = down.first_tap(residue);
  phase->evens = phase->all = 0;
  for (std::int64_t column = 0; column < 2; ++column) {
    const std::int64_t first = across.first_tap(across.residue(column));
    std::int64_t above = 0;
    for (std::int64_t kh = phase->first_tap; kh < down.taps; kh += down.tap_step, above += down.output_step) {
      std::int64_t x = margin + (first < across.taps ? across.output(column, first) : 0);
      for (std::int64_t kw = first; kw < across.taps; kw += across.tap_step, x -= across.output_step) {
        phase->taps[phase->all++] = {static_cast<std::int32_t>(kh * across.taps + kw), x - above * pitch};
      }
    }
    if (column == 0) phase->evens = phase->all;
  }
}

template <class T>
std::int64_t workspace_bytes(const ConvProblem& p, const Parameters&, const Machine&, int threads) {
  const Block<T> block(p, rows_axis(p), columns_axis(p));
  return team_bytes(round_up(block.rows * block.pitch * static_cast<std::int64_t>(sizeof(T)), 64), threads, 0);
}

// Rows [first, first + count) of a plane of dy, zeros where there are none. The zeros around them are there already.
template <class T>
void fill(const ConvProblem& p, const Block<T>& block, const T* plane, std::int64_t first, std::int64_t count, T* to) {
  using V = Vec<T>;
  to += block.margin;
  for (std::int64_t y = first; y < first + count; ++y, to += block.pitch) {
    const bool exists = y >= 0 && y < p.oh;
    const T* const from = plane + y * p.ow;
    for (std::int64_t x = 0; x < p.ow; x += V::lanes) {
      const int valid = static_cast<int>(smaller<std::int64_t>(p.ow - x, V::lanes));
      V::store(to + x, !exists ? V::zero() : valid == V::lanes ? V::load(from + x) : V::load(from + x, valid));
    }
  }
}

// Rows of dx of one phase, next to each other in the block.
template <class T>
struct PhaseRows {
  const RowPhase& phase;
  const T* from;  // the row of the first one's first tap
  std::ptrdiff_t pitch;
  const T* weights;
  T bias;
  const Finish<T>& finish;
  T* y;
  const T* residual;
  std::ptrdiff_t y_row;
  std::int64_t rows, width;
};

template <class T>
CONVKIT_INLINE void store_pixels(const PhaseRows<T>& r, std::ptrdiff_t at, std::int64_t left, typename Vec<T>::Reg v) {
  using V = Vec<T>;
  if (left <= 0) return;
  const int valid = static_cast<int>(smaller<std::int64_t>(left, V::lanes));
  if (r.residual) v += V::load(r.residual + at, valid);
  if (r.finish.clamp) v = V::min(V::set1(r.finish.hi), V::max(V::set1(r.finish.lo), v));
  if (valid == V::lanes) {
    V::store(r.y + at, v);
  } else {
    V::store(r.y + at, v, valid);
  }
}

// `Evens` and `Odds` are the numbers of taps, or 0 where only the phase knows them. Known ones keep their weights in
// registers: six, beside two sums.
template <class T, int Evens, int Odds>
void phase_rows(const PhaseRows<T>& r) {
  using V = Vec<T>;
  constexpr int known = Evens + Odds;
  const Tap* const taps = r.phase.taps;
  typename V::Reg weights[known ? known : 1];
  CONVKIT_UNROLL
  for (int i = 0; i < known; ++i) weights[i] = V::broadcast(r.weights + taps[i].weight);
  const auto bias = V::set1(r.bias);
  for (std::int64_t row = 0; row < r.rows; ++row) {
    const T* from = r.from + row * r.pitch;
    const std::ptrdiff_t at = row * r.y_row;
    for (std::int64_t x = 0; x < r.width; x += 2 * V::lanes, from += V::lanes) {
      typename V::Reg even = bias, odd = bias, low, high;
      if constexpr (known > 0) {
        CONVKIT_UNROLL
        for (int i = 0; i < Evens; ++i) even = weights[i] * V::load(from + taps[i].distance) + even;
        CONVKIT_UNROLL
        for (int i = Evens; i < known; ++i) odd = weights[i] * V::load(from + taps[i].distance) + odd;
      } else {
        const auto add = [&](int i, typename V::Reg sum) CONVKIT_LAMBDA {
          return V::broadcast(r.weights + taps[i].weight) * V::load(from + taps[i].distance) + sum;
        };
        for (int i = 0; i < r.phase.evens; ++i) even = add(i, even);
        for (int i = r.phase.evens; i < r.phase.all; ++i) odd = add(i, odd);
      }
      interleave<T>(even, odd, &low, &high);
      store_pixels(r, at + x, r.width - x, low);
      store_pixels(r, at + x + V::lanes, r.width - x - V::lanes, high);
    }
  }
}

// Those of a 3x3 filter by name.
template <class T>
auto phase_rows_of(const RowPhase& phase) {
  const int evens = phase.evens, odds = phase.all - evens;
  if (evens == 1 && odds == 2) return phase_rows<T, 1, 2>;
  if (evens == 2 && odds == 1) return phase_rows<T, 2, 1>;
  if (evens == 2 && odds == 4) return phase_rows<T, 2, 4>;
  if (evens == 4 && odds == 2) return phase_rows<T, 4, 2>;
  return phase_rows<T, 0, 0>;
}

template <class T>
void run(const Arguments& args) {
  const ConvProblem& p = *args.problem;
  const Axis down = rows_axis(p), across = columns_axis(p);
  const Block<T> block(p, down, across);
  RowPhase phases[most_phases];
  for (std::int64_t residue = 0; residue < p.stride_h; ++residue) {
    list_taps(down, across, block.margin, block.pitch, residue, &phases[residue]);
  }
  const std::int64_t block_elements = round_up(block.rows * block.pitch, 64 / static_cast<std::int64_t>(sizeof(T)));
  const std::int64_t bands = ceil_div(p.h, block.band), reach = (down.taps_of_a_phase() - 1) * down.output_step;
  // Rows of a phase at a time: all where a row is soon done, one where prefetchers would lose dx otherwise.
  const std::int64_t together = p.w <= 2 * Vec<T>::lanes ? block.band : 1;
  const Finish<T> finish(args.epilogue);
  auto member = [&](int index, int size) {
    T* const rows = static_cast<T*>(args.workspace) + index * block_elements;
    for (std::int64_t i = 0; i < block_elements; i += Vec<T>::lanes) Vec<T>::store(rows + i, Vec<T>::zero());
    const Share mine = share(p.n * p.c * bands, index, size);
    for (std::int64_t item = mine.begin; item < mine.end; ++item) {
      const std::int64_t plane = item / bands, channel = plane % p.c;
      const Share band = share(p.h, item % bands, bands);
      // The largest output that a row of the band meets, and the smallest.
      std::int64_t begin = 1LL << 40, end = -begin;
      for (std::int64_t y = band.begin; y < smaller(band.end, band.begin + p.stride_h); ++y) {
        const std::int64_t tap = phases[down.residue(y)].first_tap;
        if (tap >= p.kh) continue;
        begin = smaller(begin, down.output(y, tap) - reach);
        end = larger(end, down.output(y + (band.end - 1 - y) / p.stride_h * p.stride_h, tap) + 1);
      }
      fill(p, block, static_cast<const T*>(args.x) + plane * p.oh * p.ow, begin, larger<std::int64_t>(end - begin, 0),
           rows);
      const T* const weights = static_cast<const T*>(args.w.data) + channel * p.kh * p.kw;
      const T bias = finish.bias ? finish.bias[channel] : T(0);
      const std::int64_t at = plane * p.h * p.w;
      for (std::int64_t first = band.begin; first < band.end; first += together * p.stride_h) {
        for (std::int64_t y = first; y < smaller(band.end, first + p.stride_h); ++y) {
          const RowPhase& phase = phases[down.residue(y)];
          const std::int64_t output = phase.all ? down.output(y, phase.first_tap) - begin : 0, row = at + y * p.w;
          phase_rows_of<T>(phase)({phase, rows + output * block.pitch, phase.all ? block.pitch : 0, weights, bias,
                                   finish, static_cast<T*>(args.y) + row,
                                   finish.residual ? finish.residual + row : nullptr, p.stride_h * p.w,
                                   smaller(together, ceil_div(band.end - y, p.stride_h)), p.w});
        }
      }
      if (finish.after) {
        activate_rows(static_cast<T*>(args.y) + at + band.begin * p.w, band.end - band.begin, p.w, p.w, *finish.after);
      }
    }
  };
  team(worthwhile_threads(p, args.threads), member);
}

template <class T>
void cost(const ConvProblem& p, const Parameters&, const Machine&, int threads, Cost* out) {
  const double vectors = static_cast<double>(p.n * p.c * p.h * 2 * ceil_div(p.w, 2 * Vec<T>::lanes));
  *out = {};
  out->fmas = vectors * Vec<T>::lanes * static_cast<double>(p.kh * p.kw) / static_cast<double>(2 * p.stride_h);
  out->efficiency = 0.3;
  out->vector_ops = 5 * vectors + 3.0 * static_cast<double>(p.n * p.c * p.oh * ceil_div(p.ow, Vec<T>::lanes));
  out->bytes_dram = tensor_bytes(p, sizeof(T));
  out->imbalance = grid_imbalance(p.n * p.c, 1, threads);
}

template <class T>
constexpr Kernel entry(const char* name) {
  return kernel_of<T>("depthwise", name, Op::input_grad, layout_nchw, 1,
                      {no_parameters, planes_apply, one_candidate, cost<T>, workspace_bytes<T>, run<T>});
}

constexpr Kernel kernels[] = {
    entry<float>("f32_depthwise_phases_nchw_input_grad__" CONVKIT_ISA_NAME),
    entry<double>("f64_depthwise_phases_nchw_input_grad__" CONVKIT_ISA_NAME),
};

}  // namespace

extern const KernelTable depthwise_phases_nchw_table;
constexpr KernelTable depthwise_phases_nchw_table = {kernels, sizeof kernels / sizeof kernels[0]};

}  // namespace convkit::CONVKIT_ISA
