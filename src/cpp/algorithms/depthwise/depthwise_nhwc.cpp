// Depthwise convolution, NHWC: lanes on output channels, a window that slides along the columns of a few output rows.
//
// x is read as it is where a vector of outputs meets a vector of channels. The last, partial vector and a channel
// multiplier go through a copy of the rows, one vector of outputs wide.
//
// A 3x3 window either slides along whole rows, vector of channels by vector, or goes tile by tile. Sliding loads less; tiles
// suit tensors beyond L1, above all with stride 2, where loads and not products take the time, and arrays that are not
// aligned to a vector, as those from malloc: of lines read twice, the second time is soon.
#include "algorithms/adjoint.hpp"
#include "algorithms/depthwise/depthwise.hpp"
#include "microkernels/depthwise_columns.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

constexpr ParameterSpec schema[] = {{"rows", 1, 4}, {"prefetch", 0, 1}, {"tiles", 0, 1}, {nullptr, 0, 0}};

// --- which kernel -----------------------------------------------------------------------------------------------------

// Most output rows at once: accumulators, and input rows or the filter, must fit the registers.
template <class T>
constexpr int most_rows(int k, int s) {
  const bool many = many_registers<T>;
  if (k == 3) return many ? 4 : 3;
  return k == 5 && s == 1 && many ? 3 : 2;
}

template <class T>
using ColumnSlide = void (*)(std::int64_t, const ColumnsIn<T>&, std::int64_t, const SlideOut<T>&);

// [filter 3, 5, 7][stride][rows][all input rows exist], and tiles of 3x3.
template <class T>
struct ColumnSlides {
  ColumnSlide<T> of[3][2][4][2];
  ColumnSlide<T> tile[2][4][2];
};

template <class T>
CONVKIT_INLINE bool may_tile(const ConvProblem& p) {
  return many_registers<T> && slides_over(p) && p.kh == 3;
}

template <class T, int K, int S, int Rows>
constexpr void fill(ColumnSlides<T>& table) {
  if constexpr (Rows > 0) {
    table.of[K / 2 - 1][S - 1][Rows - 1][0] = slide_columns<T, K, S, Rows, false>;
    table.of[K / 2 - 1][S - 1][Rows - 1][1] = slide_columns<T, K, S, Rows, true>;
    if constexpr (K == 3 && many_registers<T>) {
      table.tile[S - 1][Rows - 1][0] = tile_columns<T, S, Rows, false>;
      table.tile[S - 1][Rows - 1][1] = tile_columns<T, S, Rows, true>;
    }
    fill<T, K, S, Rows - 1>(table);
  }
}

template <class T>
constexpr ColumnSlides<T> make_slides() {
  ColumnSlides<T> table{};
  fill<T, 3, 1, most_rows<T>(3, 1)>(table);
  fill<T, 3, 2, most_rows<T>(3, 2)>(table);
  fill<T, 5, 1, most_rows<T>(5, 1)>(table);
  fill<T, 5, 2, most_rows<T>(5, 2)>(table);
  fill<T, 7, 1, most_rows<T>(7, 1)>(table);
  fill<T, 7, 2, most_rows<T>(7, 2)>(table);
  return table;
}

template <class T>
constexpr ColumnSlides<T> slides = make_slides<T>();

template <class T>
RowGroups row_groups(const ConvProblem& p, const Parameters& parameters) {
  if (!slides_over(p)) return {p.oh, 1, 1};
  const int most = most_rows<T>(static_cast<int>(p.kh), static_cast<int>(p.stride_h));
  return {p.oh, p.stride_h == 1 ? p.dilation_h : 1, smaller<int>(parameters.value[0], most)};
}

// --- workspace --------------------------------------------------------------------------------------------------------

template <class T>
std::int64_t packed_bytes(const ConvProblem& p) {
  return round_up(p.o, Vec<T>::lanes) * p.kh * p.kw * static_cast<std::int64_t>(sizeof(T));
}

template <class T>
bool needs_copy(const ConvProblem& p) {
  return p.o != p.c || p.o % Vec<T>::lanes != 0;
}

// A member's copy of the rows that it works on, one vector of outputs wide.
template <class T, class Cut>
CONVKIT_INLINE T* carve(const ConvProblem& p, const Parameters& parameters, Cut& cut) {
  if (!needs_copy<T>(p)) return nullptr;
  return cut.template take<T>(input_rows(p, row_groups<T>(p, parameters).most), p.w * Vec<T>::lanes);
}

