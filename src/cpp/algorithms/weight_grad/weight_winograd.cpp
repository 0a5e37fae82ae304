// Weight gradients by Winograd transforms: dW = G^T [ sum over tiles (A dy A^T) . (B^T d B) ] G, one matrix product
// dU[point] = V[point]^T D[point] over tiles for each point of the transform.
//
//   V   [point][channels / lanes][tile][lanes]   of one block of tiles, a member's channels
//   D   [point][outputs / lanes][tile][lanes]    of one block of tiles, one panel of outputs
//   dU  [panel][group][point][channel][panel]    a group is a few vectors of channels, so that its dU stays in L2
//
// Both transforms are input stages of the forward convolution; the register tile of outer products broadcasts from V and
// loads from D. A block that holds all tiles needs no dU but that of the group at hand, which is transformed back at once.
//
// The reduction over blocks is cut into parts by the problem alone, each with a dU of its own; they are added in order.
// A member computes all it needs from x and dy: there is no barrier but the one before the parts are added.
//
// Lavin and Gray, arXiv 1509.09308, section 4 for the weight gradient.
#include "algorithms/entries.hpp"
#include "algorithms/weight_grad/division.hpp"
#include "algorithms/winograd/input_stage.hpp"
#include "algorithms/winograd/toeplitz.hpp"
#include "microkernels/outer_tile.hpp"
#include "microkernels/transpose_block.hpp"
#include "microkernels/winograd_adjoint.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

enum Parameter { parameter_tiles, parameter_parts };

constexpr ParameterSpec weight_schema[] = {{"tiles", 1, 1 << 20}, {"parts", 1, 1 << 10}, {nullptr, 0, 0}};

// Strides between points and between vectors of D are kept off powers of two, where they would share a few sets of L1.
constexpr std::ptrdiff_t point_skew = 48, vector_skew = 16;

template <class T>
struct Sizes {
  static constexpr int lanes = Vec<T>::lanes;
  static constexpr int panel = TileShape<T>::panel;
  static constexpr int group_vectors = 64 / lanes;  // vectors of channels in a group

  Geometry g, dy;  // dy: the gradients, as an input stage sees them
  int points, taps;
  std::int64_t blocks, block_tiles, parts;
  std::int64_t vectors, groups,
      panels;  // vectors and groups of channels, panels of outputs, of one group of the problem
  std::ptrdiff_t d_vector, d_point;

  Sizes(const ConvProblem& p, const Parameters& parameters, const WinogradTile<T>& tile)
      : g(make_geometry(p, tile)), dy(g), points(tile.ny * tile.nx), taps(tile.ry * tile.rx) {
    dy.c = g.o;
    dy.x = g.y;
    dy.pad_top = dy.pad_left = 0;
    const std::int64_t tiles = larger<std::int64_t>(g.tiles, 1);
    blocks = ceil_div(tiles, parameters.value[parameter_tiles]);
    block_tiles = ceil_div(tiles, blocks);
    parts = smaller<std::int64_t>(parameters.value[parameter_parts], blocks);
    vectors = ceil_div(g.c, lanes);
    groups = ceil_div(vectors, group_vectors);
    panels = ceil_div(g.o, panel);
    d_vector = block_tiles * lanes + vector_skew;
    d_point = TileShape<T>::vectors * d_vector + point_skew;
  }

  CONVKIT_INLINE bool one_pass() const { return blocks == 1; }
  CONVKIT_INLINE std::ptrdiff_t v_point(std::int64_t own_vectors) const {
    return own_vectors * block_tiles * lanes + point_skew;
  }
  CONVKIT_INLINE std::int64_t group_channels(std::int64_t group) const {
    return smaller<std::int64_t>(g.c - group * group_vectors * lanes, group_vectors * lanes);
  }
  CONVKIT_INLINE int panel_vectors(std::int64_t p) const {
    return static_cast<int>(ceil_div(smaller<std::int64_t>(g.o - p * panel, panel), lanes));
  }
  // dU of one panel and one group of channels.
  static CONVKIT_INLINE std::int64_t u_point(int panel_vectors) {
    return group_vectors * lanes * panel_vectors * lanes;
  }
  CONVKIT_INLINE std::int64_t u_elements() const { return points * u_point(TileShape<T>::vectors); }
  CONVKIT_INLINE std::int64_t part_elements() const {
    return one_pass() ? 0 : g.groups * panels * groups * u_elements();
  }
};

// What one member needs for itself; `vectors` of channels are the most that it may own.
template <class T>
struct Scratch {
  T *v, *d, *u, *stage, *weights;
};

