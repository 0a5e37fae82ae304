// Input gradients of 4x4 filters with stride 2, the transposed convolution that generators upsample with: the pixels of dx
// of one parity along each axis meet 2x2 of the taps, so that each of the four parities is a convolution of dy with stride
// 1 and filters of 2x2, computed by F(4x4, 2x2): 25 products for 16 pixels where direct summation takes 64.
//
// Channels last, a parity's tiles are written to every second pixel of dx in place. NCHW goes through channels-last copies
// of dy and dx, of as many images at a time as stay in L3.
#include "algorithms/adjoint.hpp"
#include "algorithms/winograd/entry.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

// Pixels of dx of one parity along one axis, as the result of a convolution of dy with two taps.
struct Parity {
  std::int64_t first, count;   // pixels first, first + 2, ...
  std::int64_t tap;            // first of the two taps, two apart
  std::int64_t before, after;  // pads of the convolution
};

CONVKIT_INLINE Parity parity(std::int64_t which, std::int64_t size, std::int64_t pad, std::int64_t outputs) {
  Parity a;
  a.first = which;
  a.count = (size - which + 1) / 2;
  a.tap = (which + pad) % 2;
  a.before = 1 - (which + pad) / 2;
  a.after = a.count + 1 - outputs - a.before;
  return a;
}

constexpr int parities = 4;

CONVKIT_INLINE Parity rows_of(const ConvProblem& p, int phase) { return parity(phase / 2, p.h, p.pad_top, p.oh); }
CONVKIT_INLINE Parity columns_of(const ConvProblem& p, int phase) { return parity(phase % 2, p.w, p.pad_left, p.ow); }

bool phases_apply(const ConvProblem& p) {
  if (p.kh != 4 || p.kw != 4 || p.stride_h != 2 || p.stride_w != 2 || p.dilation_h != 1 || p.dilation_w != 1 ||
      p.residual || p.h < 2 || p.w < 2) {
    return false;
  }
  for (int phase = 0; phase < parities; ++phase) {
    const Parity rows = rows_of(p, phase), columns = columns_of(p, phase);
    if (rows.before < 0 || rows.after < 0 || columns.before < 0 || columns.after < 0) return false;
  }
  return true;
}

// The convolution of `images` images that one parity is.
ConvProblem phase_problem(const ConvProblem& p, int phase, std::int64_t images) {
  const Parity rows = rows_of(p, phase), columns = columns_of(p, phase);
  ConvProblem q = adjoint_filter(p);
  q.layout = Layout::nhwc;
  q.n = images;
  q.h = p.oh, q.w = p.ow, q.oh = rows.count, q.ow = columns.count;
  q.kh = q.kw = 2;
  q.stride_h = q.stride_w = 1;
  q.pad_top = rows.before, q.pad_bottom = rows.after, q.pad_left = columns.before, q.pad_right = columns.after;
  return q;
}

// Its taps, last first.
template <class T>
WeightView phase_weights(const ConvProblem& p, int phase, const WeightView& w) {
  const T* const last = static_cast<const T*>(w.data) + (rows_of(p, phase).tap + 2) * w.stride_kh +
                        (columns_of(p, phase).tap + 2) * w.stride_kw;
  return {last, w.stride_c, w.stride_o, -2 * w.stride_kh, -2 * w.stride_kw, w.stride_group};
}

// The same of all parities, each as dense OIHW: taps that lie apart would be gathered one by one, parity after parity.
template <class T>
void separate_taps(const ConvProblem& p, const WeightView& w, T* out, int threads) {
  constexpr std::int64_t band = 8;
  const std::int64_t outputs = p.c / p.groups, inputs = p.o / p.groups, bands = ceil_div(outputs, band);
  const std::int64_t row = inputs * 4, all = p.c * row;
  std::int64_t from_tap[parities][4];
  for (int phase = 0; phase < parities; ++phase) {
    const std::int64_t y = rows_of(p, phase).tap + 2, x = columns_of(p, phase).tap + 2;
    for (int i = 0; i < 4; ++i) {
      from_tap[phase][i] = (y - i / 2 * 2) * w.stride_kh + (x - i % 2 * 2) * w.stride_kw;
    }
  }
  auto member = [&](int index, int size) {
    const Share mine = share(p.groups * bands, index, size);
    for (std::int64_t item = mine.begin; item < mine.end; ++item) {
      const std::int64_t group = item / bands, first = item % bands * band, last = smaller(first + band, outputs);
      const T* const from = static_cast<const T*>(w.data) + group * w.stride_group;
      T* const to = out + group * outputs * row;
      for (std::int64_t input = 0; input < inputs; ++input) {
        for (std::int64_t c = first; c < last; ++c) {
          const T* const filter = from + input * w.stride_o + c * w.stride_c;
          T* const taps = to + c * row + input * 4;
          for (int phase = 0; phase < parities; ++phase) {
            for (int i = 0; i < 4; ++i) taps[phase * all + i] = filter[from_tap[phase][i]];
          }
        }
      }
    }
  };
  team(threads, member);
}