template <class T>
std::int64_t workspace_bytes(const ConvProblem& p, const Parameters& parameters, const Machine&, int threads) {
  return members_workspace([&](auto& cut) { return carve<T>(p, parameters, cut); }, threads,
                           p.packed ? 0 : packed_bytes<T>(p));
}

// --- weights ----------------------------------------------------------------------------------------------------------

template <class T>
void packing(const ConvProblem& p, const Parameters&, Packing* out) {
  describe_packing("depthwise_" CONVKIT_ISA_NAME, packed_bytes<T>(p), out);
}

// [O / lanes][KH][KW][lanes], zeros behind the last output.
template <class T>
void pack(const ConvProblem& p, const Parameters&, const WeightView& view, void* packed, int) {
  using V = Vec<T>;
  const std::int64_t taps = p.kh * p.kw, multiplier = p.o / p.c;
  T* out = static_cast<T*>(packed);
  const auto filter = [&](std::int64_t o) CONVKIT_LAMBDA {
    return static_cast<const T*>(view.data) + o / multiplier * view.stride_group + o % multiplier * view.stride_o;
  };
  for (std::int64_t o = 0; o < p.o; o += V::lanes, out += taps * V::lanes) {
    const int valid = static_cast<int>(smaller<std::int64_t>(p.o - o, V::lanes));
    if (multiplier == 1 && view.stride_group == 1) {
      for (std::int64_t t = 0; t < taps; ++t) {
        const T* from = filter(o) + t / p.kw * view.stride_kh + t % p.kw * view.stride_kw;
        V::store(out + t * V::lanes, V::load(from, valid));
      }
      continue;
    }
    if (view.stride_kw == 1 && view.stride_kh == p.kw) {
      for (std::int64_t t = 0; t < taps; t += V::lanes) {
        const int count = static_cast<int>(smaller<std::int64_t>(taps - t, V::lanes));
        typename V::Reg r[V::lanes];
        CONVKIT_UNROLL
        for (int i = 0; i < V::lanes; ++i) r[i] = i < valid ? V::load(filter(o + i) + t, count) : V::zero();
        V::transpose(r);
        CONVKIT_UNROLL
        for (int i = 0; i < V::lanes; ++i) {
          if (i < count) V::store(out + (t + i) * V::lanes, r[i]);
        }
      }
      continue;
    }
    for (std::int64_t t = 0; t < taps; ++t) {
      const std::ptrdiff_t tap = t / p.kw * view.stride_kh + t % p.kw * view.stride_kw;
      for (int i = 0; i < V::lanes; ++i) out[t * V::lanes + i] = i < valid ? filter(o + i)[tap] : T(0);
    }
  }
}

// --- run --------------------------------------------------------------------------------------------------------------

// The channels that a vector of outputs meets, one for each lane.
template <class T>
struct Channels {
  using V = Vec<T>;
  std::int64_t first;
  int count, valid;  // channels met; lanes that are outputs
  bool straight;     // lane l meets channel first + l
  typename V::Index index;

  Channels(const ConvProblem& p, std::int64_t o) {
    const std::int64_t multiplier = p.o / p.c;
    valid = static_cast<int>(smaller<std::int64_t>(p.o - o, V::lanes));
    straight = multiplier == 1;
    first = o / multiplier;
    std::int32_t lane[V::lanes];
    for (int l = 0; l < V::lanes; ++l) {
      lane[l] = static_cast<std::int32_t>((o + smaller(l, valid - 1)) / multiplier - first);
    }
    count = lane[V::lanes - 1] + 1;
    index = V::index(lane);
  }

  // Copies `pixels` pixels into vectors of outputs.
  CONVKIT_INLINE void copy(const T* x, std::ptrdiff_t pixel, std::int64_t pixels, T* to) const {
    for (std::int64_t i = 0; i < pixels; ++i) {
      const auto v = V::load(x + i * pixel, count);
      V::store(to + i * V::lanes, straight ? v : V::permute(v, index));
    }
  }
};

