// Weight gradients of any convolution, by sums of outer products over pixels: the transpose of a direct convolution.
//
// dW is seen as a matrix of [channel, tap] x outputs. For a chunk of output pixels, the strip of inputs under it and a
// panel of gradients are brought into cache; every tap is a register tile of 6 channels x 4 vectors of outputs whose sum
// runs over the chunk's pixels, reading the strip at the tap's offset. No column matrix is made: that of a 3 x 3 filter
// is nine copies of the strip. Pixels whose inputs lie in the padding are not multiplied.
//
// The reduction is cut into parts by the problem alone; parts have sums of their own, which are added in their order. So a
// team divides parts, panels and blocks of channels as it likes, and the result is the same.
#include "algorithms/entries.hpp"
#include "algorithms/weight_grad/accumulated.hpp"
#include "algorithms/weight_grad/division.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

constexpr ParameterSpec direct_schema[] = {
    {"pixels", 1, 1 << 20}, {"parts", 1, 1 << 10}, {"blocks", 1, 1 << 20}, {nullptr, 0, 0}};

bool direct_applies(const ConvProblem&) { return true; }

// Accumulated dW of all panels of all groups, in elements.
template <class T>
CONVKIT_INLINE std::int64_t accumulated_elements(const Strips<T>& s) {
  return s.p.groups * Panels<T>{s.outputs}.padded() * s.accumulated_rows();
}

template <class T>
int direct_candidates(const ConvProblem& p, const Machine& machine, int, Parameters* out, int capacity) {
  // A block's inputs should stay in half of L1 while a tap's tiles pass over them, a superblock's strip in half of L2.
  const std::int64_t by_l1 = machine.l1d / 2 / (channel_block<T> * static_cast<std::int64_t>(sizeof(T)));
  const std::int64_t sizes[] = {by_l1, 2 * by_l1, by_l1 / 2};
  int count = 0;
  for (const std::int64_t pixels : sizes) {
    if (count == capacity) break;
    const Strips<T> s(p, larger<std::int64_t>(pixels, 16));
    // Enough independent sums for a large team, where that costs little memory.
    const std::int64_t products = p.groups * Panels<T>{s.outputs}.count() * s.blocks;
    const std::int64_t parts = smaller(smaller(ceil_div(64, products), s.chunks), std::int64_t{32});
    const std::int64_t strip = s.block_elements() * static_cast<std::int64_t>(sizeof(T));
    const std::int64_t fit = larger<std::int64_t>(machine.l2 / 2 / larger<std::int64_t>(strip, 1), 1);
    // Superblocks of equal size, so that the last one is not a remainder.
    const std::int64_t blocks = ceil_div(s.blocks, ceil_div(s.blocks, fit));
    out[count++] = {{within(direct_schema[0], larger<std::int64_t>(pixels, 16)), within(direct_schema[1], parts),
                     within(direct_schema[2], blocks)}};
  }
  return count;
}

// What one member needs for itself.
template <class T>
struct Scratch {
  T *strip, *panel, *sums;
  OuterRun* runs;  // [tap][most_runs]
  Runs* found;     // [tap]
};

// A part without a chunk would be a sum that nobody writes.
template <class T>
CONVKIT_INLINE std::int64_t parts_of(const Strips<T>& s, const Parameters& parameters) {
  return smaller<std::int64_t>(parameters.value[1], larger<std::int64_t>(s.chunks, 1));
}

// A single chunk leaves a block's dW in cache, so its sums need no room beyond one block's.
template <class T>
CONVKIT_INLINE bool one_pass(const Strips<T>& s, std::int64_t parts) {
  return s.chunks == 1 && parts == 1;
}

template <class T, class Cut>
CONVKIT_INLINE Scratch<T> carve(const Strips<T>& s, const Parameters& parameters, Cut& carver) {
  Scratch<T> scratch{};
  scratch.strip = carver.template take<T>(smaller<std::int64_t>(parameters.value[2], s.blocks), s.block_elements());
  scratch.panel = carver.template take<T>(s.chunk_pixels, Panels<T>::width);
  scratch.runs = carver.template take<OuterRun>(s.most_runs(), s.p.kh * s.filter_columns);
  scratch.found = carver.template take<Runs>(s.p.kh * s.filter_columns);
  if (one_pass(s, parts_of(s, parameters))) {
    scratch.sums = carver.template take<T>(s.p.kh * s.filter_columns * s.block_rows, Panels<T>::width);
  }
  return scratch;
}

template <class T>
std::int64_t direct_workspace(const ConvProblem& p, const Parameters& parameters, const Machine&, int threads) {
  const Strips<T> s(p, parameters.value[0]);
  Tally shared;
  if (!one_pass(s, parts_of(s, parameters))) shared.take<T>(parts_of(s, parameters), accumulated_elements(s));
  return members_workspace([&](auto& cut) { return carve(s, parameters, cut); }, threads, shared.used);
}