template <class T, class Cut>
Scratch<T> carve(const Sizes<T>& s, const WinogradTile<T>& tile, const WinogradTile<T>& gradient, std::int64_t vectors,
                 Cut& carver) {
  Scratch<T> scratch;
  scratch.v = carver.template take<T>(s.points, s.v_point(vectors));
  scratch.d = carver.template take<T>(s.points, s.d_point);
  scratch.u = carver.template take<T>(s.u_elements());
  scratch.stage = carver.template take<T>(
      larger(InputStage<T>::scratch_elements(s.g, tile), InputStage<T>::scratch_elements(s.dy, gradient)));
  scratch.weights = carver.template take<T>(s.lanes * s.taps * s.lanes);
  carver.align(4096);
  return scratch;
}

// Vectors of channels that the busiest member of a team owns.
template <class T>
std::int64_t most_vectors(const Sizes<T>& s, int size) {
  const Division division = divide(s.parts, s.groups, s.g.groups * s.panels, size);
  return smaller(ceil_div(s.groups, division.rows) * s.group_vectors, s.vectors);
}

// Bytes of all dU, in front of the members' areas.
template <class T>
std::int64_t sums_bytes(const Sizes<T>& s) {
  return round_up(bounded_product(s.parts, s.part_elements(), static_cast<std::int64_t>(sizeof(T))), 4096);
}

// Members take their areas by the size of the team that started, which may be any up to `threads`.
template <class T>
std::int64_t weight_workspace(const ConvProblem& p, const Parameters& parameters, int threads,
                              const WinogradTile<T>& tile, const WinogradTile<T>& gradient) {
  const Sizes<T> s(p, parameters, tile);
  std::int64_t members = 0;
  for (int size = 1; size <= threads; ++size) {
    Tally carver;
    carve(s, tile, gradient, most_vectors(s, size), carver);
    members = larger(members, bounded_product(carver.used, size));
  }
  return bounded_sum(sums_bytes(s), members);
}

template <class T>
struct Context {
  const Arguments& args;
  const ConvProblem& p;
  const WinogradTile<T>& tile;
  const WinogradAdjoint<T>& adjoint;
  const Sizes<T> s;
  T* const sums;  // [part][group of the problem][panel][group of channels][point][channel][output]

  T* panel_sums(std::int64_t part, std::int64_t item, std::int64_t group) const {
    return sums + part * s.part_elements() + (item * s.groups + group) * s.u_elements();
  }
  // Channels from `channel` on of the panel of `item`.
  T* weights(std::int64_t item, std::int64_t channel) const {
    const std::int64_t o = item / s.panels * s.g.o + item % s.panels * s.panel;
    return static_cast<T*>(args.y) + (o * s.g.c + channel) * s.taps;
  }
};

// Back from dU of up to `lanes` channels to their taps.
template <class T>
void store_vector(const Context<T>& c, const Scratch<T>& scratch, const T* u, std::int64_t point_stride,
                  std::int64_t item, std::int64_t channel) {
  const Sizes<T>& s = c.s;
  const std::int64_t panel = item % s.panels, valid = smaller<std::int64_t>(s.g.c - channel, s.lanes);
  const int vectors = s.panel_vectors(panel);
  for (int j = 0; j < vectors; ++j) {
    c.adjoint.weights({u + j * s.lanes, point_stride, vectors * s.lanes, scratch.weights, s.taps * s.lanes, valid});
    const std::int64_t o = panel * s.panel + j * s.lanes;
    transpose_block(scratch.weights, s.lanes, valid * s.taps, smaller<std::int64_t>(s.g.o - o, s.lanes),
                    c.weights(item, channel) + j * s.lanes * s.g.c * s.taps, s.g.c * s.taps);
  }
}

// dU of one group of channels and one panel, over the tiles at hand. `first` is the vector that V begins with.
template <class T>
void multiply_group(const Context<T>& c, const Scratch<T>& scratch, std::int64_t first, std::int64_t own,
                    std::int64_t group, int vectors, std::int64_t tiles, bool accumulate, T* u) {
  const Sizes<T>& s = c.s;
  const std::int64_t begin = group * s.group_vectors, end = smaller(begin + s.group_vectors, s.vectors);
  const std::int64_t v_block = s.block_tiles * s.lanes, width = vectors * s.lanes;
  static constexpr OuterRun run{0, 0};
  for (int point = 0; point < s.points; ++point, u += Sizes<T>::u_point(vectors)) {
    const T* const d = scratch.d + point * s.d_point;
    for (std::int64_t vector = begin; vector < end; ++vector) {
      const T* const v = scratch.v + point * s.v_point(own) + (vector - first) * v_block;
      const std::int64_t channels = smaller<std::int64_t>(s.g.c - vector * s.lanes, s.lanes);
      const RowSplit split = split_rows(channels, TileShape<T>::rows(vectors));
      T* const to = u + (vector - begin) * s.lanes * width;
      std::int64_t row = 0;
      for (std::int64_t i = 0; i < split.big + split.small; ++i) {
        const int rows = split.rows + (i < split.big);
        outer_tiles<T>().tile[vectors][rows]({v + row, s.lanes, d, s.lanes, s.d_vector, &run, 1, tiles,
                                              i == 0 ? v + v_block : v, to + row * width, accumulate});
        row += rows;
      }
    }
  }
}