// One group of rows and `blocks` vectors of outputs; bias_step leads from one vector's bias to the next one's.
template <class T>
void run_columns(const ConvProblem& p, const Rows& rows, std::int64_t blocks, bool tiles, const T* x,
                 std::ptrdiff_t row, std::ptrdiff_t column, std::ptrdiff_t ahead, const T* w, const T* bias,
                 std::ptrdiff_t bias_step, SlideOut<T> out) {
  using V = Vec<T>;
  if (!slides_over(p)) {
    for (std::int64_t block = 0; block < blocks; ++block) {
      const AnyIn<T> in{x + rows.begin * row + block * V::lanes,
                        row,
                        column,
                        p.dilation_w * column,
                        w + (block * p.kh + rows.begin) * p.kw * V::lanes,
                        bias + block * bias_step,
                        rows.end - rows.begin,
                        p.kw};
      any_columns<T>(in, p.w, p.stride_w, p.dilation_w, p.pad_left, p.ow, out);
      out.y += V::lanes;
      if (out.residual) out.residual += V::lanes;
    }
    return;
  }
  const bool whole = rows.begin == 0 && rows.end == input_rows(p, rows.rows);
  const auto slide = tiles ? slides<T>.tile[p.stride_h - 1][rows.rows - 1][whole]
                           : slides<T>.of[p.kh / 2 - 1][p.stride_h - 1][rows.rows - 1][whole];
  const ColumnsIn<T> in{x,    row,       column, static_cast<int>(rows.begin), static_cast<int>(rows.end), 0, 0, w,
                        bias, bias_step, ahead};
  slide_phases(p, in, out, [&](const ColumnsIn<T>& from, std::int64_t outputs, const SlideOut<T>& to) {
    slide(blocks, from, outputs, to);
  });
}

template <class T>
void run(const Arguments& args) {
  using V = Vec<T>;
  const ConvProblem& p = *args.problem;
  const T* x = static_cast<const T*>(args.x);
  const Finish<T> finish(args.epilogue);
  const RowGroups groups = row_groups<T>(p, *args.parameters);
  const std::int64_t per_image = groups.count(), count = ceil_div(p.o, V::lanes), taps = p.kh * p.kw;
  // Vectors of outputs that meet a vector of channels in x as it is.
  const std::int64_t in_place = p.o == p.c ? p.o / V::lanes : 0;
  const bool prefetch = args.parameters->value[1] != 0, tiles = args.parameters->value[2] != 0 && may_tile<T>(p);
  const auto work = [&](const T* packed, T* copy, int index, int size) {
    const Grid grid = make_grid(p.n * per_image, count, size);
    const Share items = share(p.n * per_image, index / grid.columns, grid.rows);
    const Share mine = share(count, index % grid.columns, grid.columns);
    for (std::int64_t item = items.begin; item < items.end; ++item) {
      const Rows rows(p, groups, item, per_image);
      const std::int64_t above = rows.image * p.h + rows.input;
      const std::ptrdiff_t pixel = (rows.image * p.oh + rows.first) * p.ow * p.o;
      SlideOut<T> out{static_cast<T*>(args.y) + pixel,
                      finish.residual ? finish.residual + pixel : nullptr,
                      groups.dilation * p.ow * p.o,
                      p.o,
                      finish.lo,
                      finish.hi,
                      finish.clamp,
                      V::lanes};
      const auto run = [&](std::int64_t begin, std::int64_t end, const T* source, std::ptrdiff_t row,
                           std::ptrdiff_t column, std::ptrdiff_t ahead) {
        const std::int64_t o = begin * V::lanes;
        SlideOut<T> part = out;
        part.y += o;
        if (part.residual) part.residual += o;
        part.valid = static_cast<int>(smaller<std::int64_t>(p.o - o, V::lanes));
        alignas(64) T bias[V::lanes];
        const bool ready = finish.bias && part.valid == V::lanes;
        if (!ready) V::store(bias, finish.bias ? V::load(finish.bias + o, part.valid) : V::zero());
        run_columns<T>(p, rows, end - begin, tiles, source, row, column, ahead, packed + begin * taps * V::lanes,
                       ready ? finish.bias + o : bias, ready ? V::lanes : 0, part);
      };
      const std::ptrdiff_t row = rows.step * p.w * p.c, ahead = prefetch ? input_rows(p, rows.rows) * row : 0;
      const std::int64_t end = smaller(mine.end, in_place);
      if (mine.begin < end) run(mine.begin, end, x + above * p.w * p.c + mine.begin * V::lanes, row, p.c, ahead);
      for (std::int64_t block = larger(mine.begin, in_place); block < mine.end; ++block) {
        const Channels<T> channels(p, block * V::lanes);
        for (std::int64_t i = rows.begin; i < rows.end; ++i) {
          channels.copy(x + (above + i * rows.step) * p.w * p.c + channels.first, p.c, p.w, copy + i * p.w * V::lanes);
        }
        run(block, block + 1, copy, p.w * V::lanes, V::lanes, 0);
      }
      if (finish.after) {
        const std::int64_t o = mine.begin * V::lanes, outputs = smaller(mine.end * V::lanes, p.o) - o;
        for (int r = 0; r < rows.rows; ++r) activate_rows(out.y + r * out.row + o, p.ow, p.o, outputs, *finish.after);
      }
    }
  };
  run_members<T>(
      args, team_size(p, args.threads), pack<T>, [&](auto& cut) { return carve<T>(p, *args.parameters, cut); },
      [](const T* packed) { return packed; }, work);
}