template <class T>
struct Context {
  const Arguments& args;
  const ConvProblem& p;
  const Strips<T> s;
  const Panels<T> panels;
  const std::int64_t parts;
  T* const sums;  // [part][group][panel][row][width]

  CONVKIT_INLINE Context(const Arguments& args_)
      : args(args_),
        p(*args_.problem),
        s(p, args_.parameters->value[0]),
        panels{s.outputs},
        parts(parts_of(s, *args_.parameters)),
        sums(static_cast<T*>(args_.workspace)) {}
  CONVKIT_INLINE T* panel_sums(std::int64_t part, std::int64_t group, std::int64_t panel) const {
    return sums + part * accumulated_elements(s) +
           (group * panels.padded() + panel * Panels<T>::width) * s.accumulated_rows();
  }
  CONVKIT_INLINE T* weights(std::int64_t group, std::int64_t panel) const {
    return static_cast<T*>(args.y) + (group * s.outputs + panel * Panels<T>::width) * s.channels * s.taps();
  }
};

// All taps of one block of channels with one panel, over one chunk. The strip begins at block `first`.
template <class T>
void multiply_block(const Context<T>& c, const Scratch<T>& scratch, std::int64_t block, std::int64_t first, int vectors,
                    bool accumulate, T* sums) {
  const T* const strip = scratch.strip + (block - first) * c.s.block_elements();
  const OuterRun* runs = scratch.runs;
  const Runs* found = scratch.found;
  const int width = vectors * Vec<T>::lanes;
  const std::int64_t valid = c.s.narrow ? c.s.block_rows : c.s.block_channels(block);
  const std::int64_t taps = c.p.kh * c.s.filter_columns;
  for (std::int64_t tap = 0; tap < taps; ++tap, sums += c.s.block_rows * width, runs += c.s.most_runs()) {
    if (found[tap].count == 0) {
      if (!accumulate) zero_run(c.s.block_rows * width, sums);
      continue;
    }
    const RowSplit split = split_rows(valid, TileShape<T>::rows(vectors));
    std::int64_t row = 0;
    for (std::int64_t tile = 0; tile < split.big + split.small; ++tile) {
      const int rows = split.rows + (tile < split.big);
      const OuterProduct<T> product{strip + row, c.s.pixel_step(), scratch.panel,    width, Vec<T>::lanes,
                                    runs,        found[tap].count, found[tap].steps, strip, sums + row * width,
                                    accumulate};
      outer_tiles<T>().tile[vectors][rows](product);
      row += rows;
    }
  }
}

template <class T>
void accumulate_share(const Context<T>& c, const Scratch<T>& scratch, const Share& parts, const Share& panels,
                      const Share& blocks) {
  const Strips<T>& s = c.s;
  const std::int64_t most = c.args.parameters->value[2], count = c.panels.count();
  const std::int64_t taps = c.p.kh * s.filter_columns, tap_rows = taps * s.block_rows;
  const bool once = one_pass(s, c.parts);
  for (std::int64_t part = parts.begin; part < parts.end; ++part) {
    const Share chunks = share(s.chunks, part, c.parts);
    for (std::int64_t first = blocks.begin; first < blocks.end; first += most) {
      const Share super = {first, smaller(first + most, blocks.end)};
      for (std::int64_t chunk = chunks.begin; chunk < chunks.end; ++chunk) {
        std::int64_t filled = -1;
        int last_width = 0;
        for (std::int64_t item = panels.begin; item < panels.end; ++item) {
          const std::int64_t group = item / count, panel = item % count;
          if (group != filled) {
            fill_strip(s, static_cast<const T*>(c.args.x), chunk, group, super, scratch.strip);
            filled = group;
          }
          const int vectors = c.panels.vectors(panel), width = vectors * Vec<T>::lanes;
          if (width != last_width) {
            for (std::int64_t tap = 0; tap < taps; ++tap) {
              scratch.found[tap] = find_runs(s, chunk, tap / s.filter_columns, tap % s.filter_columns, width,
                                             scratch.runs + tap * s.most_runs());
            }
            last_width = width;
          }
          fill_gradients(s, static_cast<const T*>(c.args.dy), chunk, group * s.outputs + panel * Panels<T>::width,
                         c.panels.valid(panel), scratch.panel);
          for (std::int64_t b = super.begin; b < super.end; ++b) {
            T* const sums = once ? scratch.sums : c.panel_sums(part, group, panel) + b * tap_rows * width;
            multiply_block(c, scratch, b, super.begin, vectors, chunk > chunks.begin, sums);
            if (c.parts == 1 && chunk + 1 == chunks.end) {
              const std::int64_t k = b * s.block * s.taps();
              store_weights(s, sums, 1, 0, c.panels.valid(panel), {0, s.block_channels(b) * s.taps()},
                            c.weights(group, panel) + k);
            }
          }
        }
      }
    }
  }
}