template <class T>
WeightView separate_weights(const ConvProblem& p, int phase, const T* taps) {
  const std::int64_t row = p.o / p.groups * 4;
  return {taps + phase * p.c * row, row, 4, 2, 1, p.c / p.groups * row};
}

template <class T>
struct Entry {
  static const WinogradTile<T>& tile() { return winograd_tile<T, F4x2, F4x2>(); }

  static bool applies(const ConvProblem& p) { return phases_apply(p); }

  static std::int64_t packed_elements(const ConvProblem& p) {
    return round_up(winograd_packed_elements(phase_problem(p, 0, 1), tile()), 64);
  }
  // Images that are worked on together. Cold filters that outweigh the images are transformed once for all of them, a parity
  // at a time, and need not be written to memory.
  static std::int64_t images(const ConvProblem& p, const Machine& machine) {
    const std::int64_t n = larger<std::int64_t>(p.n, 1);  // plans ask about empty batches, too
    const std::int64_t image = p.o * p.oh * p.ow + p.c * p.h * p.w;
    if (p.layout == Layout::nhwc || (!p.packed && parities * packed_elements(p) > n * image)) return n;
    const std::int64_t cache = larger(machine.l3, machine.l2) / static_cast<std::int64_t>(sizeof(T));
    return ceil_div(n, ceil_div(n, larger<std::int64_t>(1, smaller(n, cache / 3 / image))));
  }
  // The convolution of one parity as it is run: its filters are cold only where it runs once.
  static ConvProblem part_problem(const ConvProblem& p, const Machine& machine, int phase, std::int64_t count) {
    ConvProblem q = phase_problem(p, phase, count);
    q.packed = p.packed || images(p, machine) < p.n;
    return q;
  }

  struct Areas {
    T *taps, *packed, *dy, *dx;
    char* winograd;
  };
  template <class Cut>
  static Areas carve(const ConvProblem& p, const Parameters& parameters, const Machine& machine, int threads,
                     Cut& carver) {
    const std::int64_t together = images(p, machine);
    Areas areas{};
    if (!p.packed) areas.taps = carver.template take<T>(p.c * (p.o / p.groups), 16);
    if (!p.packed && together < p.n) areas.packed = carver.template take<T>(parities, packed_elements(p));
    if (p.layout == Layout::nchw) {
      areas.dy = carver.template take<T>(together, p.o * p.oh * p.ow);
      areas.dx = carver.template take<T>(together, p.c * p.h * p.w);
    }
    // Fewer images may make larger blocks: the last ones count, too.
    const std::int64_t counts[] = {together, p.n - (ceil_div(p.n, together) - 1) * together};
    std::int64_t bytes = 0;
    for (const std::int64_t count : counts) {
      for (int phase = 0; phase < parities; ++phase) {
        bytes = larger(bytes, winograd_workspace(part_problem(p, machine, phase, count), parameters, threads, tile()));
      }
    }
    carver.align(4096);
    areas.winograd = carver.here();
    carver.skip(bytes);
    return areas;
  }

  static int candidates(const ConvProblem& p, const Machine& machine, int threads, Parameters* out, int capacity) {
    return winograd_candidates(part_problem(p, machine, 0, images(p, machine)), machine, threads, tile(), out,
                               capacity);
  }

  static void cost(const ConvProblem& p, const Parameters& parameters, const Machine& machine, int threads, Cost* out) {
    winograd_cost(part_problem(p, machine, 0, p.n), parameters, machine, threads, tile(), out);
    out->fmas *= parities;
    out->vector_ops *= parities;
    out->barriers *= parities;
    out->bytes_dram = tensor_bytes(p, sizeof(T));
    if (p.layout == Layout::nchw) {
      const double copied = static_cast<double>(p.n * (p.o * p.oh * p.ow + p.c * p.h * p.w));
      out->vector_ops += 6.0 * copied / Vec<T>::lanes;
      out->bytes_l3 += 2.0 * copied * sizeof(T);
    }
    if (!p.packed && images(p, machine) < p.n) {
      const double filters = static_cast<double>(p.o * p.c / p.groups);
      out->vector_ops += filters * (16.0 + parities * 25.0 * 3.0 / Vec<T>::lanes);
      out->bytes_l3 += parities * 25.0 * filters * sizeof(T);
    }
  }

  static void packing(const ConvProblem& p, const Parameters&, Packing* out) {
    describe_packing("winograd_phases_4x4_" CONVKIT_ISA_NAME,
                     parities * packed_elements(p) * static_cast<std::int64_t>(sizeof(T)), out);
  }
  static void pack(const ConvProblem& p, const Parameters&, const WeightView& w, void* out, int threads) {
    for (int phase = 0; phase < parities; ++phase) {
      pack_phase(p, phase, phase_weights<T>(p, phase, w), static_cast<T*>(out), threads);
    }
  }
  static void pack_phase(const ConvProblem& p, int phase, const WeightView& w, T* out, int threads) {
    winograd_pack(phase_problem(p, phase, 1), w, out + phase * packed_elements(p), threads, tile());
  }
  static std::int64_t workspace_bytes(const ConvProblem& p, const Parameters& parameters, const Machine& machine,
                                      int threads) {
    Tally carver;
    carve(p, parameters, machine, threads, carver);
    return carver.used;
  }

