// Stride 2: the pixels of x of one parity along each axis meet every second tap, so that a convolution is the sum of four
// with stride 1 and taps half as many a side, which is one of stride 1 with four times the channels. 3x3 and 4x4 filters
// take F(4x4, 2x2), 100 products for 16 pixels where direct summation takes 144 and 256; 5x5 and 6x6 take F(4x4, 3x3),
// 144 for 400 and 576. In odd filters the last tap of the odd phases is zero, and with it their product at the point
// infinity: 81 products are left for a 3x3, 121 for a 5x5.
//
// x is copied phase by phase, pads included, as many images at a time as stay in L3. Packed filters are 100 / 9 times as
// large as those of a 3x3: with few pixels reading them takes longer than direct summation.
#include "algorithms/adjoint.hpp"
#include "algorithms/winograd/entry.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

constexpr int phases = 4;  // (row parity, column parity), rows first

template <class T, class F, const char* Name>
struct Entry {
  static constexpr int r = F::r;
  static const WinogradTile<T>& tile() { return winograd_tile<T, F, F>(); }

  static bool applies(const ConvProblem& p) {
    return p.stride_h == 2 && p.stride_w == 2 && p.dilation_h == 1 && p.dilation_w == 1 && (p.kh + 1) / 2 == r &&
           (p.kw + 1) / 2 == r && p.c >= p.groups && p.o >= p.groups;
  }

  // The convolution with stride 1 of `images` images.
  static ConvProblem inner(const ConvProblem& p, std::int64_t images) {
    ConvProblem q = p;
    q.n = images;
    q.c = phases * p.c;
    q.h = p.oh + r - 1, q.w = p.ow + r - 1;
    q.kh = q.kw = r;
    q.stride_h = q.stride_w = 1;
    q.pad_top = q.pad_bottom = q.pad_left = q.pad_right = 0;
    q.packed = 1;
    return q;
  }
  // Products with zero are left out where phases are whole vectors.
  static bool skips(const ConvProblem& p) { return p.c / p.groups % Vec<T>::lanes == 0; }
  static Sizes<T> sizes(const ConvProblem& p, const ConvProblem& q, const Parameters& parameters) {
    Sizes<T> s(q, parameters, tile());
    s.phase_channels = p.c / p.groups;
    s.odd_rows = skips(p) && p.kh % 2 == 1;
    s.odd_columns = skips(p) && p.kw % 2 == 1;
    return s;
  }
  // Share of the products along one axis that are then left.
  static double multiplied(std::int64_t taps) { return taps % 2 ? 1.0 - 0.5 / F::n : 1.0; }
  static std::int64_t images(const ConvProblem& p, const Machine& machine) {
    const std::int64_t n = larger<std::int64_t>(p.n, 1);  // plans ask about empty batches, too
    const ConvProblem q = inner(p, 1);
    const std::int64_t image = (q.c * q.h * q.w + p.o * p.oh * p.ow) * static_cast<std::int64_t>(sizeof(T));
    const std::int64_t fitting = larger(machine.l3, machine.l2) / 3 / larger<std::int64_t>(image, 1);
    return ceil_div(n, ceil_div(n, larger<std::int64_t>(1, smaller(n, fitting))));
  }

  // Filters of the inner convolution, piece by piece of one phase, from w as it is.
  static void pack_phases(const ConvProblem& p, const WeightView& w, T* out, int threads) {
    constexpr int lanes = Vec<T>::lanes;
    const Sizes<T> s(inner(p, 1), Parameters{{0, 1, 1, 0}}, tile());
    const std::int64_t c = p.c / p.groups, blocks = ceil_div(c, lanes);
    auto member = [&](int index, int size) {
      alignas(64) T scratch[r * r * lanes * lanes];
      // Phases innermost: they read the same weights.
      const Share mine = share(p.groups * s.panels * blocks * phases, index, size);
      for (std::int64_t item = mine.begin; item < mine.end; ++item) {
        const std::int64_t row = item % phases / 2, column = item % 2, block = item / phases % blocks;
        const std::int64_t panel = item / phases / blocks % s.panels, group = item / phases / blocks / s.panels;
        WeightView view = group_weights(w, group, sizeof(T));
        view.data = static_cast<const T*>(view.data) + row * w.stride_kh + column * w.stride_kw;
        view.stride_kh *= 2, view.stride_kw *= 2;
        const int vectors = s.vectors(panel);
        const std::int64_t first = block * lanes, channel = item % phases * c + first;
        T* const u = out + group * s.packed_group + panel * s.packed_panel() + channel * vectors * lanes;
        const FilterStage<T> stage{tile(), view, s.g.o, c, scratch, (p.kh - row + 1) / 2, (p.kw - column + 1) / 2};
        stage.run(panel * s.panel, vectors, first, smaller(c, first + lanes), u, s.packed_point(vectors));
      }
    };
    team(threads, member);
  }