template <class T>
void accumulate_share(const Context<T>& c, const Scratch<T>& scratch, const Share& parts, const Share& groups,
                      const Share& items) {
  const Sizes<T>& s = c.s;
  const Share vectors = {groups.begin * s.group_vectors, smaller(groups.end * s.group_vectors, s.vectors)};
  const std::int64_t own = vectors.end - vectors.begin, v_block = s.block_tiles * s.lanes;
  if (own <= 0) return;
  for (std::int64_t part = parts.begin; part < parts.end; ++part) {
    const Share blocks = share(s.blocks, part, s.parts);
    for (std::int64_t block = blocks.begin; block < blocks.end; ++block) {
      const Share tiles = share(s.g.tiles, block, s.blocks);
      std::int64_t filled = -1;
      for (std::int64_t item = items.begin; item < items.end; ++item) {
        const std::int64_t problem_group = item / s.panels, panel = item % s.panels;
        const int panel_vectors = s.panel_vectors(panel);
        if (problem_group != filled) {
          const T* const x = static_cast<const T*>(c.args.x) + problem_group * s.g.c * s.g.x.channel;
          const InputStage<T> stage{s.g,     c.tile,       x, scratch.v - vectors.begin * v_block, s.v_point(own),
                                    v_block, scratch.stage};
          stage.run(tiles.begin, tiles.end, 0, vectors);
          filled = problem_group;
        }
        const std::int64_t first = panel * TileShape<T>::vectors;
        const T* const dy = static_cast<const T*>(c.args.dy) + problem_group * s.g.o * s.g.y.channel;
        const InputStage<T> stage{s.dy,      c.adjoint.gradient, dy,           scratch.d - first * s.d_vector,
                                  s.d_point, s.d_vector,         scratch.stage};
        stage.run(tiles.begin, tiles.end, 0, {first, first + panel_vectors});
        for (std::int64_t group = groups.begin; group < groups.end; ++group) {
          T* const u = s.one_pass() ? scratch.u : c.panel_sums(part, item, group);
          multiply_group(c, scratch, vectors.begin, own, group, panel_vectors, tiles.end - tiles.begin,
                         block > blocks.begin, u);
          if (s.parts > 1 || block + 1 < blocks.end) continue;
          const std::int64_t end = smaller((group + 1) * s.group_vectors, s.vectors);
          for (std::int64_t vector = group * s.group_vectors; vector < end; ++vector) {
            store_vector(c, scratch, u + (vector - group * s.group_vectors) * s.lanes * panel_vectors * s.lanes,
                         Sizes<T>::u_point(panel_vectors), item, vector * s.lanes);
          }
        }
      }
    }
  }
}

// Adds the parts of one vector of channels and one panel in order, and transforms the sum back.
template <class T>
void add_parts(const Context<T>& c, const Scratch<T>& scratch, std::int64_t item, std::int64_t vector) {
  using V = Vec<T>;
  const Sizes<T>& s = c.s;
  const int panel_vectors = s.panel_vectors(item % s.panels);
  const std::int64_t group = vector / s.group_vectors, elements = s.lanes * panel_vectors * s.lanes;
  const std::int64_t offset = vector % s.group_vectors * elements, point_stride = Sizes<T>::u_point(panel_vectors);
  T* to = scratch.u;
  for (int point = 0; point < s.points; ++point, to += elements) {
    const T* from = c.panel_sums(0, item, group) + point * point_stride + offset;
    for (std::int64_t i = 0; i < elements; i += s.lanes) {
      typename V::Reg sum = V::load(from + i);
      for (std::int64_t part = 1; part < s.parts; ++part) sum += V::load(from + part * s.part_elements() + i);
      V::store(to + i, sum);
    }
  }
  store_vector(c, scratch, scratch.u, elements, item, vector * s.lanes);
}

