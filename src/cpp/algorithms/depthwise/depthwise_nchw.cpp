// Depthwise convolution, NCHW: lanes on the pixels of a row, a window that slides down a span of one plane: a few vectors of
// neighbouring outputs.
//
// With masks the span is read where it is, lanes outside the image masked off; two planes share a vector where an output
// row fills half of one at most. Without masks, and for windows that do not slide, a span is first copied to a block in
// L1 that holds the padding as zeros, with stride S as S blocks of every S-th pixel, so that all loads of the window are
// whole vectors of neighbours; spans inside the image are read as they are if the stride is 1.
#include "algorithms/adjoint.hpp"
#include "algorithms/depthwise/depthwise.hpp"
#include "algorithms/planar_rows.hpp"
#include "microkernels/depthwise_rows.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

constexpr ParameterSpec schema[] = {{"vectors", 1, 4}, {nullptr, 0, 0}};

// --- which kernel -----------------------------------------------------------------------------------------------------

template <class T>
constexpr int most_vectors(int k) {
  const bool many = many_registers<T>;
  if (k == 3) return many ? 4 : 2;
  return k == 5 || many ? 2 : 1;
}

template <class T>
using RowSlide = void (*)(const Planes&, const RowsIn<T>&, std::int64_t, const SlideOut<T>&, std::ptrdiff_t);

// [filter 3, 5, 7][stride][vectors], and for pairs of planes.
template <class T>
struct RowSlides {
  RowSlide<T> span[3][2][4];
  RowSlide<T> pair[3][2];
};

