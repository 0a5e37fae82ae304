// Grouped 3x3 convolution, NHWC, with as many outputs as channels a group and whole groups in a vector: ResNeXt's.
//
// Lanes on outputs, all of them useful, where a matrix product a group would use those of one group only. The last,
// partial vector of channels goes through a copy of the rows.
#include "algorithms/depthwise/depthwise.hpp"
#include "microkernels/grouped.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

constexpr ParameterSpec schema[] = {{"rows", 1, 4}, {nullptr, 0, 0}};

template <class T>
bool applies(const ConvProblem& p) {
  const std::int64_t group = p.c / p.groups;
  return p.c == p.o && group > 1 && Vec<T>::lanes % group == 0 && p.kh == 3 && slides_over(p);
}

template <class T>
constexpr int most_rows = many_registers<T> ? 4 : 2;

template <class T>
using GroupSlide = void (*)(std::int64_t, const GroupsIn<T>&, std::int64_t, const SlideOut<T>&);

// [stride][rows][all input rows exist]
template <class T>
struct GroupSlides {
  GroupSlide<T> of[2][4][2];
};

template <class T, int Rows>
constexpr void fill(GroupSlides<T>& table) {
  if constexpr (Rows > 0) {
    table.of[0][Rows - 1][0] = slide_groups<T, 1, Rows, false>;
    table.of[0][Rows - 1][1] = slide_groups<T, 1, Rows, true>;
    table.of[1][Rows - 1][0] = slide_groups<T, 2, Rows, false>;
    table.of[1][Rows - 1][1] = slide_groups<T, 2, Rows, true>;
    fill<T, Rows - 1>(table);
  }
}

template <class T>
constexpr GroupSlides<T> make_slides() {
  GroupSlides<T> table{};
  fill<T, most_rows<T>>(table);
  return table;
}

template <class T>
constexpr GroupSlides<T> slides = make_slides<T>();

template <class T>
RowGroups row_groups(const ConvProblem& p, const Parameters& parameters) {
  return {p.oh, p.stride_h == 1 ? p.dilation_h : 1, smaller<int>(parameters.value[0], most_rows<T>)};
}

// --- weights and workspace --------------------------------------------------------------------------------------------

template <class T>
std::int64_t packed_elements(const ConvProblem& p) {
  return round_up(p.o, Vec<T>::lanes) * (p.c / p.groups) * 9;
}

template <class T>
void packing(const ConvProblem& p, const Parameters&, Packing* out) {
  describe_packing("grouped_" CONVKIT_ISA_NAME, packed_elements<T>(p) * static_cast<std::int64_t>(sizeof(T)), out);
}

// [O / lanes][C / groups][3][3][lanes], zeros behind the last output.
template <class T>
void pack(const ConvProblem& p, const Parameters&, const WeightView& view, void* packed, int threads) {
  constexpr int lanes = Vec<T>::lanes;
  const std::int64_t group = p.c / p.groups, blocks = ceil_div(p.o, lanes);
  auto member = [&](int index, int size) {
    const Share mine = share(blocks, index, size);
    for (std::int64_t block = mine.begin; block < mine.end; ++block) {
      T* out = static_cast<T*>(packed) + block * group * 9 * lanes;
      for (int l = 0; l < lanes; ++l) {
        const std::int64_t o = block * lanes + l;
        const T* w = static_cast<const T*>(view.data) + o / group * view.stride_group + o % group * view.stride_o;
        for (std::int64_t c = 0; c < group; ++c) {
          for (int t = 0; t < 9; ++t) {
            const std::ptrdiff_t at = c * view.stride_c + t / 3 * view.stride_kh + t % 3 * view.stride_kw;
            out[(c * 9 + t) * lanes + l] = o < p.o ? w[at] : T(0);
          }
        }
      }
    }
  };
  team(static_cast<int>(smaller<std::int64_t>(threads, 1 + (packed_elements<T>(p) >> 15))), member);
}

// A member's copy of the rows under the last, partial vector of channels.
template <class T, class Cut>
CONVKIT_INLINE T* carve(const ConvProblem& p, const Parameters& parameters, Cut& cut) {
  if (p.c % Vec<T>::lanes == 0) return nullptr;
  return cut.template take<T>(input_rows(p, row_groups<T>(p, parameters).most), p.w * Vec<T>::lanes);
}

template <class T>
std::int64_t workspace_bytes(const ConvProblem& p, const Parameters& parameters, const Machine&, int threads) {
  return members_workspace([&](auto& cut) { return carve<T>(p, parameters, cut); }, threads,
                           p.packed ? 0 : packed_elements<T>(p) * static_cast<std::int64_t>(sizeof(T)));
}

// --- run --------------------------------------------------------------------------------------------------------------

// One group of rows and `blocks` vectors of outputs.
template <class T>
void run_columns(const ConvProblem& p, const Rows& rows, std::int64_t blocks, const GroupsIn<T>& in,
                 const SlideOut<T>& out) {
  const bool whole = rows.begin == 0 && rows.end == input_rows(p, rows.rows);
  const auto slide = slides<T>.of[p.stride_h - 1][rows.rows - 1][whole];
  slide_phases(p, in, out, [&](const GroupsIn<T>& from, std::int64_t outputs, const SlideOut<T>& to) {
    slide(blocks, from, outputs, to);
  });
}