template <class T>
void weight_run(const Arguments& args, const WinogradTile<T>& tile, const WinogradAdjoint<T>& adjoint) {
  const ConvProblem& p = *args.problem;
  const Sizes<T> s(p, *args.parameters, tile);
  char* const own = static_cast<char*>(args.workspace) + sums_bytes(s);
  const Context<T> c{args, p, tile, adjoint, s, static_cast<T*>(args.workspace)};
  const std::int64_t items = s.g.groups * s.panels;
  auto member = [&](int index, int size) {
    Carver sizes{nullptr};
    carve(s, tile, adjoint.gradient, most_vectors(s, size), sizes);
    Carver carver{own + sizes.used * index};
    const Scratch<T> scratch = carve(s, tile, adjoint.gradient, most_vectors(s, size), carver);
    const Division division = divide(s.parts, s.groups, items, size);
    if (index < division.size()) {
      accumulate_share(c, scratch, division.part(s.parts, index), division.row(s.groups, index),
                       division.column(items, index));
    }
    if (s.parts == 1) return;
    team_barrier();
    const Share mine = share(items * s.vectors, index, size);
    for (std::int64_t i = mine.begin; i < mine.end; ++i) add_parts(c, scratch, i / s.vectors, i % s.vectors);
  };
  team(worthwhile_threads(p, args.threads), member);
}

template <class T>
int weight_candidates(const ConvProblem& p, const Machine& machine, const WinogradTile<T>& tile, Parameters* out,
                      int capacity) {
  const std::int64_t tiles = larger<std::int64_t>(make_geometry(p, tile).tiles, 1);
  const std::int64_t c = round_up(p.c / p.groups, Vec<T>::lanes), points = tile.ny * tile.nx;
  const std::int64_t tile_bytes = points * (c + TileShape<T>::panel) * static_cast<std::int64_t>(sizeof(T));
  int count = 0;
  const auto consider = [&](std::int64_t wanted, std::int64_t most_parts) {
    Parameters candidate{{within(weight_schema[parameter_tiles], ceil_div(tiles, ceil_div(tiles, wanted))), 1}};
    const Sizes<T> s(p, candidate, tile);
    // Parts give small filters something to share out; each costs a pass over a dU.
    const std::int64_t products = s.groups * s.panels * s.g.groups;
    candidate.value[1] =
        within(weight_schema[parameter_parts], smaller(smaller(s.blocks, most_parts), ceil_div(16, products)));
    for (int i = 0; i < count; ++i) {
      if (out[i].value[0] == candidate.value[0] && out[i].value[1] == candidate.value[1]) return;
    }
    if (count < capacity) out[count++] = candidate;
  };
  // All tiles at once while V stays in L3, else as many as stay in L2 beside dU, or some more.
  const std::int64_t l3_tiles = (machine.l3 ? machine.l3 / 2 : machine.l2) / tile_bytes;
  const std::int64_t l2_tiles = machine.l2 / tile_bytes;
  const bool once = tiles <= 256 && tiles <= l3_tiles;
  if (once) consider(tiles, 1);
  consider(larger<std::int64_t>(l2_tiles, 64), 8);
  consider(larger<std::int64_t>(2 * l2_tiles, 128), 8);
  consider(larger<std::int64_t>(l2_tiles / 2, 32), 8);
  if (l3_tiles >= 196) consider(196, 8);
  consider(larger<std::int64_t>(l2_tiles, 64), 2);
  return count;
}

template <class T>
void weight_cost(const ConvProblem& p, const Parameters& parameters, const Machine& machine, int threads,
                 const WinogradTile<T>& tile, const WinogradAdjoint<T>& adjoint, Cost* out) {
  const Sizes<T> s(p, parameters, tile);
  const double tiles = static_cast<double>(s.g.tiles), groups = static_cast<double>(s.g.groups);
  const double outputs = static_cast<double>(round_up(s.g.o, s.lanes)), vectors = static_cast<double>(s.vectors);
  const std::int64_t items = s.g.groups * s.panels;
  const Division division = divide(s.parts, s.groups, items, threads);
  *out = {};
  out->fmas = groups * s.points * tiles * static_cast<double>(s.g.c) * outputs;
  // A tile of the GEMM ends with a pass over its sums.
  const double block = static_cast<double>(s.block_tiles);
  out->efficiency = 0.96 * block / (block + 4.0);
  const double inputs = tiles * groups * vectors * tile.input_ops * division.columns;
  const double gradients = tiles * groups * outputs / s.lanes * adjoint.gradient.input_ops * division.rows;
  const double weights = groups * static_cast<double>(s.g.c) * outputs / s.lanes * (adjoint.weights_ops + 4.0 * s.taps);
  const double du = static_cast<double>(sizeof(T)) * groups * s.points * static_cast<double>(s.g.c) * outputs;
  // Streaming x and dy costs about as much again as transforming what is in cache.
  out->vector_ops = 2.0 * (inputs + gradients) + weights;
  (du < static_cast<double>(machine.l2) ? out->bytes_l2 : out->bytes_l3) +=
      s.one_pass() ? 0.0 : 2.0 * du * static_cast<double>(s.blocks);
  out->bytes_l3 += du * static_cast<double>(s.parts > 1 ? s.parts : 0);
  out->bytes_dram = tensor_bytes(p, sizeof(T));
  out->imbalance = division.imbalance(s.parts, s.groups, items, threads);
  out->barriers = s.parts > 1 ? 1 : 0;
}