template <class T, int K, int NV>
constexpr void fill(RowSlides<T>& table) {
  constexpr Pixels from = Vec<T>::masks ? Pixels::masked : Pixels::blocks;
  if constexpr (NV > 0) {
    table.span[K / 2 - 1][0][NV - 1] = slide_rows<T, K, 1, NV, from>;
    table.span[K / 2 - 1][1][NV - 1] = slide_rows<T, K, 2, NV, from>;
    fill<T, K, NV - 1>(table);
  } else if constexpr (Vec<T>::masks) {
    table.pair[K / 2 - 1][0] = slide_rows<T, K, 1, 1, Pixels::paired>;
    table.pair[K / 2 - 1][1] = slide_rows<T, K, 2, 1, Pixels::paired>;
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

// Spans are copied unless the kernel masks.
template <class T>
CONVKIT_INLINE bool copies(const ConvProblem& p) {
  return !Vec<T>::masks || !slides_over(p);
}

template <class T>
struct Geometry {
  static constexpr int lanes = Vec<T>::lanes;
  std::int64_t stride;        // along rows
  std::int64_t reach;         // lanes beyond a span's outputs that its window meets
  RowSplit spans;             // of a row of outputs
  std::int64_t block, pitch;  // one phase of a copied row, all of them
  int planes;                 // that share a vector
  RowGroups groups;

  Geometry(const ConvProblem& p, const Parameters& parameters) {
    stride = p.stride_w;
    reach = (p.kw - 1) * p.dilation_w / stride;
    const bool sliding = slides_over(p);
    const int most = sliding ? most_vectors<T>(static_cast<int>(p.kh)) : 2;
    spans = split_rows(ceil_div(p.ow, lanes), smaller<int>(parameters.value[0], most));
    block = round_up((spans.rows + (spans.big ? 1 : 0)) * lanes + reach, lanes) + lanes;
    pitch = block * stride;
    planes = Vec<T>::masks && sliding && p.ow <= lanes / 2 ? 2 : 1;
    // A span's rows should stay in L1 while the window slides down.
    const std::int64_t bytes = bounded_product(pitch, stride, static_cast<std::int64_t>(sizeof(T)));
    const int rows = copies<T>(p) ? static_cast<int>(larger<std::int64_t>(20480 / bytes, 8)) : 64;
    groups = sliding ? RowGroups{p.oh, stride == 1 ? p.dilation_h : 1, rows} : RowGroups{p.oh, 1, 1};
  }
};

// Of a member that copies; null otherwise.
template <class T>
struct Scratch {
  std::ptrdiff_t* offset;  // [KW]: of the filter's columns in a copied row
  T* rows;
};

template <class T, class Cut>
CONVKIT_INLINE Scratch<T> carve(const ConvProblem& p, const Geometry<T>& g, Cut& cut) {
  if (!copies<T>(p)) return {};
  std::ptrdiff_t* const offset = cut.template take<std::ptrdiff_t>(p.kw);
  return {offset, cut.template take<T>(input_rows(p, g.groups.most), g.pitch)};
}

template <class T>
std::int64_t workspace_bytes(const ConvProblem& p, const Parameters& parameters, const Machine&, int threads) {
  const Geometry<T> g(p, parameters);
  return members_workspace([&](auto& cut) { return carve(p, g, cut); }, threads, 0);
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

// What one member works with.
template <class T>
struct Member {
  using V = Vec<T>;
  const ConvProblem& p;
  const Geometry<T>& g;
  const Finish<T>& finish;
  const T *x, *w;
  T *y, *copy;
  const std::ptrdiff_t* offset;
  std::int64_t multiplier;
  std::ptrdiff_t ahead;

  CONVKIT_INLINE std::ptrdiff_t plane(std::int64_t image, std::int64_t o) const {
    return (image * p.c + o / multiplier) * p.h * p.w;
  }

  CONVKIT_INLINE SlideOut<T> out_of(std::int64_t image, std::int64_t o, const Rows& rows) const {
    const std::ptrdiff_t at = ((image * p.o + o) * p.oh + rows.first) * p.ow;
    const T* residual = finish.residual ? finish.residual + at : nullptr;
    return {y + at, residual, g.groups.dilation * p.ow, 1, finish.lo, finish.hi, finish.clamp, V::lanes};
  }

  // `count` planes from output o on, span by span.
  void run_planes(const Rows& rows, std::int64_t o, std::int64_t count) const {
    const T zero = 0;
    const T* const source = x + plane(rows.image, o) + (rows.input + rows.begin * rows.step) * p.w;
    const T* const bias = finish.bias ? finish.bias + o : &zero;
    const T* const filter = w + o * p.kh * p.kw;
    const Planes planes{count, p.h * p.w, p.kh * p.kw, finish.bias ? 1 : 0, p.oh * p.ow};
    const bool sliding = slides_over(p), copying = copies<T>(p);
    const std::ptrdiff_t row = rows.step * p.w;
    const std::int64_t exist = rows.end - rows.begin;
    SlideOut<T> out = out_of(rows.image, o, rows);
    std::ptrdiff_t straight[7] = {};
    for (int kx = 0; sliding && kx < p.kw; ++kx) straight[kx] = kx * p.dilation_w;
    const std::int64_t spans = g.spans.big + g.spans.small;
    for (std::int64_t span = 0, begin = 0; span < spans; ++span) {
      const int vectors = g.spans.rows + (span < g.spans.big ? 1 : 0);
      const std::int64_t width = vectors * V::lanes + g.reach, left = begin * g.stride - p.pad_left;
      const bool inside = sliding && g.stride == 1 && left >= 0 && left + width <= p.w;
      out.valid = static_cast<int>(smaller<std::int64_t>(p.ow - begin - (vectors - 1) * V::lanes, V::lanes));
      if (copying && !inside) PlanarRows<T>{source, copy, exist, row, g.pitch, g.block}.strip(p, begin, width);
      if (sliding) {
        RowsIn<T> in{source, row, straight, 0, left, p.w, p.dilation_w, rows.begin, exist, filter, bias, ahead};
        if (copying && inside) in.x = source + left;
        if (copying && !inside) {
          in.x = copy;
          in.row = g.pitch;
          in.offset = offset;
        }
        slides<T>.span[p.kh / 2 - 1][p.stride_h - 1][vectors - 1](planes, in, rows.rows, out, 0);
      } else {
        const auto any = vectors == 2 ? any_rows<T, 2> : any_rows<T, 1>;
        any(copy, g.pitch, exist, p.kw, filter + rows.begin * p.kw, offset, *bias, out);
      }
      begin += vectors * V::lanes;
      out.y += vectors * V::lanes;
      if (out.residual) out.residual += vectors * V::lanes;
    }
  }

  // `pairs` pairs of planes from output o on, half a vector for each plane.
  void run_pairs(const Rows& rows, std::int64_t o, std::int64_t pairs) const {
    const T zeros[2] = {0, 0};
    const std::ptrdiff_t at = plane(rows.image, o), size = p.h * p.w;
    const Planes planes{pairs, 2 * size, 2 * p.kh * p.kw, finish.bias ? 2 : 0, 2 * p.oh * p.ow};
    const RowsIn<T> in{x + at + (rows.input + rows.begin * rows.step) * p.w,
                       rows.step * p.w,
                       nullptr,
                       plane(rows.image, o + 1) - at,
                       -p.pad_left,
                       p.w,
                       p.dilation_w,
                       rows.begin,
                       rows.end - rows.begin,
                       w + o * p.kh * p.kw,
                       finish.bias ? finish.bias + o : zeros,
                       ahead};
    SlideOut<T> out = out_of(rows.image, o, rows);
    out.valid = static_cast<int>(p.ow);
    slides<T>.pair[p.kh / 2 - 1][p.stride_h - 1](planes, in, rows.rows, out, p.oh * p.ow);
  }

  // Planes [begin, end), as many at once as stay in L1 from span to span.
  void run(const Rows& rows, std::int64_t begin, std::int64_t end) const {
    const bool together = multiplier == 1 && !finish.after;
    const std::int64_t spans = g.spans.big + g.spans.small;
    for (std::int64_t o = begin; o < end;) {
      const std::int64_t left = end - o;
      std::int64_t done = 1;
      if (g.planes == 2 && left > 1) {
        done = together ? left / 2 * 2 : 2;
        run_pairs(rows, o, done / 2);
      } else {
        if (together && !copies<T>(p) && spans == 1) done = left;
        run_planes(rows, o, done);
      }
      for (std::int64_t s = o; finish.after && s < o + done; ++s) {
        const SlideOut<T> out = out_of(rows.image, s, rows);
        activate_rows(out.y, rows.rows, out.row, p.ow, *finish.after);
      }
      o += done;
    }
  }
};

template <class T>
void run(const Arguments& args) {
  const ConvProblem& p = *args.problem;
  const Geometry<T> g(p, *args.parameters);
  const Finish<T> finish(args.epilogue);
  const std::int64_t groups = g.groups.count(), sets = ceil_div(p.o, g.planes);
  const bool large = !copies<T>(p) && tensor_bytes(p, sizeof(T)) / args.threads > static_cast<double>(args.machine->l2);
  const std::int64_t row = p.w * (g.stride == 1 ? p.dilation_h : 1),
                     distance = 4096 / static_cast<std::int64_t>(sizeof(T));
  const std::ptrdiff_t ahead = large ? round_up(distance, row) : 0;
  const auto work = [&](const Scratch<T>& scratch, int index, int size) {
    for (std::int64_t kx = 0; scratch.offset && kx < p.kw; ++kx) {
      const std::int64_t pixel = kx * p.dilation_w;
      scratch.offset[kx] = pixel % g.stride * g.block + pixel / g.stride;
    }
    const Member<T> self{p,
                         g,
                         finish,
                         static_cast<const T*>(args.x),
                         static_cast<const T*>(args.w.data),
                         static_cast<T*>(args.y),
                         scratch.rows,
                         scratch.offset,
                         p.o / p.c,
                         ahead};
    const Share mine = share(p.n * groups * sets, index, size);
    for (std::int64_t item = mine.begin; item < mine.end;) {
      const Rows rows(p, g.groups, item / sets, groups);
      const std::int64_t first = item % sets, last = smaller(sets, first + mine.end - item);
      item += last - first;
      self.run(rows, first * g.planes, smaller(last * g.planes, p.o));
    }
  };
  run_in_areas(
      static_cast<char*>(args.workspace), team_size(p, args.threads), [&](auto& cut) { return carve(p, g, cut); },
      work);
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
  return kernel_of<T>("depthwise", name, Op::forward, layout_nchw, 2,
                      {schema, depthwise_applies, candidates<T>, cost<T>, workspace_bytes<T>, run<T>});
}

constexpr Kernel kernels[] = {
    entry<float>("f32_depthwise_nchw__" CONVKIT_ISA_NAME),
    entry<double>("f64_depthwise_nchw__" CONVKIT_ISA_NAME),
};

}  // namespace

extern const KernelTable depthwise_nchw_table;
constexpr KernelTable depthwise_nchw_table = WithAdjoints<kernels>::table;

}  // namespace convkit::CONVKIT_ISA
