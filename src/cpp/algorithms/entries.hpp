// What inventory entries share.
#pragma once
#include "algorithms/gemm/gemm.hpp"

namespace convkit::CONVKIT_ISA {

template <class T>
inline constexpr Dtype dtype_of = sizeof(T) == 4 ? Dtype::f32 : Dtype::f64;

inline constexpr std::uint32_t layout_nchw = 1u << static_cast<int>(Layout::nchw);
inline constexpr std::uint32_t layout_nhwc = 1u << static_cast<int>(Layout::nhwc);

inline constexpr ErrorClass direct_summation{true, 1.0f};

CONVKIT_INLINE double tensor_bytes(const ConvProblem& p, std::int64_t element) {
  const double images = static_cast<double>(p.n);
  return static_cast<double>(element) * (images * static_cast<double>(p.c * p.h * p.w) +
                                         images * static_cast<double>(p.o * p.oh * p.ow) * (p.residual ? 2.0 : 1.0) +
                                         static_cast<double>(p.o * (p.c / p.groups) * p.kh * p.kw));
}

// Adds to the id of a packing. One cut off could be another packing's: a kernel that names one too long does not run.
inline void append_id(const char* text, Packing* out) {
  std::size_t used = 0;
  while (out->id[used]) ++used;
  for (; *text; ++text) {
    if (used + 1 == sizeof out->id) __builtin_trap();
    out->id[used++] = *text;
  }
  out->id[used] = 0;
}

inline void describe_packing(const char* id, std::int64_t bytes, Packing* out) {
  *out = {};
  append_id(id, out);
  out->bytes = bytes;
}

template <class T>
void panels_entry(const ConvProblem& p, const Parameters&, Packing* out) {
  // Widths differ by ISA; bytes tell float32 from float64.
  describe_packing("panels" CONVKIT_ISA_NAME, panels_bytes<T>(p), out);
}

// Kernels that read OIHW weights as they are.
inline void no_packing(const ConvProblem&, const Parameters&, Packing* out) { *out = {}; }

// Kernels that have nothing to choose.
inline constexpr ParameterSpec no_parameters[] = {{nullptr, 0, 0}};
inline int one_candidate(const ConvProblem&, const Machine&, int, Parameters* out, int) {
  out[0] = {};
  return 1;
}

// What an entry is made of: in inventory.hpp's words, and how its weights are packed.
struct Functions {
  const ParameterSpec* schema;
  decltype(Kernel::applies) applies;
  decltype(Kernel::candidates) candidates;
  decltype(Kernel::cost) cost;
  decltype(Kernel::workspace_bytes) workspace_bytes;
  decltype(Kernel::run) run;
};
struct PackedBy {
  decltype(Kernel::packing) packing = no_packing;
  decltype(Kernel::pack) pack = nullptr;
};

// An entry of this instruction set and of one dtype.
template <class T>
constexpr Kernel kernel_of(const char* family, const char* name, Op op, std::uint32_t layouts, std::int32_t revision,
                           const Functions& functions, const PackedBy& packed = {},
                           const ErrorClass& error = direct_summation, bool reads_parts = false) {
  constexpr Dtype dtype = dtype_of<T>;
  return {family,
          name,
          Isa::CONVKIT_ISA,
          op,
          dtype,
          dtype,
          dtype,
          dtype,
          layouts,
          revision,
          error,
          functions.schema,
          functions.applies,
          functions.candidates,
          functions.cost,
          packed.packing,
          packed.pack,
          functions.workspace_bytes,
          functions.run,
          reads_parts};
}

// The busiest of `threads` members' share of items x columns, times the number of members.
CONVKIT_INLINE double grid_imbalance(std::int64_t items, std::int64_t columns, int threads, double missing = 0) {
  const Grid grid = make_grid(items, columns, threads, missing);
  const std::int64_t high = larger<std::int64_t>(items, 1), wide = larger<std::int64_t>(columns, 1);
  const double widest = static_cast<double>(ceil_div(wide, grid.columns)) - (grid.columns == 1 ? missing : 0);
  const double all = static_cast<double>(high) * (static_cast<double>(wide) - missing);
  return static_cast<double>(ceil_div(high, grid.rows)) * widest * threads / all;
}

// Cost of outputs in lanes: `rows` tile rows in all (pixels), k steps each, over all groups' padded outputs.
template <class T>
CONVKIT_INLINE Cost lanes_on_outputs_cost(const ConvProblem& p) {
  const Panels<T> panels{p.o / p.groups};
  const double pixels = static_cast<double>(p.n * p.oh * p.ow);
  const double k = static_cast<double>((p.c / p.groups) * p.kh * p.kw);
  Cost cost{};
  const int last = panels.vectors(panels.count() - 1);
  const bool half = half_last<T>(last, panels.tail(panels.count() - 1));
  cost.fmas = pixels * k * static_cast<double>(p.groups * (panels.padded() - (half ? Vec<T>::lanes / 2 : 0)));
  const double full = static_cast<double>(panels.outputs / Panels<T>::width * Panels<T>::width);
  const double rest = static_cast<double>(panels.padded()) - full;
  cost.efficiency = static_cast<double>(panels.padded()) /
                    (full / tile_efficiency<T>(TileShape<T>::vectors) + rest / tile_efficiency<T>(last));
  // A tile ends with a store of each accumulator and begins with its bias.
  cost.vector_ops = pixels * static_cast<double>(p.groups * panels.padded()) / Vec<T>::lanes * 2;
  cost.bytes_dram = tensor_bytes(p, sizeof(T));
  cost.imbalance = 1;
  return cost;
}

// Packing on the fly is part of a cold call: each weight is read, shuffled and written once, then read as packed.
template <class T>
CONVKIT_INLINE void add_cold_packing(const ConvProblem& p, double bytes, Cost* cost) {
  if (p.packed) return;
  cost->vector_ops += 4 * bytes / static_cast<double>(sizeof(T)) / Vec<T>::lanes;
  cost->bytes_l3 += 2 * bytes;
  cost->barriers += 1;
}

// Team that is worth waking: one member for every `grain` multiply-adds.
CONVKIT_INLINE int worthwhile_threads(const ConvProblem& p, int threads, double grain = 1e6) {
  if (threads == 1) return 1;
  const double wanted = multiply_adds(p) / grain + 1.0;
  return wanted < threads ? static_cast<int>(wanted) : threads;
}

// --- packed weights and an area for each member -----------------------------------------------------------------------
//
// carve(cut) takes one member's pieces. Areas come first; behind them a cold call packs its weights.

template <class Carve>
CONVKIT_INLINE std::int64_t members_workspace(const Carve& carve, int threads, std::int64_t fresh_bytes) {
  Tally area;
  carve(area);
  return team_bytes(area.used, threads, fresh_bytes);
}

// The caller's packed weights, or those packed now into `fresh`; null if `pack` is.
template <class T>
CONVKIT_INLINE const T* packed_weights(const Arguments& args, decltype(Kernel::pack) pack, char* fresh) {
  if (args.packed || !pack) return static_cast<const T*>(args.packed);
  pack(*args.problem, *args.parameters, args.w, fresh, args.threads);
  return reinterpret_cast<const T*>(fresh);
}

template <class Carve>
CONVKIT_INLINE std::int64_t area_bytes(const Carve& carve) {
  Carver area{nullptr};
  carve(area);
  return area.used;
}

// Starts a team of at most `members`: each of them calls work(its area, index, size).
template <class Carve, class Work>
CONVKIT_INLINE void run_in_areas(char* areas, std::int64_t bytes, int members, const Carve& carve, const Work& work) {
  auto member = [&](int index, int size) {
    Carver own{areas + bytes * index};
    work(carve(own), index, size);
  };
  team(members, member);
}
template <class Carve, class Work>
CONVKIT_INLINE void run_in_areas(char* areas, int members, const Carve& carve, const Work& work) {
  run_in_areas(areas, area_bytes(carve), members, carve, work);
}

// The same with work(begin(packed weights), its area, index, size).
template <class T, class Carve, class Begin, class Work>
CONVKIT_INLINE void run_members(const Arguments& args, int members, decltype(Kernel::pack) pack, const Carve& carve,
                                const Begin& begin, const Work& work) {
  const std::int64_t bytes = area_bytes(carve);
  char* const areas = static_cast<char*>(args.workspace);
  const auto shared = begin(packed_weights<T>(args, pack, areas + bytes * args.threads));
  run_in_areas(areas, bytes, members, carve,
               [&](const auto& own, int index, int size) { work(shared, own, index, size); });
}

}  // namespace convkit::CONVKIT_ISA
