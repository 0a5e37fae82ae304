// Who computes what, when, and where it is kept.
//
//   fused   A member owns blocks of tiles. It transforms a block's inputs, all channels, into its own V, then takes one
//           panel of outputs after another: all points' products into M, inverse transform, y. V and M stay in L2; there
//           is no barrier. With `split` > 1 members form a grid, blocks by panels, and those of one row of the grid
//           repeat each other's input transforms.
//   shared  The team transforms a block together into one V, waits, and shares out the block's tiles and panels as a
//           grid. For many members and few tiles: nothing is repeated, filters are read once a block.
//
// Cold weights are either transformed once into the workspace (kc = 0), or, where U would not stay in cache, panel by
// panel and kc channels at a time by whoever needs them next; M then accumulates over the chunks.
//
// Sums run over channels in order, chunks of kc included, whatever the team: results do not depend on its size.
#pragma once
#include "algorithms/winograd/fetch.hpp"
#include "algorithms/winograd/filter_stage.hpp"
#include "algorithms/winograd/input_stage.hpp"
#include "algorithms/winograd/output_stage.hpp"
#include "microkernels/winograd_gemm.hpp"

namespace convkit::CONVKIT_ISA {

enum WinogradParameter { parameter_shared, parameter_tiles, parameter_split, parameter_kc };

inline constexpr ParameterSpec winograd_schema[] = {
    {"shared", 0, 1}, {"tiles", 1, 1 << 20}, {"split", 1, 1 << 10}, {"kc", 0, 1 << 16}, {nullptr, 0, 0}};

// Point strides are kept off powers of two: all points of a tile, or of a filter, would fall into few sets of L1.
inline constexpr std::ptrdiff_t stride_skew = 48;

template <class T>
struct Sizes {
  static constexpr int lanes = Vec<T>::lanes;
  static constexpr int panel = TileShape<T>::panel;

  Geometry g;
  int points;
  bool shared;
  // A block is whole rows of tiles or one of `pieces` of a row: what it reads and writes is contiguous as far as can be.
  std::int64_t rows, pieces;
  std::int64_t blocks, block_tiles;  // block_tiles: of the largest block
  std::int64_t split, kc;
  std::int64_t c_blocks, panels;
  std::int64_t packed_group;  // elements of packed U of one group
  std::ptrdiff_t v_point, v_block;
  std::int64_t m_tiles;  // most rows of M
  std::ptrdiff_t m_point, u_point;
  // Where channels are those of four phases (winograd_strided.cpp), of one phase: the last point of an odd filter's odd
  // phases is a product with zero, in its rows, in its columns or in both.
  std::int64_t phase_channels = 0;
  bool odd_rows = false, odd_columns = false;

  Sizes(const ConvProblem& p, const Parameters& parameters, const WinogradTile<T>& tile)
      : g(make_geometry(p, tile)), points(tile.ny * tile.nx) {
    shared = parameters.value[parameter_shared] != 0;
    const std::int64_t wanted = parameters.value[parameter_tiles];
    if (wanted < g.tiles_x) {
      pieces = ceil_div(g.tiles_x, wanted);
      block_tiles = smaller(g.tiles_x, round_up(ceil_div(g.tiles_x, pieces), 4));
      pieces = ceil_div(g.tiles_x, block_tiles);
      rows = g.tiles_x ? g.tiles / g.tiles_x : 0;
      blocks = rows * pieces;
    } else {
      pieces = 1;
      rows = g.tiles_x ? g.tiles / g.tiles_x : 0;
      blocks = rows ? ceil_div(rows, wanted / g.tiles_x) : 0;
      block_tiles = blocks ? ceil_div(rows, blocks) * g.tiles_x : 0;
    }
    split = parameters.value[parameter_split];
    kc = p.packed ? 0 : round_up(smaller<std::int64_t>(parameters.value[parameter_kc], g.c), lanes);
    c_blocks = ceil_div(g.c, lanes);
    panels = ceil_div(g.o, panel);
    packed_group = panels ? (panels - 1) * packed_panel() + points * packed_point(vectors(panels - 1)) : 0;
    v_block = block_tiles * lanes;
    v_point = c_blocks * v_block + stride_skew;
    // M of a shared block may be cut into pieces that stay in L2, unless it accumulates over chunks.
    const std::int64_t fitting = larger<std::int64_t>(8, (512 << 10) / (points * panel * static_cast<int>(sizeof(T))));
    m_tiles = shared && kc == 0 ? smaller(block_tiles, fitting) : block_tiles;
    m_point = m_tiles * panel + stride_skew;
    u_point = kc * panel + stride_skew;
  }