template <class T>
void run(const Arguments& args) {
  using V = Vec<T>;
  const ConvProblem& p = *args.problem;
  const T* x = static_cast<const T*>(args.x);
  const Finish<T> finish(args.epilogue);
  const int group = static_cast<int>(p.c / p.groups);
  std::int32_t lane_of[V::lanes * V::lanes];
  for (int c = 0; c < group; ++c) {
    for (int l = 0; l < V::lanes; ++l) lane_of[c * V::lanes + l] = l / group * group + c;
  }
  const RowGroups groups = row_groups<T>(p, *args.parameters);
  const std::int64_t per_image = groups.count(), blocks = ceil_div(p.o, V::lanes), whole_blocks = p.o / V::lanes;
  const auto work = [&](const T* packed, T* copy, int index, int size) {
    const Grid grid = make_grid(p.n * per_image, blocks, size);
    const Share items = share(p.n * per_image, index / grid.columns, grid.rows);
    const Share mine = share(blocks, index % grid.columns, grid.columns);
    for (std::int64_t item = items.begin; item < items.end; ++item) {
      const Rows rows(p, groups, item, per_image);
      const std::int64_t above = rows.image * p.h + rows.input;
      const std::ptrdiff_t at = (rows.image * p.oh + rows.first) * p.ow * p.o;
      const auto run = [&](std::int64_t begin, std::int64_t end, const T* source, std::ptrdiff_t row,
                           std::ptrdiff_t column, int valid) {
        const std::int64_t o = begin * V::lanes;
        alignas(64) T bias[V::lanes];
        const bool ready = finish.bias && valid == V::lanes;
        if (!ready) V::store(bias, finish.bias ? V::load(finish.bias + o, valid) : V::zero());
        const GroupsIn<T> in{source,
                             row,
                             column,
                             static_cast<int>(rows.begin),
                             static_cast<int>(rows.end),
                             0,
                             0,
                             packed + o * group * 9,
                             ready ? finish.bias + o : bias,
                             ready ? V::lanes : 0,
                             group,
                             lane_of};
        const SlideOut<T> out{static_cast<T*>(args.y) + at + o,
                              finish.residual ? finish.residual + at + o : nullptr,
                              groups.dilation * p.ow * p.o,
                              p.o,
                              finish.lo,
                              finish.hi,
                              finish.clamp,
                              valid};
        run_columns<T>(p, rows, end - begin, in, out);
        if (!finish.after) return;
        const std::int64_t count = smaller(end * V::lanes, p.o) - o;
        for (int r = 0; r < rows.rows; ++r) activate_rows(out.y + r * out.row, p.ow, p.o, count, *finish.after);
      };
      if (mine.begin < whole_blocks) {
        run(mine.begin, smaller(whole_blocks, mine.end), x + above * p.w * p.c + mine.begin * V::lanes,
            rows.step * p.w * p.c, p.c, V::lanes);
      }
      if (mine.end > whole_blocks) {
        const std::int64_t c = whole_blocks * V::lanes;
        const int valid = static_cast<int>(p.c - c);
        for (std::int64_t i = rows.begin; i < rows.end; ++i) {
          const T* from = x + (above + i * rows.step) * p.w * p.c + c;
          for (std::int64_t j = 0; j < p.w; ++j)
            V::store(copy + (i * p.w + j) * V::lanes, V::load(from + j * p.c, valid));
        }
        run(whole_blocks, blocks, copy, p.w * V::lanes, V::lanes, valid);
      }
    }
  };
  run_members<T>(
      args, worthwhile_threads(p, args.threads, 5e5), pack<T>,
      [&](auto& cut) { return carve<T>(p, *args.parameters, cut); }, [](const T* packed) { return packed; }, work);
}

// --- inventory --------------------------------------------------------------------------------------------------------

template <class T>
int candidates(const ConvProblem&, const Machine&, int, Parameters* out, int capacity) {
  int count = 0;
  for (int rows = most_rows<T>; rows >= 2 && count < capacity; rows /= 2) out[count++] = {{rows}};
  return count;
}

template <class T>
void cost(const ConvProblem& p, const Parameters& parameters, const Machine&, int threads, Cost* out) {
  const RowGroups groups = row_groups<T>(p, parameters);
  const double vectors = static_cast<double>(p.n * p.oh * p.ow) * static_cast<double>(ceil_div(p.o, Vec<T>::lanes));
  const double permutes = static_cast<double>(p.c / p.groups * p.stride_h * p.stride_w);
  *out = {};
  out->fmas = vectors * Vec<T>::lanes * static_cast<double>(p.c / p.groups * 9);
  out->efficiency = Vec<T>::fused ? 0.8 : 0.4;
  out->vector_ops = vectors * (1 + permutes);
  out->bytes_dram = tensor_bytes(p, sizeof(T));
  out->imbalance =
      grid_imbalance(p.n * groups.count(), ceil_div(p.o, Vec<T>::lanes), worthwhile_threads(p, threads, 5e5));
}

template <class T>
constexpr Kernel entry(const char* name) {
  return kernel_of<T>("grouped", name, Op::forward, layout_nhwc, 1,
                      {schema, applies<T>, candidates<T>, cost<T>, workspace_bytes<T>, run<T>}, {packing<T>, pack<T>});
}

constexpr Kernel kernels[] = {
    entry<float>("f32_grouped_nhwc__" CONVKIT_ISA_NAME),
    entry<double>("f64_grouped_nhwc__" CONVKIT_ISA_NAME),
};

}  // namespace

extern const KernelTable grouped_nhwc_table;
constexpr KernelTable grouped_nhwc_table = {kernels, sizeof kernels / sizeof kernels[0]};

}  // namespace convkit::CONVKIT_ISA
