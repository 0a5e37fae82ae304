// What a Winograd run costs, and which parameters are worth trying: those whose predicted time is least.
//
// The prediction follows the schedule of the busiest member, in cycles. Products run at the FMA rate unless their filters
// arrive more slowly than they are used; transforms add to that; what does not fit a cache is paid for at the rate of
// the next one. Its constants only have to rank parameters; between kernels the cost model decides.
#pragma once
#include "algorithms/winograd/schedule.hpp"

namespace convkit::CONVKIT_ISA {

template <class T>
struct Prediction {
  static constexpr double l3_rate = 14, dram_rate = 6.5,
                          dram_rate_all = 13;  // bytes a cycle; dram_rate_all: of two members
  // In vectors that one unit would have multiplied meanwhile:
  static constexpr double tile_overhead = 34;   // a row tile: zeroing, stores, call
  static constexpr double point_overhead = 40;  // a product of one point: call, first misses
  static constexpr double l1_rate = 64;         // bytes a cycle of filters from L2, mostly behind the products
  static constexpr double l1_filters = 16384;   // bytes of them that row tiles find in L1
  static constexpr double exposed = 0.15;       // of the shorter of two streams that overlap
  static constexpr double barrier_cycles = 4000;
  static constexpr double read_cycles = 8;  // a cache line of x from beyond L2, prefetched

  const Sizes<T>& s;
  const WinogradTile<T>& tile;
  const Machine& machine;
  int threads;
  bool cold;

  double bytes(double elements) const { return elements * sizeof(T); }
  // Vector instructions of every kind that start in a cycle.
  double units() const { return Vec<T>::bytes == 64 ? machine.wide_units : 2; }

  // Multiply `rows` tiles by one panel, all points.
  double products(double rows) const {
    const int most = TileShape<T>::rows(TileShape<T>::vectors);
    const RowSplit split = split_rows(larger<std::int64_t>(1, static_cast<std::int64_t>(rows)), most);
    const auto step = [](int r) {
      return static_cast<double>(larger(r * TileShape<T>::vectors, r + TileShape<T>::vectors + 2));
    };
    const double c = static_cast<double>(s.g.c);
    const double cycles = static_cast<double>(split.big) * (c * step(split.rows + 1) + tile_overhead) +
                          static_cast<double>(split.small) * (c * step(split.rows) + tile_overhead);
    return s.points * ((cycles * 1.02 + point_overhead) / units() + smaller(bytes(c * s.panel), l1_filters) / l1_rate);
  }
  double reading(double tiles, double blocks) const {
    return tiles * blocks * (tile.my * tile.mx * Vec<T>::bytes / 64.0) * read_cycles;
  }
  double input(double tiles, double blocks) const {
    return tiles * blocks * tile.input_ops * 0.85 / units() + reading(tiles, blocks);
  }
  double output(double tiles) const { return tiles * TileShape<T>::vectors * tile.output_ops * 0.85 / units(); }

  // Filters of one panel, from where they are.
  double filter_bytes() const { return bytes(static_cast<double>(s.points) * static_cast<double>(s.g.c) * s.panel); }
  double filter_rate(double columns) const {
    const double all = bytes(static_cast<double>(s.packed_group)) * static_cast<double>(s.g.groups);
    if (all / columns < 0.6 * static_cast<double>(machine.l2)) return 48;
    // Other layers leave a large one no more than half of it.
    if (all < 0.5 * static_cast<double>(machine.l3)) return l3_rate;
    return smaller(dram_rate, larger(dram_rate_all / threads, 2.0));
  }
  double filter_transform() const {
    return static_cast<double>(s.g.c) * TileShape<T>::vectors * (tile.ry * tile.rx * 9.0 + s.points * 3.0) / units();
  }
  // V read once a panel from beyond L2, mostly behind the products.
  double v_overflow(double rows) const {
    const double v = bytes(static_cast<double>(s.points) * static_cast<double>(s.g.c) * rows);
    return v < 0.7 * static_cast<double>(machine.l2) ? 0 : 0.5 * v / l3_rate;
  }
  // M written and read again from beyond L2.
  double m_overflow(double rows) const {
    const double m = bytes(static_cast<double>(s.points) * rows * s.panel);
    const double passes = s.kc ? static_cast<double>(ceil_div(s.g.c, s.kc)) : 1;
    return (m < 0.5 * static_cast<double>(machine.l2) ? 0.02 : 0.5) * 2 * passes * m / l3_rate;
  }
  // One panel of outputs of `rows` tiles.
  double panel(double rows, double columns) const {
    double cycles = products(rows) + v_overflow(rows);
    if (s.kc) {
      cycles += filter_transform();
    } else {
      const double arrival = filter_bytes() / filter_rate(columns);
      cycles = larger(cycles, arrival) + exposed * smaller(cycles, arrival);
    }
    return cycles + m_overflow(rows) + output(rows);
  }