  // [channel][pixel] of some images to [pixel][channel].
  static void to_channels_last(const T* from, std::int64_t images, std::int64_t channels, std::int64_t pixels, T* to,
                               int threads) {
    const std::int64_t bands = ceil_div(channels, Vec<T>::lanes);
    auto member = [&](int index, int size) {
      const Share mine = share(images * bands, index, size);
      for (std::int64_t i = mine.begin; i < mine.end; ++i) {
        const std::int64_t image = i / bands * channels * pixels, first = i % bands * Vec<T>::lanes;
        transpose_block(from + image + first * pixels, pixels, smaller<std::int64_t>(Vec<T>::lanes, channels - first),
                        pixels, to + image + first, channels);
      }
    };
    team(threads, member);
  }
  // Back again, with what of the epilogue is left.
  static void to_planes(const T* from, std::int64_t images, std::int64_t channels, std::int64_t pixels, T* to,
                        const Epilogue& epilogue, int threads) {
    constexpr std::int64_t band = 64;
    const std::int64_t bands = ceil_div(pixels, band);
    auto member = [&](int index, int size) {
      const Share mine = share(images * bands, index, size);
      for (std::int64_t i = mine.begin; i < mine.end; ++i) {
        const std::int64_t image = i / bands * channels * pixels, first = i % bands * band;
        const std::int64_t count = smaller(band, pixels - first);
        transpose_block(from + image + first * channels, channels, count, channels, to + image + first, pixels);
        if (outlasts_store(epilogue)) activate_rows(to + image + first, channels, pixels, count, epilogue);
      }
    };
    team(threads, member);
  }

  static void run(const Arguments& args) {
    const ConvProblem& p = *args.problem;
    Carver carver{static_cast<char*>(args.workspace)};
    const Areas areas = carve(p, *args.parameters, *args.machine, args.threads, carver);
    const T* packed = static_cast<const T*>(args.packed);
    if (areas.taps) separate_taps(p, args.w, areas.taps, args.threads);
    if (areas.packed) {
      for (int phase = 0; phase < parities; ++phase) {
        pack_phase(p, phase, separate_weights(p, phase, areas.taps), areas.packed, args.threads);
      }
      packed = areas.packed;
    }
    const bool nchw = p.layout == Layout::nchw;
    const std::int64_t together = images(p, *args.machine), inputs = p.o * p.oh * p.ow, outputs = p.c * p.h * p.w;
    for (std::int64_t first = 0; first < p.n; first += together) {
      const std::int64_t count = smaller(together, p.n - first);
      const T* dy = static_cast<const T*>(args.x) + first * inputs;
      T* const result = static_cast<T*>(args.y) + first * outputs;
      T* const dx = nchw ? areas.dx : result;
      if (nchw) {
        to_channels_last(dy, count, p.o, p.oh * p.ow, areas.dy, args.threads);
        dy = areas.dy;
      }
      for (int phase = 0; phase < parities; ++phase) {
        const ConvProblem q = part_problem(p, *args.machine, phase, count);
        Sizes<T> sizes(q, *args.parameters, tile());
        sizes.g.y.image = outputs;
        sizes.g.y.row = 2 * p.w * p.c;
        sizes.g.y.col = 2 * p.c;
        Arguments part = args;
        part.problem = &q;
        part.x = dy;
        part.packed = packed ? packed + phase * packed_elements(p) : nullptr;
        if (!packed) part.w = separate_weights(p, phase, areas.taps);
        part.y = dx + (rows_of(p, phase).first * p.w + columns_of(p, phase).first) * p.c;
        part.workspace = areas.winograd;
        if (nchw && outlasts_store(args.epilogue)) {
          // The copy is not where dx lies.
          part.epilogue.following = nullptr;
          if (args.epilogue.activation != Activation::clamp) part.epilogue.activation = Activation::none;
        }
        const double bytes = static_cast<double>(count * outputs) * sizeof(T);
        winograd_run(part, tile(), sizes, !nchw && bytes > static_cast<double>(args.machine->l2));
      }
      if (nchw) to_planes(areas.dx, count, p.c, p.h * p.w, result, args.epilogue, args.threads);
    }
  }
};

template <class T>
constexpr Kernel kernel(const char* name) {
  return winograd_kernel<T, Entry<T>>("winograd4", name, Op::input_grad, 1, 1.3f);
}

constexpr Kernel kernels[] = {
    kernel<float>("f32_winograd_phases_4x4_4x4_input_grad__" CONVKIT_ISA_NAME),
    kernel<double>("f64_winograd_phases_4x4_4x4_input_grad__" CONVKIT_ISA_NAME),
};

}  // namespace

extern const KernelTable winograd_phases_table;
constexpr KernelTable winograd_phases_table = {kernels, sizeof kernels / sizeof kernels[0]};

}  // namespace convkit::CONVKIT_ISA