template <class T>
void direct_run(const Arguments& args) {
  const Context<T> c(args);
  const bool once = one_pass(c.s, c.parts);
  char* const own =
      static_cast<char*>(args.workspace) +
      (once ? 0 : round_up(c.parts * accumulated_elements(c.s) * static_cast<std::int64_t>(sizeof(T)), 64));
  const std::int64_t panels = c.p.groups * c.panels.count();
  const auto work = [&](const Scratch<T>& scratch, int index, int size) {
    const Division division = divide(c.parts, panels, c.s.blocks, size);
    if (index < division.size()) {
      accumulate_share(c, scratch, division.part(c.parts, index), division.row(panels, index),
                       division.column(c.s.blocks, index));
    }
    if (c.parts == 1) return;
    team_barrier();
    const std::int64_t weights = c.s.channels * c.s.taps(), slices = ceil_div(weights, Vec<T>::lanes);
    const Share mine = share(panels * slices, index, size);
    for (std::int64_t item = mine.begin; item < mine.end; ++item) {
      const std::int64_t group = item / slices / c.panels.count(), panel = item / slices % c.panels.count();
      const std::int64_t k = item % slices * Vec<T>::lanes;
      store_weights(c.s, c.panel_sums(0, group, panel), c.parts, accumulated_elements(c.s), c.panels.valid(panel),
                    {k, smaller(k + Vec<T>::lanes, weights)}, c.weights(group, panel));
    }
  };
  run_in_areas(
      own, worthwhile_threads(c.p, args.threads), [&](auto& cut) { return carve(c.s, *args.parameters, cut); }, work);
}

template <class T>
void direct_cost(const ConvProblem& p, const Parameters& parameters, const Machine&, int threads, Cost* out) {
  const Strips<T> s(p, parameters.value[0]);
  const Panels<T> panels{s.outputs};
  const double pixels = static_cast<double>(p.n * p.oh * p.ow), lanes = Vec<T>::lanes;
  const double rows = static_cast<double>(s.channels * s.taps()), groups = static_cast<double>(p.groups);
  const double outputs = static_cast<double>(panels.padded());
  *out = {};
  out->fmas = pixels * rows * groups * outputs;
  const double full = static_cast<double>(panels.outputs / Panels<T>::width * Panels<T>::width), rest = outputs - full;
  out->efficiency = outputs / (full / tile_efficiency<T>(TileShape<T>::vectors) +
                               rest / tile_efficiency<T>(panels.vectors(panels.count() - 1)));
  // Few rows in a tile leave the loads of B, or the latency of the sums, in the way.
  const double tile_rows = static_cast<double>(s.narrow ? s.block_rows : s.block);
  if (tile_rows < 4) out->efficiency *= tile_rows / 4;
  const double strip = pixels * groups * static_cast<double>(s.channels * p.stride_h * p.stride_w) / lanes;
  const double gradients = pixels * groups * outputs / lanes;
  const double supers = static_cast<double>(ceil_div(s.blocks, parameters.value[2]));
  const double shuffles = p.layout == Layout::nchw ? 6 : 3;
  // A short run costs its beginning: pointers, and products that wait for their loads.
  const double runs = static_cast<double>(p.n * p.oh) * static_cast<double>(p.kh * s.filter_columns) *
                      static_cast<double>(s.blocks) * groups * static_cast<double>(panels.count()) *
                      ceil_div(s.narrow ? s.block_rows : s.block, 6);
  const double passes = static_cast<double>(s.chunks) * 2.0;
  out->vector_ops =
      shuffles * (strip + gradients * supers) + 8.0 * runs + rows * groups * outputs / lanes * (passes + 6.0);
  out->bytes_dram = tensor_bytes(p, sizeof(T));
  const double sums = static_cast<double>(accumulated_elements(s)) * sizeof(T);
  out->bytes_l3 = s.chunks > 1 ? 2.0 * sums * static_cast<double>(s.chunks) : 0.0;
  const Division division = divide(parameters.value[1], p.groups * panels.count(), s.blocks, threads);
  out->imbalance = division.imbalance(parameters.value[1], p.groups * panels.count(), s.blocks, threads);
  out->barriers = parameters.value[1] > 1 ? 1 : 0;
}

template <class T>
constexpr Kernel direct_entry(const char* name) {
  return kernel_of<T>(
      "direct", name, Op::weight_grad, layout_nchw | layout_nhwc, 1,
      {direct_schema, direct_applies, direct_candidates<T>, direct_cost<T>, direct_workspace<T>, direct_run<T>});
}

constexpr Kernel kernels[] = {
    direct_entry<float>("f32_direct_weight_grad__" CONVKIT_ISA_NAME),
    direct_entry<double>("f64_direct_weight_grad__" CONVKIT_ISA_NAME),
};

}  // namespace

extern const KernelTable weight_direct_table;
constexpr KernelTable weight_direct_table = {kernels, sizeof kernels / sizeof kernels[0]};

}  // namespace convkit::CONVKIT_ISA