  double cycles() const {
    const double rows = static_cast<double>(s.block_tiles);
    double total = 0;
    if (cold && !s.kc) {
      const double all = static_cast<double>(s.g.groups * s.panels);
      total = barrier_cycles + all * (filter_transform() + filter_bytes() / l3_rate) / threads;
    }
    if (s.shared) {
      const Grid grid = shared_grid(s, s.block_tiles, threads);
      const double mine = static_cast<double>(ceil_div(s.block_tiles, grid.rows));
      const double pieces = static_cast<double>(ceil_div(static_cast<std::int64_t>(mine), s.m_tiles));
      const double one =
          input(rows, static_cast<double>(s.c_blocks)) / threads + (threads > 1 ? 2 * barrier_cycles : 0) +
          bytes(static_cast<double>(s.points) * static_cast<double>(s.g.c) * mine) / l3_rate +
          static_cast<double>(ceil_div(s.panels, grid.columns)) * pieces * panel(mine / pieces, grid.columns);
      return total + static_cast<double>(s.g.groups * s.blocks) * one;
    }
    const int columns = fused_columns(s, threads);
    const double items = static_cast<double>(ceil_div(s.g.groups * s.blocks, threads / columns));
    const double mean = static_cast<double>(s.g.tiles) / static_cast<double>(s.blocks);
    const double one = input(mean, static_cast<double>(s.c_blocks)) +
                       static_cast<double>(ceil_div(s.panels, columns)) * panel(mean, columns);
    // Nothing has fetched what the first block reads.
    return total + items * one + 2 * reading(mean, static_cast<double>(s.c_blocks));
  }
};

template <class T>
double winograd_cycles(const ConvProblem& p, const Parameters& parameters, const Machine& machine, int threads,
                       const WinogradTile<T>& tile) {
  const Sizes<T> s(p, parameters, tile);
  return Prediction<T>{s, tile, machine, threads, !p.packed}.cycles();
}

template <class T>
void winograd_cost(const ConvProblem& p, const Parameters& parameters, const Machine& machine, int threads,
                   const WinogradTile<T>& tile, Cost* out) {
  const Sizes<T> s(p, parameters, tile);
  const Prediction<T> predict{s, tile, machine, threads, !p.packed};
  const double groups = static_cast<double>(s.g.groups), tiles = static_cast<double>(s.g.tiles);
  const double c = static_cast<double>(s.g.c), o = static_cast<double>(round_up(s.g.o, s.lanes));
  const double blocks = static_cast<double>(s.blocks), rows = static_cast<double>(s.block_tiles);
  const int columns = s.shared ? 1 : fused_columns(s, threads);
  *out = {};
  out->fmas = groups * tiles * s.points * c * o;
  out->efficiency = s.points * rows * c * TileShape<T>::vectors / (predict.units() * predict.products(rows));
  if (s.shared) {
    const Grid grid = shared_grid(s, s.block_tiles, threads);
    out->imbalance =
        static_cast<double>(ceil_div(s.block_tiles, grid.rows) * ceil_div(s.panels, grid.columns) * threads) /
        (rows * static_cast<double>(s.panels));
  } else {
    const double items = groups * blocks;
    out->imbalance = static_cast<double>(ceil_div(s.g.groups * s.blocks, threads / columns) *
                                         ceil_div(s.panels, columns) * threads) /
                     (items * static_cast<double>(s.panels));
  }
  // All that the predicted time holds beside products, as instructions; filters that arrive behind products cost none.
  const double share = larger(out->imbalance, 1.0) / threads;
  const double products = out->fmas / (Vec<T>::lanes * predict.units() * out->efficiency) * share;
  out->vector_ops = 2 * larger(predict.cycles() - products, 0.1 * products) / share;
  // With few channels the transforms leave most lanes idle, and no product is long enough to hide their stores.
  if (s.g.c < Vec<T>::lanes) out->vector_ops *= 1.25;
  out->bytes_dram = predict.bytes(static_cast<double>(p.n) * static_cast<double>(p.c * p.h * p.w)) +
                    predict.bytes(static_cast<double>(p.n) * static_cast<double>(p.o * p.oh * p.ow));
  const std::int64_t barriers = (s.shared ? 2 * s.g.groups * s.blocks : 0) + (!p.packed && !s.kc ? 1 : 0);
  out->barriers = static_cast<std::int32_t>(smaller<std::int64_t>(barriers, 1 << 20));
}

// Ranks a fixed set of block sizes, regimes and chunks; keeps the best, and then the best of those that differ in more
// than a neighbouring block size.
template <class T>
int winograd_candidates(const ConvProblem& p, const Machine& machine, int threads, const WinogradTile<T>& tile,
                        Parameters* out, int capacity) {
  constexpr int most = 8;
  Parameters best[most];
  double cycles[most];
  int count = 0;
  const std::int64_t all = make_geometry(p, tile).tiles;
  const auto consider = [&](std::int64_t shared, std::int64_t tiles, std::int64_t split, std::int64_t kc) {
    const Parameters candidate = {
        {within(winograd_schema[parameter_shared], shared), within(winograd_schema[parameter_tiles], tiles),
         within(winograd_schema[parameter_split], split), within(winograd_schema[parameter_kc], kc)}};
    const double time = winograd_cycles(p, candidate, machine, threads, tile);
    int at = count;
    while (at > 0 && cycles[at - 1] > time) --at;
    if (at == most) return;
    if (count < most) ++count;
    for (int i = count - 1; i > at; --i) best[i] = best[i - 1], cycles[i] = cycles[i - 1];
    best[at] = candidate;
    cycles[at] = time;
  };
  const std::int64_t c = p.c / p.groups;
  const auto chunks = [&](std::int64_t shared, std::int64_t tiles, std::int64_t split) {
    consider(shared, tiles, split, 0);
    if (p.packed) return;
    for (std::int64_t kc = 32; kc <= 128; kc *= 2) {
      if (kc == 32 || kc < c) consider(shared, tiles, split, kc);
    }
  };
  std::int64_t last = 0;
  constexpr int block_sizes[] = {8, 12, 18, 24, 30, 36, 48, 72, 96, 196, 400};
  for (const std::int64_t wanted : block_sizes) {
    // Equal blocks, and no more tiles than there are.
    const std::int64_t tiles = larger<std::int64_t>(1, ceil_div(all, larger<std::int64_t>(1, ceil_div(all, wanted))));
    if (tiles == last) continue;
    last = tiles;
    const std::int64_t most_split = smaller<std::int64_t>(threads, winograd_schema[parameter_split].most);
    for (std::int64_t split = 1; split <= most_split && split <= ceil_div(p.o / p.groups, TileShape<T>::panel);
         ++split) {
      if (threads % split == 0) chunks(0, tiles, split);
    }
    if (threads > 1) chunks(1, tiles, 1);
  }
  count = smaller(count, capacity);
  for (int i = 0; i < count; ++i) out[i] = best[i];
  return count;
}

}  // namespace convkit::CONVKIT_ISA