  Share block(std::int64_t index) const {
    if (pieces == 1) {
      const Share which = share(rows, index, blocks);
      return {which.begin * g.tiles_x, which.end * g.tiles_x};
    }
    const std::int64_t first = index / pieces * g.tiles_x, begin = index % pieces * block_tiles;
    return {first + begin, first + smaller(begin + block_tiles, g.tiles_x)};
  }

  // From point to point and from panel to panel of packed U.
  std::ptrdiff_t packed_point(int vectors) const { return g.c * vectors * lanes + stride_skew; }
  std::ptrdiff_t packed_panel() const { return points * packed_point(TileShape<T>::vectors); }

  int vectors(std::int64_t p) const {
    return static_cast<int>(smaller<std::int64_t>(panel, round_up(g.o - p * panel, lanes)) / lanes);
  }
};

template <class T>
struct Workspace {
  T* shared_v;
  T* packed;  // U of cold weights that are transformed first
  struct Member {
    T *v, *m, *u, *scratch, *filter_scratch, *bias;
  };

  template <class Cut>
  static Member member(Cut& carver, const Sizes<T>& s, const WinogradTile<T>& tile, bool cold) {
    Member a;
    a.v = s.shared ? nullptr : carver.template take<T>(s.points, s.v_point);
    a.m = carver.template take<T>(s.points, s.m_point);
    a.u = s.kc ? carver.template take<T>(s.points, s.u_point) : nullptr;
    a.scratch = carver.template take<T>(
        larger(InputStage<T>::scratch_elements(s.g, tile), OutputStage<T>::scratch_elements(s.g, tile)));
    a.filter_scratch = cold ? carver.template take<T>(FilterStage<T>::scratch_elements(tile)) : nullptr;
    a.bias = carver.template take<T>(round_up(s.g.o, s.lanes));
    carver.align(4096);
    return a;
  }