template <class T, class FY, class FX>
struct Entry {
  static const WinogradTile<T>& tile() { return winograd_tile<T, FY, FX>(); }
  static const WinogradAdjoint<T>& adjoint() { return winograd_adjoint<T, FY, FX>(); }

  // With no whole tile there is little to save, and the few terms of each sum do not average a transform's error away.
  static bool applies(const ConvProblem& p) {
    return p.kh == FY::r && p.kw == FX::r && p.stride_h == 1 && p.stride_w == 1 && p.oh >= FY::m * p.dilation_h &&
           p.ow >= FX::m * p.dilation_w && suits<FY>(p) && suits<FX>(p);
  }
  static int candidates(const ConvProblem& p, const Machine& machine, int, Parameters* out, int capacity) {
    return weight_candidates(p, machine, tile(), out, capacity);
  }
  static void cost(const ConvProblem& p, const Parameters& parameters, const Machine& machine, int threads, Cost* out) {
    weight_cost(p, parameters, machine, threads, tile(), adjoint(), out);
  }
  static std::int64_t workspace_bytes(const ConvProblem& p, const Parameters& parameters, const Machine&, int threads) {
    return weight_workspace(p, parameters, threads, tile(), adjoint().gradient);
  }
  static void run(const Arguments& args) { weight_run(args, tile(), adjoint()); }
};

template <class T, class FY, class FX>
constexpr Kernel kernel(const char* family, const char* name, float rms_ratio) {
  using E = Entry<T, FY, FX>;
  return kernel_of<T>(family, name, Op::weight_grad, layout_nchw | layout_nhwc, 1,
                      {weight_schema, E::applies, E::candidates, E::cost, E::workspace_bytes, E::run}, {},
                      ErrorClass{false, rms_ratio});
}

constexpr Kernel kernels[] = {
    kernel<float, F4x3, F4x3>("winograd4", "f32_winograd_4x4_3x3_weight_grad__" CONVKIT_ISA_NAME, 3.0f),
    kernel<float, F5x3, F5x3>("winograd5", "f32_winograd_5x5_3x3_weight_grad__" CONVKIT_ISA_NAME, 3.9f),
    kernel<float, F2x3, F2x3>("winograd2", "f32_winograd_2x2_3x3_weight_grad__" CONVKIT_ISA_NAME, 1.4f),
    kernel<float, F6x3, F6x3>("winograd6", "f32_winograd_6x6_3x3_weight_grad__" CONVKIT_ISA_NAME, 12.0f),
    kernel<float, F4x5, F4x5>("winograd4", "f32_winograd_4x4_5x5_weight_grad__" CONVKIT_ISA_NAME, 11.0f),
    kernel<float, Toeplitz2, Toeplitz2>("toeplitz", "f32_toeplitz_2x2_3x3_weight_grad__" CONVKIT_ISA_NAME, 2.7f),
    kernel<double, F4x3, F4x3>("winograd4", "f64_winograd_4x4_3x3_weight_grad__" CONVKIT_ISA_NAME, 3.0f),
    kernel<double, F4x5, F4x5>("winograd4", "f64_winograd_4x4_5x5_weight_grad__" CONVKIT_ISA_NAME, 11.0f),
    kernel<double, Toeplitz2, Toeplitz2>("toeplitz", "f64_toeplitz_2x2_3x3_weight_grad__" CONVKIT_ISA_NAME, 2.7f),
};

}  // namespace

extern const KernelTable weight_winograd_table;
constexpr KernelTable weight_winograd_table = {kernels, sizeof kernels / sizeof kernels[0]};

}  // namespace convkit::CONVKIT_ISA
