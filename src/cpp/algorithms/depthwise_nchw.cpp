// Depthwise convolution, NCHW: lanes on the pixels of a row, a window that slides down a strip of one plane.
//
// A strip is a few vectors wide. Where the window stays inside the image, strips of stride 1 are read as they are; others
// are first copied to a block in L1 that holds the padding as zeros, with stride S as S blocks of every S-th pixel, so
// that all loads of the window are whole vectors of neighbours. Images narrower than half a vector share vectors: several
// planes lie side by side in the block, each lane meets its own plane's filter, and outputs go through L1 on the way out.
#include "algorithms/depthwise.hpp"
#include "microkernels/depthwise.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

constexpr ParameterSpec schema[] = {{"vectors", 1, 4}, {nullptr, 0, 0}};

// --- which kernel -----------------------------------------------------------------------------------------------------

template <class T>
constexpr int most_vectors(int k) {
  const bool many = Vec<T>::registers == 32;
  if (k == 3) return many ? 4 : 2;
  return k == 5 || many ? 2 : 1;
}

template <class T>
using RowSlide = void (*)(const RowsIn<T>&, std::int64_t, const SlideOut<T>&);

// [filter 3, 5, 7][stride][vectors]
template <class T>
struct RowSlides {
  RowSlide<T> of[3][2][4];
};

template <class T, int K, int NV>
constexpr void fill(RowSlides<T>& table) {
  if constexpr (NV > 0) {
    table.of[K / 2 - 1][0][NV - 1] = slide_rows<T, K, 1, NV>;
    table.of[K / 2 - 1][1][NV - 1] = slide_rows<T, K, 2, NV>;
    fill<T, K, NV - 1>(table);
  }
}

template <class T>
constexpr RowSlides<T> make_slides() {
  RowSlides<T> table{};
  fill<T, 3, most_vectors<T>(3)>(table);
  fill<T, 5, most_vectors<T>(5)>(table);
  fill<T, 7, most_vectors<T>(7)>(table);
  return table;
}

template <class T>
constexpr RowSlides<T> slides = make_slides<T>();

// --- geometry ---------------------------------------------------------------------------------------------------------

template <class T>
struct Geometry {
  static constexpr int lanes = Vec<T>::lanes;
  std::int64_t stride;        // along rows
  std::int64_t reach;         // lanes beyond a strip's outputs that its window meets
  int vectors;                // of the widest strip
  RowSplit strips;            // of a row of outputs
  std::int64_t block, pitch;  // one phase of a copied row, all of them
  int planes;                 // that share a vector, `slot` lanes apart
  std::int64_t slot;
  RowGroups groups;

  Geometry(const ConvProblem& p, const Parameters& parameters) {
    stride = p.stride_w;
    reach = (p.kw - 1) * p.dilation_w / stride;
    const int most = slides_over(p) ? most_vectors<T>(static_cast<int>(p.kh)) : 2;
    strips = split_rows(ceil_div(p.ow, lanes), smaller<int>(parameters.value[0], most));
    vectors = strips.rows + (strips.big ? 1 : 0);
    block = round_up(vectors * lanes + reach, lanes) + lanes;
    pitch = block * stride;
    planes = 1;
    slot = stride == 1 ? larger(larger(p.pad_left, p.pad_right) + p.w, p.ow)
                       : larger(p.ow + reach, (p.w - 1 + p.pad_left) / stride + 1);
    if (stride <= 2 && slides_over(p) && p.ow + slot <= lanes) {
      planes = static_cast<int>(smaller<std::int64_t>((lanes - p.ow) / slot + 1, p.o));
    }
    // A strip's rows should stay in L1 while the window slides down.
    const std::int64_t bytes = pitch * stride * static_cast<std::int64_t>(sizeof(T));
    const int rows = static_cast<int>(larger<std::int64_t>(20480 / bytes, 8));
    groups = slides_over(p) ? RowGroups{p.oh, stride == 1 ? p.dilation_h : 1, rows} : RowGroups{p.oh, 1, 1};
  }