  // Areas of the whole team; members' areas follow, each `member_bytes` long.
  template <class Cut>
  Workspace(Cut& carver, const Sizes<T>& s, bool cold) {
    shared_v = s.shared ? carver.template take<T>(s.points, s.v_point) : nullptr;
    packed = cold && !s.kc ? carver.template take<T>(s.g.groups, s.packed_group) : nullptr;
    carver.align(4096);
  }
};

template <class T>
std::int64_t winograd_workspace(const ConvProblem& p, const Parameters& parameters, int threads,
                                const WinogradTile<T>& tile) {
  const Sizes<T> s(p, parameters, tile);
  Tally carver;
  Workspace<T>(carver, s, !p.packed);
  for (int i = 0; i < threads; ++i) Workspace<T>::member(carver, s, tile, !p.packed);
  return carver.used;
}

template <class T>
std::int64_t winograd_packed_elements(const ConvProblem& p, const WinogradTile<T>& tile) {
  const Sizes<T> s(p, Parameters{{0, 1, 1, 0}}, tile);
  return s.g.groups * s.packed_group;
}

inline WeightView group_weights(const WeightView& w, std::int64_t group, std::size_t element) {
  WeightView view = w;
  view.data = static_cast<const char*>(w.data) + group * w.stride_group * static_cast<std::ptrdiff_t>(element);
  return view;
}

// A member's share of the packing of all weights: pieces are one vector's width of channels of one panel.
template <class T>
void pack_filters(const Sizes<T>& s, const WinogradTile<T>& tile, const WeightView& w, T* out, T* scratch, int index,
                  int size) {
  const Share share_ = share(s.g.groups * s.panels * s.c_blocks, index, size);
  for (std::int64_t i = share_.begin; i < share_.end; ++i) {
    const std::int64_t group = i / (s.panels * s.c_blocks), p = i / s.c_blocks % s.panels, block = i % s.c_blocks;
    const int vectors = s.vectors(p);
    const FilterStage<T> stage{tile, group_weights(w, group, sizeof(T)), s.g.o, s.g.c, scratch};
    T* const u = out + group * s.packed_group + p * s.packed_panel() + block * s.lanes * vectors * s.lanes;
    stage.run(p * s.panel, vectors, block * s.lanes, smaller(s.g.c, (block + 1) * s.lanes), u, s.packed_point(vectors));
  }
}

template <class T>
void winograd_pack(const ConvProblem& p, const WeightView& w, T* out, int threads, const WinogradTile<T>& tile) {
  const Sizes<T> s(p, Parameters{{0, 1, 1, 0}}, tile);
  auto member = [&](int index, int size) {
    // The largest filter is 5x5: a vector of outputs by a vector of channels by its taps.
    alignas(64) T scratch[25 * Vec<T>::lanes * Vec<T>::lanes];
    pack_filters(s, tile, w, out, scratch, index, size);
  };
  team(threads, member);
}

// Channels of one pass over the tiles of a product. A few row tiles share the filters that a pass has brought into L1;
// with many of them, reading M again for every pass costs more than reading the filters from L2.
template <class T>
std::int64_t pass_channels(std::int64_t tiles, std::int64_t channels, int vectors, std::int64_t l1d) {
  const RowSplit split = split_rows(tiles, TileShape<T>::rows(vectors));
  const std::int64_t row_tiles = split.big + split.small, unit = 32;
  if (row_tiles < 2 || row_tiles > 5) return unfolded;
  const std::int64_t most = larger(unit, l1d / 2 / (vectors * Vec<T>::bytes) / unit * unit);
  return round_up(ceil_div(channels, ceil_div(channels, most)), unit);
}

template <class T>
struct WinogradMember {
  const Arguments& args;
  const WinogradTile<T>& tile;
  const Sizes<T>& s;
  const T* packed;  // U of all groups, or null: filters are transformed in chunks
  T* v;
  typename Workspace<T>::Member area;
  bool stream;

  // All products of `v`'s tiles [begin, end) with panels [panels.begin, panels.end), and their outputs. `first_tile` is
  // the number of v's first tile; `ahead` is what to fetch before the end.
  void multiply(std::int64_t group, std::int64_t first_tile, std::int64_t begin, std::int64_t end, Share panels,
                Fetch ahead) const {
    if (panels.begin == panels.end || begin == end) return;
    // Fetched too early, lines would be pushed out of L2 again by the filters that pass through it.
    const std::int64_t point_bytes = s.g.c * s.panel * static_cast<std::int64_t>(sizeof(T));
    const std::int64_t fetching_points =
        smaller((panels.end - panels.begin) * s.points, larger<std::int64_t>(2, args.machine->l2 / 3 / point_bytes));
    const std::int64_t fetch_from = panels.end * s.points - fetching_points;
    const std::int64_t row_tiles = ceil_div(end - begin, TileShape<T>::rows(TileShape<T>::vectors));
    const std::int64_t pace = smaller<std::int64_t>(
        12, ceil_div(ahead.lines * ahead.rows * ahead.outer, fetching_points * row_tiles * s.c_blocks));
    const OutputStage<T> output{s.g,
                                tile,
                                args.epilogue,
                                static_cast<T*>(args.y) + group * s.g.o * s.g.y.channel,
                                args.epilogue.residual
                                    ? static_cast<const T*>(args.epilogue.residual) + group * s.g.o * s.g.y.channel
                                    : nullptr,
                                area.bias,
                                stream,
                                area.scratch};
    const std::int64_t pieces = ceil_div(end - begin, s.m_tiles);
    for (std::int64_t p = panels.begin; p < panels.end; ++p) {
      const int vectors = s.vectors(p);
      for (std::int64_t piece = 0; piece < pieces; ++piece) {
        const std::int64_t from = begin + (end - begin) * piece / pieces,
                           to = begin + (end - begin) * (piece + 1) / pieces;
        if (packed) {
          const T* const u = packed + group * s.packed_group + p * s.packed_panel();
          products(u, s.packed_point(vectors), 0, s.g.c, vectors, from, to, p + 1 < panels.end, ahead,
                   fetch_from - p * s.points, pace);
        } else {
          const FilterStage<T> filters{tile, group_weights(args.w, group, sizeof(T)), s.g.o, s.g.c,
                                       area.filter_scratch};
          for (std::int64_t c = 0; c < s.g.c; c += s.kc) {
            const std::int64_t c_end = smaller(s.g.c, c + s.kc);
            filters.run(p * s.panel, vectors, c, c_end, area.u, s.u_point);
            products(area.u, s.u_point, c, c_end, vectors, from, to, false, ahead, s.points, 0);
          }
        }
        output.run(first_tile + from, first_tile + to, area.m, s.m_point, p * s.panel, vectors);
      }
    }
  }

