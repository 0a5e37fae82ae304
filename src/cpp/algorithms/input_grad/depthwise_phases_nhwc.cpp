// Input gradient of a strided depthwise convolution, NHWC: lanes on channels, pixels of dx phase by phase (axis.hpp). Four
// pixels of a phase share each load of a weight, and each meets only the taps that reach it.
//
// NCHW is in depthwise_phases_nchw.cpp, stride 1 the adjoint of the forward kernel.
#include "algorithms/adjoint.hpp"
#include "algorithms/input_grad/axis.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

constexpr int together = 4;

bool depthwise_phases_applies(const ConvProblem& p) {
  return p.groups == p.c && p.o == p.c && p.kh <= 64 && !has_adjoint(p);
}

template <class T>
CONVKIT_INLINE std::int64_t channel_vectors(const ConvProblem& p) {
  return ceil_div(p.c, Vec<T>::lanes);
}

template <class T>
CONVKIT_INLINE std::int64_t channel_weights_bytes(const ConvProblem& p) {
  return channel_vectors<T>(p) * Vec<T>::bytes * p.kh * p.kw;
}

template <class T>
void cost(const ConvProblem& p, const Parameters&, const Machine&, int threads, Cost* out) {
  const double vectors = static_cast<double>(p.n * p.h * p.w * channel_vectors<T>(p));
  const double taps = static_cast<double>(p.kh * p.kw) / static_cast<double>(p.stride_h * p.stride_w);
  *out = {};
  out->fmas = vectors * Vec<T>::lanes * taps;
  out->efficiency = 0.6;
  out->vector_ops = 2.5 * vectors;
  out->bytes_dram = tensor_bytes(p, sizeof(T));
  out->imbalance = grid_imbalance(p.n * p.h, 1, threads);
}

template <class T>
void packing(const ConvProblem& p, const Parameters&, Packing* out) {
  describe_packing("channels_" CONVKIT_ISA_NAME, channel_weights_bytes<T>(p), out);
}

// [C / lanes][KH][KW][lanes], zeros behind the last channel.
template <class T>
void pack(const ConvProblem& p, const Parameters&, const WeightView& w, void* out, int) {
  constexpr int lanes = Vec<T>::lanes;
  const std::int64_t taps = p.kh * p.kw;
  for (std::int64_t c = 0; c < channel_vectors<T>(p) * lanes; ++c) {
    const T* from = static_cast<const T*>(w.data) + c * w.stride_group;
    T* to = static_cast<T*>(out) + c / lanes * taps * lanes + c % lanes;
    for (std::int64_t t = 0; t < taps; ++t, to += lanes) {
      *to = c < p.c ? from[t / p.kw * w.stride_kh + t % p.kw * w.stride_kw] : T(0);
    }
  }
}

template <class T>
std::int64_t workspace_bytes(const ConvProblem& p, const Parameters&, const Machine&, int) {
  return p.packed ? 0 : channel_weights_bytes<T>(p);
}

// The rows of dy that a row of dx meets.
template <class T>
struct MetRows {
  const T* row[64];
  std::int64_t weights[64];  // of the row's first tap of the phase, in vectors
  std::int64_t count;
};

template <class T>
struct Pixels {
  const MetRows<T>& rows;
  std::int64_t x, taps, step;  // output that the first pixel's first tap meets; taps and how outputs fall with them
  std::int64_t tap_step;
  std::int64_t outputs, channels;  // of dy: columns, and from pixel to pixel
};

// Count pixels of one phase, one vector of channels, which begins at channel `c`. Inside: all outputs exist.
template <class T, int Count, bool Inside>
CONVKIT_INLINE void pixel_sums(const Pixels<T>& pixels, std::int64_t c, int valid, const T* weights,
                               typename Vec<T>::Reg (&sum)[Count]) {
  using V = Vec<T>;
  const bool whole = valid == V::lanes;
  for (std::int64_t r = 0; r < pixels.rows.count; ++r) {
    const T* w = weights + pixels.rows.weights[r] * V::lanes;
    const T* from = pixels.rows.row[r] + pixels.x * pixels.channels + c;
    std::int64_t x = pixels.x;
    for (std::int64_t tap = 0; tap < pixels.taps; ++tap) {
      const auto weight = V::load(w);
      CONVKIT_UNROLL
      for (int i = 0; i < Count; ++i) {
        if (Inside || (x + i >= 0 && x + i < pixels.outputs)) {
          const T* at = from + i * pixels.channels;
          sum[i] = weight * (whole ? V::load(at) : V::load(at, valid)) + sum[i];
        }
      }
      w += pixels.tap_step * V::lanes;
      from -= pixels.step * pixels.channels;
      x -= pixels.step;
    }
  }
}