  std::int64_t copied_rows(const ConvProblem& p) const { return input_rows(p, groups.most); }
};

template <class T>
struct Workspace {
  std::ptrdiff_t* offset;  // [KW]: of the filter's columns in a copied row
  T* rows;                 // one member's copied rows
  T* stage;                // outputs of planes that share vectors
  std::int64_t rows_size, stage_size, bytes;
};

template <class T>
Workspace<T> carve(const ConvProblem& p, const Parameters& parameters, int threads, void* base) {
  const Geometry<T> g(p, parameters);
  Carver carver{static_cast<char*>(base)};
  Workspace<T> w{};
  w.rows_size = g.copied_rows(p) * g.pitch;
  w.stage_size = g.planes > 1 ? static_cast<std::int64_t>(g.groups.most) * Vec<T>::lanes : 0;
  w.offset = carver.take<std::ptrdiff_t>(p.kw);
  w.rows = carver.take<T>(w.rows_size * threads);
  w.stage = carver.take<T>(w.stage_size * threads);
  w.bytes = carver.used;
  return w;
}

template <class T>
std::int64_t workspace_bytes(const ConvProblem& p, const Parameters& parameters, int threads) {
  return carve<T>(p, parameters, threads, nullptr).bytes;
}

// --- copies -----------------------------------------------------------------------------------------------------------

template <class T>
CONVKIT_INLINE void clear(T* p, std::int64_t begin, std::int64_t end) {
  for (std::int64_t i = begin; i < end; i += Vec<T>::lanes) Vec<T>::store(p + i, Vec<T>::zero());
}

// Copies what a strip from output o on needs of a row into blocks: element i < width of block f is padded pixel
// (o + i) * stride + f. Writes up to a vector of zeros behind that.
template <class T>
void copy_row(const ConvProblem& p, const T* x, std::int64_t o, std::int64_t width, T* to, std::int64_t block) {
  using V = Vec<T>;
  const std::int64_t stride = p.stride_w;
  if (stride == 1) {
    const std::int64_t begin = larger<std::int64_t>(p.pad_left - o, 0);
    const std::int64_t end = smaller(width, p.w + p.pad_left - o);
    const T* from = x + o - p.pad_left;
    clear(to, 0, smaller(begin, width));
    std::int64_t i = begin;
    for (; i + V::lanes <= end; i += V::lanes) V::store(to + i, V::load(from + i));
    if (i < end) {
      V::store(to + i, V::load(from + i, static_cast<int>(end - i)));
      i += V::lanes;
    }
    return clear(to, i, width);
  }
  if (stride == 2) {
    std::int64_t i = larger<std::int64_t>(p.pad_left - 2 * o, 0) / 2, j = (o + i) * 2 - p.pad_left;
    clear(to, 0, smaller(i + 1, width));
    clear(to + block, 0, smaller(i + 1, width));
    if (j < 0) {
      to[block + i] = x[0];
      ++i;
      j += 2;
    }
    for (; i < width && j < p.w; i += V::lanes, j += 2 * V::lanes) {
      const std::int64_t left = p.w - j;
      const auto a = left >= V::lanes ? V::load(x + j) : V::load(x + j, static_cast<int>(left));
      const auto b = left >= 2 * V::lanes ? V::load(x + j + V::lanes)
                     : left > V::lanes    ? V::load(x + j + V::lanes, static_cast<int>(left - V::lanes))
                                          : V::zero();
      V::store(to + i, V::even(a, b));
      V::store(to + block + i, V::odd(a, b));
    }
    clear(to, i, width);
    return clear(to + block, i, width);
  }
  for (std::int64_t f = 0; f < stride; ++f) {
    for (std::int64_t i = 0; i < width; ++i) {
      const std::int64_t j = (o + i) * stride + f - p.pad_left;
      to[f * block + i] = j >= 0 && j < p.w ? x[j] : T(0);
    }
  }
}