  void products(const T* u, std::ptrdiff_t u_point, std::int64_t c, std::int64_t c_end, int vectors, std::int64_t from,
                std::int64_t to, bool another, Fetch& ahead, std::int64_t fetch_from, std::int64_t pace) const {
    const std::int64_t pass = pass_channels<T>(to - from, c_end - c, vectors, args.machine->l1d);
    for (int point = 0; point < s.points; ++point) {
      if (point == fetch_from || (point == 0 && fetch_from < 0 && ahead.outer > 0)) ahead.pace = pace;
      const T* const panel = u + point * u_point;
      const T* const next = packed && (another || point + 1 < s.points) ? panel + u_point : nullptr;
      const auto multiply_channels = [&](std::int64_t begin, std::int64_t end) {
        const std::ptrdiff_t skipped = (begin - c) * vectors * s.lanes;
        multiply_point<T>(
            {to - from, end - begin, tile.fold, pass,
             v + point * s.v_point + begin / s.lanes * s.v_block + from * s.lanes, s.v_block, panel + skipped,
             area.m + point * s.m_point, next ? next + skipped : nullptr, &ahead, begin > 0},
            vectors);
      };
      const bool half_rows = s.odd_rows && point / tile.nx == tile.ny - 1;
      const bool half_columns = s.odd_columns && point % tile.nx == tile.nx - 1;
      if (!half_rows && !half_columns) {
        multiply_channels(c, c_end);
      } else if (!half_columns) {
        multiply_channels(0, 2 * s.phase_channels);
      } else {
        multiply_channels(0, s.phase_channels);
        if (!half_rows) multiply_channels(2 * s.phase_channels, 3 * s.phase_channels);
      }
    }
  }

  void transform_inputs(std::int64_t group, Share tiles, std::int64_t v_tile, Share blocks) const {
    const InputStage<T> input{s.g,         tile,      static_cast<const T*>(args.x) + group * s.g.c * s.g.x.channel,
                              v,           s.v_point, s.v_block,
                              area.scratch};
    input.run(tiles.begin, tiles.end, v_tile, blocks);
  }