template <class T, int Count>
CONVKIT_INLINE void store_pixels(const Pixels<T>& pixels, const ConvProblem& p, const Finish<T>& finish,
                                 const T* packed, T* y, const T* residual) {
  using V = Vec<T>;
  const bool inside = pixels.x - (pixels.taps - 1) * pixels.step >= 0 && pixels.x + Count <= pixels.outputs;
  const std::int64_t taps = p.kh * p.kw, step = p.stride_w * p.c;
  for (std::int64_t c = 0; c < p.c; c += V::lanes) {
    const int valid = static_cast<int>(smaller<std::int64_t>(p.c - c, V::lanes));
    const auto bias = finish.bias ? V::load(finish.bias + c, valid) : V::zero();
    typename V::Reg sum[Count];
    CONVKIT_UNROLL
    for (int i = 0; i < Count; ++i) sum[i] = bias;
    const T* weights = packed + c * taps;
    if (inside) {
      pixel_sums<T, Count, true>(pixels, c, valid, weights, sum);
    } else {
      pixel_sums<T, Count, false>(pixels, c, valid, weights, sum);
    }
    CONVKIT_UNROLL
    for (int i = 0; i < Count; ++i) {
      if (residual) sum[i] += V::load(residual + i * step + c, valid);
      if (finish.clamp) sum[i] = V::min(V::set1(finish.hi), V::max(V::set1(finish.lo), sum[i]));
      if (valid == V::lanes) {
        V::store(y + i * step + c, sum[i]);
      } else {
        V::store(y + i * step + c, sum[i], valid);
      }
    }
  }
}

template <class T>
void run(const Arguments& args) {
  const ConvProblem& p = *args.problem;
  const T* const packed = packed_weights<T>(args, pack<T>, static_cast<char*>(args.workspace));
  const Axis down = rows_axis(p), across = columns_axis(p);
  const Finish<T> finish(args.epilogue);
  auto member = [&](int index, int size) {
    const Share mine = share(p.n * p.h, index, size);
    MetRows<T> rows;
    for (std::int64_t item = mine.begin; item < mine.end; ++item) {
      const std::int64_t image = item / p.h, y = item % p.h, tap_h = down.first_tap(down.residue(y));
      T* const to = static_cast<T*>(args.y) + item * p.w * p.c;
      const T* const residual = finish.residual ? finish.residual + item * p.w * p.c : nullptr;
      for (std::int64_t phase = 0; phase < smaller(across.stride, p.w); ++phase) {
        const std::int64_t tap_w = across.first_tap(across.residue(phase));
        rows.count = 0;
        std::int64_t oy = tap_h < p.kh ? down.output(y, tap_h) : 0;
        for (std::int64_t kh = tap_h; kh < p.kh; kh += down.tap_step, oy -= down.output_step) {
          if (oy < 0 || oy >= p.oh) continue;
          rows.row[rows.count] = static_cast<const T*>(args.x) + (image * p.oh + oy) * p.ow * p.o;
          rows.weights[rows.count++] = kh * p.kw + tap_w;
        }
        const std::int64_t taps = ceil_div(p.kw - tap_w, across.tap_step);
        if (!taps) rows.count = 0;
        Pixels<T> pixels{rows, taps ? across.output(phase, tap_w) : 0, taps, across.output_step, across.tap_step, p.ow,
                         p.c};
        std::int64_t x = phase;
        for (; x + (together - 1) * p.stride_w < p.w; x += together * p.stride_w, pixels.x += together) {
          store_pixels<T, together>(pixels, p, finish, packed, to + x * p.c, residual ? residual + x * p.c : nullptr);
        }
        for (; x < p.w; x += p.stride_w, ++pixels.x) {
          store_pixels<T, 1>(pixels, p, finish, packed, to + x * p.c, residual ? residual + x * p.c : nullptr);
        }
      }
      if (finish.after) activate_rows(to, p.w, p.c, p.c, *finish.after);
    }
  };
  team(worthwhile_threads(p, args.threads), member);
}

template <class T>
constexpr Kernel entry(const char* name) {
  return kernel_of<T>("depthwise", name, Op::input_grad, layout_nhwc, 1,
                      {no_parameters, depthwise_phases_applies, one_candidate, cost<T>, workspace_bytes<T>, run<T>},
                      {packing<T>, pack<T>});
}

constexpr Kernel kernels[] = {
    entry<float>("f32_depthwise_phases_nhwc_input_grad__" CONVKIT_ISA_NAME),
    entry<double>("f64_depthwise_phases_nhwc_input_grad__" CONVKIT_ISA_NAME),
};

}  // namespace

extern const KernelTable depthwise_phases_nhwc_table;
constexpr KernelTable depthwise_phases_nhwc_table = {kernels, sizeof kernels / sizeof kernels[0]};

}  // namespace convkit::CONVKIT_ISA