// --- windows that do not slide ----------------------------------------------------------------------------------------

// One output row, NV vectors: `rows` filter rows exist, from w on.
template <class T, int NV>
void any_rows(const T* x, std::ptrdiff_t row, std::int64_t rows, std::int64_t taps, const T* w,
              const std::ptrdiff_t* offset, T bias, const SlideOut<T>& out) {
  using V = Vec<T>;
  typename V::Reg a[NV];
  CONVKIT_UNROLL
  for (int v = 0; v < NV; ++v) a[v] = V::set1(bias);
  for (std::int64_t ky = 0; ky < rows; ++ky) {
    for (std::int64_t kx = 0; kx < taps; ++kx) {
      const T* p = x + ky * row + offset[kx];
      const auto tap = V::broadcast(w + ky * taps + kx);
      CONVKIT_UNROLL
      for (int v = 0; v < NV; ++v) a[v] = V::load(p + v * V::lanes) * tap + a[v];
    }
  }
  finish<T, NV, true>(a, out, 0, V::lanes);
}

// --- run --------------------------------------------------------------------------------------------------------------

// Filter taps and biases as vectors: `planes` planes from output o on, `slot` lanes each.
template <class T>
CONVKIT_INLINE void spread_filters(const ConvProblem& p, const T* w, const T* bias, std::int64_t o, int planes,
                                   std::int64_t slot, T* taps_out, T* bias_out) {
  using V = Vec<T>;
  const std::int64_t taps = p.kh * p.kw;
  for (std::int64_t t = 0; t < taps; ++t) V::store(taps_out + t * V::lanes, V::broadcast(w + o * taps + t));
  V::store(bias_out, bias ? V::broadcast(bias + o) : V::zero());
  if (planes == 1) return;
  alignas(64) T number[V::lanes];
  for (int l = 0; l < V::lanes; ++l) number[l] = static_cast<T>(l / slot);
  const auto plane_of_lane = V::load(number);
  for (int s = 1; s < planes; ++s) {
    const auto later = plane_of_lane >= V::set1(static_cast<T>(s));
    const T* filter = w + (o + s) * taps;
    for (std::int64_t t = 0; t < taps; ++t) {
      V::store(taps_out + t * V::lanes, later ? V::broadcast(filter + t) : V::load(taps_out + t * V::lanes));
    }
    if (bias) V::store(bias_out, later ? V::broadcast(bias + o + s) : V::load(bias_out));
  }
}

// What one member works with.
template <class T>
struct Member {
  using V = Vec<T>;
  const ConvProblem& p;
  const Geometry<T>& g;
  const Finish<T>& finish;
  const T *x, *w;
  T *y, *copy, *stage;
  const std::ptrdiff_t* offset;
  std::int64_t multiplier;

  CONVKIT_INLINE const T* plane(std::int64_t image, std::int64_t o) const {
    return x + (image * p.c + o / multiplier) * p.h * p.w;
  }

  CONVKIT_INLINE SlideOut<T> out_of(std::int64_t image, std::int64_t o, const Rows& rows) const {
    const std::ptrdiff_t at = ((image * p.o + o) * p.oh + rows.first) * p.ow;
    return {y + at,
            finish.residual ? finish.residual + at : nullptr,
            g.groups.dilation * p.ow,
            1,
            finish.lo,
            finish.hi,
            finish.clamp,
            V::lanes};
  }