  // x as the inner convolution reads it: [group][phase][channel] where x has [group][channel].
  static void separate_pixels(const ConvProblem& p, const ConvProblem& q, const T* x, T* out, int threads) {
    if (p.layout == Layout::nhwc) {
      separate_channels_last(p, q, x, out, threads);
    } else {
      separate_planes(p, q, x, out, threads);
    }
  }
  static void separate_channels_last(const ConvProblem& p, const ConvProblem& q, const T* x, T* out, int threads) {
    const std::int64_t c = p.c / p.groups;
    auto member = [&](int index, int size) {
      const Share rows = share(q.n * q.h, index, size);
      T* to = out + rows.begin * q.w * q.c;
      for (std::int64_t row = rows.begin; row < rows.end; ++row) {
        const T* const image = x + row / q.h * p.h * p.w * p.c;
        for (std::int64_t col = 0; col < q.w; ++col) {
          for (std::int64_t group = 0; group < p.groups; ++group) {
            for (int phase = 0; phase < phases; ++phase, to += c) {
              const std::int64_t i = 2 * (row % q.h) + phase / 2 - p.pad_top, j = 2 * col + phase % 2 - p.pad_left;
              if (i >= 0 && i < p.h && j >= 0 && j < p.w) {
                copy_run(image + (i * p.w + j) * p.c + group * c, c, to);
              } else {
                zero_run(c, to);
              }
            }
          }
        }
      }
    };
    team(threads, member);
  }
  static void separate_planes(const ConvProblem& p, const ConvProblem& q, const T* x, T* out, int threads) {
    const std::int64_t c = p.c / p.groups, plane = q.h * q.w;
    auto member = [&](int index, int size) {
      const Share planes = share(q.n * p.c, index, size);
      for (std::int64_t item = planes.begin; item < planes.end; ++item) {
        const T* const from = x + item * p.h * p.w;
        const std::int64_t channel = item % p.c;
        T* const first = out + (item / p.c * q.c + channel / c * phases * c + channel % c) * plane;
        for (int phase = 0; phase < phases; ++phase) {
          T* to = first + phase * c * plane;
          for (std::int64_t row = 0; row < q.h; ++row, to += q.w) {
            const std::int64_t i = 2 * row + phase / 2 - p.pad_top;
            fill_tap(p, i >= 0 && i < p.h ? from + i * p.w : nullptr, 0, q.w, phase % 2 - p.pad_left, to);
          }
        }
      }
    };
    team(threads, member);
  }

  struct Areas {
    T *packed, *x;
    char* winograd;
  };
  template <class Cut>
  static Areas carve(const ConvProblem& p, const Parameters& parameters, const Machine& machine, int threads,
                     Cut& carver) {
    const std::int64_t together = images(p, machine), last = p.n - (ceil_div(p.n, together) - 1) * together;
    const ConvProblem q = inner(p, together);
    Areas areas{};
    if (!p.packed) areas.packed = carver.template take<T>(winograd_packed_elements(q, tile()));
    areas.x = carver.template take<T>(q.n * q.c, q.h * q.w);
    carver.align(4096);
    areas.winograd = carver.here();
    // Fewer images may make larger blocks.
    carver.skip(larger(winograd_workspace(q, parameters, threads, tile()),
                       winograd_workspace(inner(p, last), parameters, threads, tile())));
    return areas;
  }