// --- inventory --------------------------------------------------------------------------------------------------------

// Most rows of tiles that share out evenly: members that split channels instead read pieces of what lies together.
inline std::int32_t rows_of_tiles(const ConvProblem& p, std::int32_t most, int threads) {
  const auto imbalance = [&](std::int32_t rows) {
    return grid_imbalance(p.n * RowGroups{p.oh, p.stride_h == 1 ? p.dilation_h : 1, rows}.count(), 1, threads);
  };
  std::int32_t best = most;
  for (std::int32_t rows = most - 1; rows >= 2; --rows) {
    if (imbalance(rows) < 0.95 * imbalance(best)) best = rows;
  }
  return best;
}

// Where 3x3 tiles are possible, there is nothing else with stride 2. Else few rows and a prefetch of the next group where
// the tensors come from beyond L2, many rows where they are at hand.
template <class T>
int candidates(const ConvProblem& p, const Machine& machine, int threads, Parameters* out, int capacity) {
  if (!slides_over(p)) {
    out[0] = {{1, 0, 0}};
    return 1;
  }
  const std::int32_t most = most_rows<T>(static_cast<int>(p.kh), static_cast<int>(p.stride_h));
  const std::int32_t few = smaller<std::int32_t>(2, most);
  const bool streams = tensor_bytes(p, sizeof(T)) / threads > static_cast<double>(machine.l2);
  const Parameters many_rows{{most, 0, 0}}, few_rows{{few, 1, 0}}, fetched{{most, 1, 0}},
      tiles{{rows_of_tiles(p, most, team_size(p, threads)), 1, 1}};
  Parameters sets[4];
  int count = 0;
  if (may_tile<T>(p)) {
    // With stride 2 sliding is never much faster, but much slower over arrays that are not aligned, and trials' are.
    if (p.stride_h == 1) sets[count++] = streams ? fetched : many_rows;
    sets[count++] = tiles;
    if (p.stride_h == 1) sets[count++] = few_rows;
    sets[count++] = {{tiles.value[0] == few ? most : few, 1, 1}};
  } else {
    sets[count++] = streams ? few_rows : many_rows;
    sets[count++] = streams ? many_rows : few_rows;
    if (most > 2) sets[count++] = {{most, 1, 0}}, sets[count++] = {{few, 0, 0}};
  }
  count = smaller(capacity, count);
  for (int i = 0; i < count; ++i) out[i] = sets[i];
  return count;
}

template <class T>
void cost(const ConvProblem& p, const Parameters& parameters, const Machine&, int threads, Cost* out) {
  const RowGroups groups = row_groups<T>(p, parameters);
  const double vectors = static_cast<double>(p.n * p.oh * p.ow) * static_cast<double>(ceil_div(p.o, Vec<T>::lanes));
  *out = {};
  out->fmas = vectors * Vec<T>::lanes * static_cast<double>(p.kh * p.kw);
  out->efficiency = slides_over(p) ? 0.85 : 0.5;
  out->vector_ops = vectors * (needs_copy<T>(p) ? 3 : 1);
  out->bytes_dram = tensor_bytes(p, sizeof(T));
  out->imbalance = grid_imbalance(p.n * groups.count(), ceil_div(p.o, Vec<T>::lanes), team_size(p, threads));
}

template <class T>
constexpr Kernel entry(const char* name) {
  return kernel_of<T>("depthwise", name, Op::forward, layout_nhwc, 3,
                      {schema, depthwise_applies, candidates<T>, cost<T>, workspace_bytes<T>, run<T>},
                      {packing<T>, pack<T>});
}

constexpr Kernel kernels[] = {
    entry<float>("f32_depthwise_nhwc__" CONVKIT_ISA_NAME),
    entry<double>("f64_depthwise_nhwc__" CONVKIT_ISA_NAME),
};

}  // namespace

extern const KernelTable depthwise_nhwc_table;
constexpr KernelTable depthwise_nhwc_table = WithAdjoints<kernels>::table;

}  // namespace convkit::CONVKIT_ISA