  // One plane, strip by strip.
  void run_plane(const Rows& rows, std::int64_t o) const {
    const std::int64_t image = rows.image, taps = p.kh * p.kw;
    const T* const source = plane(image, o) + (rows.input + rows.begin * rows.step) * p.w;
    const std::int64_t exist = rows.end - rows.begin;
    alignas(64) T filter[49 * V::lanes], bias[V::lanes];
    const bool sliding = slides_over(p);
    if (sliding) spread_filters(p, w, finish.bias, o, 1, 0, filter, bias);
    const SlideOut<T> out = out_of(image, o, rows);
    std::ptrdiff_t straight[7];
    for (int kx = 0; sliding && kx < p.kw; ++kx) straight[kx] = kx * p.dilation_w;
    const std::int64_t strips = g.strips.big + g.strips.small;
    for (std::int64_t strip = 0, begin = 0; strip < strips; ++strip) {
      const int vectors = g.strips.rows + (strip < g.strips.big ? 1 : 0);
      const std::int64_t width = vectors * V::lanes + g.reach, left = begin - p.pad_left;
      const bool inside = sliding && g.stride == 1 && left >= 0 && left + width <= p.w;
      if (!inside) {
        for (std::int64_t i = 0; i < exist; ++i) {
          copy_row(p, source + i * rows.step * p.w, begin, width, copy + i * g.pitch, g.block);
        }
      }
      SlideOut<T> part = out;
      part.y += begin;
      if (part.residual) part.residual += begin;
      part.valid = static_cast<int>(smaller<std::int64_t>(p.ow - begin - (vectors - 1) * V::lanes, V::lanes));
      if (sliding) {
        const RowsIn<T> in{inside ? source + left : copy,
                           inside ? rows.step * p.w : g.pitch,
                           inside ? straight : offset,
                           rows.begin,
                           exist,
                           filter,
                           bias};
        slides<T>.of[p.kh / 2 - 1][p.stride_h - 1][vectors - 1](in, rows.rows, part);
      } else {
        const T start = finish.bias ? finish.bias[o] : T(0);
        (vectors == 2 ? any_rows<T, 2> : any_rows<T, 1>)(copy, g.pitch, exist, p.kw, w + o * taps + rows.begin * p.kw,
                                                         offset, start, part);
      }
      begin += vectors * V::lanes;
    }
  }

  // Planes o, o + 1, ... of one image in one vector.
  void run_planes(const Rows& rows, std::int64_t o) const {
    const int planes = static_cast<int>(smaller<std::int64_t>(g.planes, p.o - o));
    const std::int64_t exist = rows.end - rows.begin;
    alignas(64) T filter[49 * V::lanes], bias[V::lanes];
    spread_filters(p, w, finish.bias, o, planes, g.slot, filter, bias);
    for (int s = 0; s < planes; ++s) {
      const T* from = plane(rows.image, o + s) + (rows.input + rows.begin * rows.step) * p.w;
      for (std::int64_t i = 0; i < exist; ++i) {
        copy_row(p, from + i * rows.step * p.w, 0, p.ow + g.reach, copy + i * g.pitch + s * g.slot, g.block);
      }
    }
    const RowsIn<T> in{copy, g.pitch, offset, rows.begin, exist, filter, bias};
    const SlideOut<T> staged{stage,   nullptr, V::lanes, 1, finish.lo, finish.hi, finish.clamp && !finish.residual,
                             V::lanes};
    slides<T>.of[p.kh / 2 - 1][p.stride_h - 1][0](in, rows.rows, staged);
    for (int s = 0; s < planes; ++s) {
      SlideOut<T> out = out_of(rows.image, o + s, rows);
      out.valid = static_cast<int>(p.ow);
      out.clamp = finish.clamp && finish.residual;
      for (int r = 0; r < rows.rows; ++r) {
        const typename V::Reg v[1] = {V::load(stage + r * V::lanes + s * g.slot, out.valid)};
        convkit::CONVKIT_ISA::finish<T, 1, true>(v, out, r * out.row, 0);
      }
    }
  }
};