  static int candidates(const ConvProblem& p, const Machine& machine, int threads, Parameters* out, int capacity) {
    return winograd_candidates(inner(p, images(p, machine)), machine, threads, tile(), out, capacity);
  }
  static void cost(const ConvProblem& p, const Parameters& parameters, const Machine& machine, int threads, Cost* out) {
    const ConvProblem q = inner(p, larger<std::int64_t>(p.n, 1));
    winograd_cost(q, parameters, machine, threads, tile(), out);
    if (skips(p)) out->fmas *= multiplied(p.kh) * multiplied(p.kw);
    out->bytes_dram = tensor_bytes(p, sizeof(T));
    const double copied = static_cast<double>(q.n * q.c * q.h * q.w);
    out->vector_ops += (p.layout == Layout::nhwc ? 2.0 : 4.0) * copied / Vec<T>::lanes;
    out->bytes_l3 += 2.0 * copied * sizeof(T);
    out->barriers += 1;
    if (!p.packed) {
      out->vector_ops += 4.0 * static_cast<double>(p.o * (p.c / p.groups)) * phases * r * r;
      out->bytes_l3 += 2.0 * static_cast<double>(winograd_packed_elements(q, tile())) * sizeof(T);
      out->barriers += 2;
    }
  }

  static void packing(const ConvProblem& p, const Parameters&, Packing* out) {
    // Four taps are packed as three and a zero are.
    describe_packing(Name, winograd_packed_elements(inner(p, 1), tile()) * static_cast<std::int64_t>(sizeof(T)), out);
  }
  static void pack(const ConvProblem& p, const Parameters&, const WeightView& w, void* out, int threads) {
    pack_phases(p, w, static_cast<T*>(out), threads);
  }
  static std::int64_t workspace_bytes(const ConvProblem& p, const Parameters& parameters, const Machine& machine,
                                      int threads) {
    Tally carver;
    carve(p, parameters, machine, threads, carver);
    return carver.used;
  }

  static void run(const Arguments& args) {
    const ConvProblem& p = *args.problem;
    Carver carver{static_cast<char*>(args.workspace)};
    const Areas areas = carve(p, *args.parameters, *args.machine, args.threads, carver);
    Arguments part = args;
    part.x = areas.x;
    part.workspace = areas.winograd;
    if (!p.packed) {
      pack_phases(p, args.w, areas.packed, args.threads);
      part.packed = areas.packed;
    }
    const std::int64_t together = images(p, *args.machine), outputs = p.o * p.oh * p.ow;
    for (std::int64_t first = 0; first < p.n; first += together) {
      const ConvProblem q = inner(p, smaller(together, p.n - first));
      part.problem = &q;
      part.y = static_cast<T*>(args.y) + first * outputs;
      if (args.epilogue.residual) {
        part.epilogue.residual = static_cast<const T*>(args.epilogue.residual) + first * outputs;
      }
      separate_pixels(p, q, static_cast<const T*>(args.x) + first * p.c * p.h * p.w, areas.x, args.threads);
      const double bytes = static_cast<double>(q.n * outputs) * sizeof(T);
      winograd_run(part, tile(), sizes(p, q, *args.parameters), bytes > static_cast<double>(args.machine->l2));
    }
  }
};

template <class T, class F, const char* Name>
constexpr Kernel kernel(float rms_ratio) {
  return winograd_kernel<T, Entry<T, F, Name>>("winograd4", Name, Op::forward, 1, rms_ratio);
}

constexpr char f32_2x2[] = "f32_winograd_strided_4x4_2x2__" CONVKIT_ISA_NAME;
constexpr char f32_3x3[] = "f32_winograd_strided_4x4_3x3__" CONVKIT_ISA_NAME;
constexpr char f64_2x2[] = "f64_winograd_strided_4x4_2x2__" CONVKIT_ISA_NAME;
constexpr char f64_3x3[] = "f64_winograd_strided_4x4_3x3__" CONVKIT_ISA_NAME;

constexpr Kernel kernels[] = {
    kernel<float, F4x2, f32_2x2>(2.0f),
    kernel<float, F4x3, f32_3x3>(2.25f),
    kernel<double, F4x2, f64_2x2>(2.0f),
    kernel<double, F4x3, f64_3x3>(2.25f),
};

}  // namespace

extern const KernelTable winograd_strided_table;
constexpr KernelTable winograd_strided_table = {kernels, sizeof kernels / sizeof kernels[0]};

}  // namespace convkit::CONVKIT_ISA