  void load_bias(std::int64_t group) const {
    const T* const from = static_cast<const T*>(args.epilogue.bias);
    const std::int64_t whole = round_up(s.g.o, s.lanes);
    for (std::int64_t i = 0; i < whole; ++i) area.bias[i] = from && i < s.g.o ? from[group * s.g.o + i] : T(0);
  }
};

// Columns of the grid of fused blocks by panels.
template <class T>
int fused_columns(const Sizes<T>& s, int size) {
  int columns = static_cast<int>(smaller(smaller<std::int64_t>(s.split, s.panels), static_cast<std::int64_t>(size)));
  while (size % columns) --columns;
  return columns;
}

// The grid of a shared block's second stage: least work for the busiest member, then fewest bytes of U and V.
template <class T>
Grid shared_grid(const Sizes<T>& s, std::int64_t tiles, int size) {
  Grid best{1, size};
  double least = 1e300;
  for (int columns = 1; columns <= size; ++columns) {
    if (size % columns) continue;
    const double mine = static_cast<double>(ceil_div(tiles, size / columns)),
                 panels = static_cast<double>(ceil_div(s.panels, columns));
    const double work = mine * panels * s.panel / s.lanes;
    const double lines = (mine + panels * s.panel) / s.lanes;
    const double time = work + lines;
    if (time < least) {
      least = time;
      best = {size / columns, columns};
    }
  }
  return best;
}

// `s` are the sizes of `args.problem`; its y may have other strides than a dense result. `stream`: write past the caches.
template <class T>
void winograd_run(const Arguments& args, const WinogradTile<T>& tile, const Sizes<T>& s, bool stream) {
  if (s.g.tiles == 0 || s.g.o == 0) return;
  const bool cold = !args.packed;
  Carver carver{static_cast<char*>(args.workspace)};
  const Workspace<T> common(carver, s, cold);
  const std::int64_t member_base = carver.used;
  Workspace<T>::member(carver, s, tile, cold);
  const std::int64_t member_bytes = carver.used - member_base;
  auto member = [&](int index, int size) {
    Carver mine{static_cast<char*>(args.workspace), member_base + index * member_bytes};
    const typename Workspace<T>::Member area = Workspace<T>::member(mine, s, tile, cold);
    const T* packed = static_cast<const T*>(args.packed);
    if (cold && !s.kc) {
      pack_filters(s, tile, args.w, common.packed, area.filter_scratch, index, size);
      packed = common.packed;
      team_barrier();
    }
    const WinogradMember<T> worker{args, tile, s, packed, s.shared ? common.shared_v : area.v, area, stream};
    std::int64_t biased = -1;
    if (s.shared) {
      for (std::int64_t group = 0; group < s.g.groups; ++group) {
        worker.load_bias(group);
        for (std::int64_t block = 0; block < s.blocks; ++block) {
          const Share tiles = s.block(block);
          const std::int64_t count = tiles.end - tiles.begin;
          const Grid first = s.g.nhwc ? make_grid(count, s.c_blocks, size) : make_grid(s.c_blocks, count, size);
          const int row = index / first.columns, column = index % first.columns;
          const Share a = share(s.g.nhwc ? count : s.c_blocks, row, first.rows);
          const Share b = share(s.g.nhwc ? s.c_blocks : count, column, first.columns);
          const Share t = s.g.nhwc ? a : b, c = s.g.nhwc ? b : a;
          worker.transform_inputs(group, {tiles.begin + t.begin, tiles.begin + t.end}, t.begin, c);
          team_barrier();
          const Grid second = shared_grid(s, count, size);
          const Share rows = share(count, index / second.columns, second.rows);
          worker.multiply(group, tiles.begin, rows.begin, rows.end,
                          share(s.panels, index % second.columns, second.columns), Fetch{});
          team_barrier();
        }
      }
    } else {
      const int columns = fused_columns(s, size);
      const int rows = size / columns;
      const Share items = share(s.g.groups * s.blocks, index / columns, rows);
      for (std::int64_t item = items.begin; item < items.end; ++item) {
        const std::int64_t group = item / s.blocks;
        if (group != biased) worker.load_bias(biased = group);
        const Share tiles = s.block(item % s.blocks);
        worker.transform_inputs(group, tiles, 0, {0, s.c_blocks});
        Fetch ahead;
        if (item + 1 < items.end) {
          const T* const x = static_cast<const T*>(args.x) + (item + 1) / s.blocks * s.g.c * s.g.x.channel;
          ahead = input_region(s.g, tile, x, s.block((item + 1) % s.blocks));
        }
        worker.multiply(group, tiles.begin, 0, tiles.end - tiles.begin, share(s.panels, index % columns, columns),
                        ahead);
      }
    }
    Vec<T>::fence();
  };
  team(args.threads, member);
}

template <class T>
void winograd_run(const Arguments& args, const WinogradTile<T>& tile) {
  const ConvProblem& p = *args.problem;
  const double y_bytes = static_cast<double>(p.n * p.o) * static_cast<double>(p.oh * p.ow) * sizeof(T);
  winograd_run(args, tile, Sizes<T>(p, *args.parameters, tile), y_bytes > static_cast<double>(args.machine->l2));
}

}  // namespace convkit::CONVKIT_ISA