template <class T>
void run(const Arguments& args) {
  const ConvProblem& p = *args.problem;
  const Geometry<T> g(p, *args.parameters);
  const Workspace<T> workspace = carve<T>(p, *args.parameters, args.threads, args.workspace);
  for (std::int64_t kx = 0; kx < p.kw; ++kx) {
    const std::int64_t pixel = kx * p.dilation_w;
    workspace.offset[kx] = pixel % g.stride * g.block + pixel / g.stride;
  }
  const Finish<T> finish(args.epilogue);
  const std::int64_t groups = g.groups.count(), sets = ceil_div(p.o, g.planes);
  auto member = [&](int index, int size) {
    const Member<T> self{p,
                         g,
                         finish,
                         static_cast<const T*>(args.x),
                         static_cast<const T*>(args.w.data),
                         static_cast<T*>(args.y),
                         workspace.rows + index * workspace.rows_size,
                         workspace.stage + index * workspace.stage_size,
                         workspace.offset,
                         p.o / p.c};
    // Lanes between planes are computed too; what they hold must not be denormal.
    if (g.planes > 1) clear(self.copy, 0, workspace.rows_size);
    const Share mine = share(p.n * sets * groups, index, size);
    for (std::int64_t item = mine.begin; item < mine.end; ++item) {
      // Row groups innermost: item = (image * sets + set) * groups + group.
      const std::int64_t set = item / groups % sets, image = item / (groups * sets);
      const Rows rows(p, g.groups, image * groups + item % groups, groups);
      const std::int64_t o = set * g.planes;
      if (g.planes > 1) {
        self.run_planes(rows, o);
      } else {
        self.run_plane(rows, o);
      }
      if (!finish.after) continue;
      for (std::int64_t s = o; s < smaller(o + g.planes, p.o); ++s) {
        const SlideOut<T> out = self.out_of(image, s, rows);
        activate_rows(out.y, rows.rows, out.row, p.ow, *finish.after);
      }
    }
  };
  team(team_size(p, args.threads), member);
}

// --- inventory --------------------------------------------------------------------------------------------------------

template <class T>
int candidates(const ConvProblem& p, const Machine&, int, Parameters* out, int capacity) {
  const int most = slides_over(p) ? most_vectors<T>(static_cast<int>(p.kh)) : 2;
  const int widest = static_cast<int>(smaller<std::int64_t>(ceil_div(p.ow, Vec<T>::lanes), most));
  int count = 0;
  for (int vectors = widest; vectors > 0 && count < capacity; vectors /= 2) out[count++] = {{vectors}};
  return count;
}

template <class T>
void cost(const ConvProblem& p, const Parameters& parameters, const Machine&, int threads, Cost* out) {
  const Geometry<T> g(p, parameters);
  const double sets = static_cast<double>(p.n * ceil_div(p.o, g.planes));
  const double vectors = sets * static_cast<double>(p.oh * ceil_div(p.ow, Vec<T>::lanes));
  *out = {};
  out->fmas = vectors * Vec<T>::lanes * static_cast<double>(p.kh * p.kw);
  out->efficiency = slides_over(p) ? 0.8 : 0.5;
  out->vector_ops = vectors * static_cast<double>(2 * p.stride_h * p.stride_w);
  out->bytes_dram = tensor_bytes(p, sizeof(T));
  out->imbalance = grid_imbalance(p.n * ceil_div(p.o, g.planes) * g.groups.count(), 1, team_size(p, threads));
}

template <class T>
constexpr Kernel entry(const char* name) {
  return {"depthwise",      name,        Isa::CONVKIT_ISA,   Op::forward,   dtype_of<T>,
          dtype_of<T>,      dtype_of<T>, dtype_of<T>,        layout_nchw,   1,
          direct_summation, schema,      depthwise_applies,  candidates<T>, cost<T>,
          no_packing,       nullptr,     workspace_bytes<T>, run<T>};
}

constexpr Kernel kernels[] = {
    entry<float>("f32_depthwise_nchw__" CONVKIT_ISA_NAME),
    entry<double>("f64_depthwise_nchw__" CONVKIT_ISA_NAME),
};

}  // namespace

extern const KernelTable depthwise_nchw_table;
constexpr KernelTable depthwise_nchw_table = {kernels, sizeof kernels / sizeof kernels[0]};

}  // namespace convkit::CONVKIT_ISA
