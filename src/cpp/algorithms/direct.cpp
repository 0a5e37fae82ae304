// Direct convolution without im2col: tiles of pixels with lanes on outputs gather their inputs through pointers.
//
// NHWC reads x in place. A tile's input is a list of runs: a pointer a pixel for each filter tap (channels are contiguous),
// or for each filter row where no pixel of the tile touches the left or right padding (then KW*C values are contiguous).
// Runs whose pixels all lie in the padding are skipped; single padded pixels read a row of zeros.
//
// NCHW first transposes the input rows of a block of output rows into a padded NHWC strip in L2, computes as above into an
// L1 scratch of one panel, and transposes that back on the way to y.
//
// Reductions longer than half of L2 for one panel are cut into chunks of whole runs that accumulate through y or scratch.
#include "algorithms/adjoint.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

constexpr ParameterSpec direct_schema[] = {{"block", 1, 1 << 20}, {"chunks", 1, 1 << 20}, {nullptr, 0, 0}};

bool direct_applies(const ConvProblem&) { return true; }

// Input pixels as tiles see them: NHWC in memory; pixels outside h x w are zero.
template <class T>
struct PixelSource {
  std::ptrdiff_t row_stride, pixel_stride;
  std::int64_t h, w;
};

// First input pixel of an output pixel's window; y and x may lie in the padding.
template <class T>
struct Origin {
  const T* image;
  std::int64_t y, x;
};

template <class T>
struct Geometry {
  const ConvProblem& p;
  std::int64_t channels, outputs, taps;
  bool rows_merge;  // taps of a filter row are contiguous in memory
  CONVKIT_INLINE explicit Geometry(const ConvProblem& problem, bool strip)
      : p(problem),
        channels(problem.c / problem.groups),
        outputs(problem.o / problem.groups),
        taps(problem.kh * problem.kw),
        rows_merge(problem.dilation_w == 1 && (strip || problem.groups == 1)) {}
};

// Fills in one tile of `rows` output pixels for the taps [first_tap, last_tap), whole filter rows. Returns the end of the
// runs that it wrote.
template <class T>
CONVKIT_INLINE Run<T>* fill_tile(const Geometry<T>& g, const PixelSource<T>& source, const Origin<T>* origin, int rows,
                                 const T* zeros, std::int64_t first_tap, std::int64_t last_tap, Run<T>* run,
                                 RunTile<T>* tile) {
  const ConvProblem& p = g.p;
  tile->runs = run;
  bool inside = g.rows_merge && p.kw > 1;
  for (int i = 0; inside && i < rows; ++i) inside = origin[i].x >= 0 && origin[i].x + p.kw <= source.w;
  tile->k = inside ? p.kw * g.channels : g.channels;
  const std::int64_t step = inside ? p.kw : 1;
  for (std::int64_t tap = first_tap; tap < last_tap; tap += step) {
    const std::int64_t dy = tap / p.kw * p.dilation_h, dx = inside ? 0 : tap % p.kw * p.dilation_w;
    bool live = false;
    for (int i = 0; i < rows; ++i) {
      const std::int64_t y = origin[i].y + dy, x = origin[i].x + dx;
      const bool exists = static_cast<std::uint64_t>(y) < static_cast<std::uint64_t>(source.h) &&
                          static_cast<std::uint64_t>(x) < static_cast<std::uint64_t>(source.w);
      run->row[i] = exists ? origin[i].image + y * source.row_stride + x * source.pixel_stride : zeros;
      live |= exists;
    }
    run->panel_offset = tap * g.channels;
    run += live;
  }
  tile->count = run - tile->runs;
  return run;
}

// Reduction chunks are whole filter rows, so that runs of a filter row are never cut.
CONVKIT_INLINE std::int64_t chunk_tap(const ConvProblem& p, std::int64_t chunk, std::int64_t chunks) {
  return portion(p.kh, chunk, chunks) * p.kw;
}

template <class T>
std::int64_t default_chunks(const ConvProblem& p, const Machine& machine) {
  const double panel = static_cast<double>((p.c / p.groups) * p.kh * p.kw * TileShape<T>::panel) * sizeof(T);
  const std::int64_t chunks = static_cast<std::int64_t>(panel / (0.6 * static_cast<double>(machine.l2))) + 1;
  return smaller(chunks, p.kh);
}

// The strip of input that a block of output rows needs. A filter of one row (or column) with a stride needs only every
// stride-th input row (or column): then the strip holds no others.
struct Strip {
  std::int64_t step_h, step_w;  // input rows and columns from one row and column of the strip to the next
  std::int64_t walk_h, walk_w;  // rows and columns of the strip from one output pixel to the next
  std::int64_t width;
  std::int64_t pixel, row;  // elements from one pixel and row of the strip to the next
  CONVKIT_INLINE explicit Strip(const ConvProblem& p)
      : step_h(p.kh == 1 ? p.stride_h : 1),
        step_w(p.kw == 1 && p.stride_w == 2 && p.pad_left == 0 && p.pad_right == 0 ? 2 : 1),
        walk_h(p.stride_h / step_h),
        walk_w(p.stride_w / step_w),
        width(step_w == 2 ? p.ow : p.w + p.pad_left + p.pad_right),
        pixel(p.c / p.groups + skew(p)),
        row(width * pixel) {}
  CONVKIT_INLINE std::int64_t rows(const ConvProblem& p, std::int64_t output_rows) const {
    return (output_rows - 1) * walk_h + (p.kh - 1) * p.dilation_h + 1;
  }

 private:
  // The transposes write to many pixels at once: powers of two between them would all fall into one set of L1. Where runs
  // of a filter row are merged, pixels must follow one another.
  CONVKIT_INLINE static std::int64_t skew(const ConvProblem& p) {
    return p.kw == 1 && p.c / p.groups % 256 == 0 ? 16 : 0;
  }
};

// Output rows whose strip of input fills `bytes`.
template <class T>
std::int64_t strip_rows(const ConvProblem& p, std::int64_t bytes) {
  const Strip strip(p);
  const std::int64_t row = strip.row * static_cast<std::int64_t>(sizeof(T));
  const std::int64_t rows = (bytes / larger<std::int64_t>(row, 1) - strip.rows(p, 1)) / strip.walk_h + 1;
  return smaller(larger<std::int64_t>(rows, 1), p.oh);
}

template <class T>
int direct_candidates(const ConvProblem& p, const Machine& machine, int threads, Parameters* out, int capacity) {
  const std::int32_t chunks = within(direct_schema[1], default_chunks<T>(p, machine));
  if (p.layout == Layout::nchw) {
    int count = 0;
    const std::int64_t budgets[] = {machine.l2 / 2, machine.l2 / 4, machine.l2};
    for (const std::int64_t bytes : budgets) {
      std::int64_t rows = strip_rows<T>(p, bytes);
      // Enough blocks for the team, of one size.
      rows = smaller(rows, larger<std::int64_t>(ceil_div(p.oh * p.n, threads), 1));
      const std::int64_t blocks = ceil_div(p.oh, rows);
      const std::int32_t block = within(direct_schema[0], ceil_div(p.oh, blocks));
      if (count < capacity && (count == 0 || out[count - 1].value[0] != block)) out[count++] = {{block, chunks}};
    }
    return count;
  }
  out[0] = {{96, chunks}};
  int count = 1;
  if (count < capacity) out[count++] = {{48, chunks}};
  if (count < capacity) out[count++] = {{192, chunks}};
  if (count < capacity && chunks > 1) out[count++] = {{96, 1}};
  return count;
}

template <class T>
void direct_cost(const ConvProblem& p, const Parameters& parameters, const Machine& machine, int threads, Cost* out) {
  *out = lanes_on_outputs_cost<T>(p);
  const Geometry<T> g(p, p.layout == Layout::nchw);
  const double panels_size = static_cast<double>(panels_bytes<T>(p)), pixels = static_cast<double>(p.n * p.oh * p.ow);
  const double outputs = static_cast<double>(p.groups * Panels<T>{g.outputs}.padded());
  std::int64_t blocks;
  if (p.layout == Layout::nchw) {
    blocks = p.n * ceil_div(p.oh, parameters.value[0]);
    const Strip strip(p);
    const double input = static_cast<double>(blocks) * static_cast<double>(strip.rows(p, parameters.value[0])) *
                         static_cast<double>(strip.width * p.c);
    out->vector_ops += 6.0 * input / Vec<T>::lanes + 6.0 * pixels * outputs / Vec<T>::lanes;
  } else {
    blocks = ceil_div(p.n * p.oh * p.ow, parameters.value[0]);
    const double pointers = g.rows_merge ? static_cast<double>(p.kh) : static_cast<double>(g.taps);
    out->vector_ops += 4.0 * pixels * pointers * static_cast<double>(p.groups);
  }
  // Short runs leave the k loop before it has paid for its pointers.
  const double run = static_cast<double>(g.rows_merge ? g.channels * p.kw : g.channels);
  out->efficiency *= run / (run + 1.5);
  // A strip that serves one tap hardly pays.
  if (p.layout == Layout::nchw && g.taps == 1) out->efficiency *= 0.87;
  if (parameters.value[1] > 1) out->vector_ops += 2.0 * pixels * outputs / Vec<T>::lanes * (parameters.value[1] - 1);
  const double streamed = static_cast<double>(blocks) * panels_size;
  (panels_size > 0.7 * static_cast<double>(machine.l2) ? out->bytes_l3 : out->bytes_l2) += streamed;
  out->imbalance = grid_imbalance(p.layout == Layout::nchw ? blocks : ceil_div(p.n * p.oh * p.ow, 6),
                                  Panels<T>{g.outputs}.count(), threads, Panels<T>{g.outputs}.missing(1));
  add_cold_packing<T>(p, static_cast<double>(panels_bytes<T>(p)), out);
}

// Pieces of the workspace that a member uses; the same code counts and carves.
template <class T>
struct Scratch {
  Run<T>* runs;
  RunTile<T>* tiles;
  T *zeros, *strip, *panel;
};

constexpr std::int64_t scratch_pixels = 96;

template <class T, class Cut>
CONVKIT_INLINE Scratch<T> carve(const ConvProblem& p, const Parameters& parameters, Cut& carver) {
  Scratch<T> s{};
  const bool nchw = p.layout == Layout::nchw;
  const std::int64_t pixels = nchw ? scratch_pixels : parameters.value[0];
  const std::int64_t tiles = pixels / 2 + 2;  // an even split makes no tile of less than two rows but a lone one
  s.runs = carver.template take<Run<T>>(tiles + 1, p.kh * p.kw);
  s.tiles = carver.template take<RunTile<T>>(tiles);
  s.zeros = carver.template take<T>((p.c / p.groups) * p.kw);
  if (nchw) {
    const Strip strip(p);
    s.strip = carver.template take<T>(strip.rows(p, smaller<std::int64_t>(parameters.value[0], p.oh)), strip.row);
    s.panel = carver.template take<T>(scratch_pixels * TileShape<T>::panel);
  }
  return s;
}

template <class T>
std::int64_t direct_workspace(const ConvProblem& p, const Parameters& parameters, const Machine&, int threads) {
  return members_workspace([&](auto& cut) { return carve<T>(p, parameters, cut); }, threads,
                           p.packed ? 0 : panels_bytes<T>(p));
}

// What a member needs to compute blocks.
template <class T>
struct Context {
  const Arguments& args;
  const ConvProblem& p;
  Geometry<T> g;
  Panels<T> panels;
  Finish<T> finish;
  const T* packed;
  std::int64_t chunks;

  Context(const Arguments& a, const T* packed_)
      : args(a),
        p(*a.problem),
        g(p, p.layout == Layout::nchw),
        panels{p.o / p.groups},
        finish(a.epilogue),
        packed(packed_),
        chunks(smaller<std::int64_t>(a.parameters->value[1], a.problem->kh)) {}  // more of them would be empty

  CONVKIT_INLINE const T* panel(std::int64_t group, std::int64_t index) const {
    const std::int64_t k = g.channels * g.taps;
    return packed + group * panels.padded() * k + panels.offset(index, k);
  }
};

// Computes `pixels` output pixels for the panels `which` of one group: builds the run tables once for each tile height and
// chunk, and calls emit(panel, chunk, height, tiles, first pixel, table). `origins()` gives a cursor whose next() walks the
// pixels.
template <class T, class Origins, class Emit>
CONVKIT_INLINE void for_block(const Context<T>& c, const Scratch<T>& s, const PixelSource<T>& source,
                              std::int64_t pixels, const Share& which, const Origins& origins, const Emit& emit) {
  int prepared = 0;  // tile height that the tables were built for
  for (std::int64_t panel = which.begin; panel < which.end; ++panel) {
    const int most = TileShape<T>::rows(c.panels.vectors(panel));
    for (std::int64_t chunk = 0; chunk < c.chunks; ++chunk) {
      if (prepared != most || c.chunks > 1) {
        prepared = most;
        Run<T>* run = s.runs;
        RunTile<T>* tile = s.tiles;
        const std::int64_t first = chunk_tap(c.p, chunk, c.chunks), last = chunk_tap(c.p, chunk + 1, c.chunks);
        auto cursor = origins();
        for_row_tiles(pixels, most, [&](int height, std::int64_t count, std::int64_t) CONVKIT_LAMBDA {
          for (; count > 0; --count, ++tile) {
            Origin<T> origin[TileShape<T>::most_rows];
            for (int i = 0; i < height; ++i) origin[i] = cursor.next();
            run = fill_tile<T>(c.g, source, origin, height, s.zeros, first, last, run, tile);
          }
        });
      }
      const RunTile<T>* tile = s.tiles;
      for_row_tiles(pixels, most, [&](int height, std::int64_t count, std::int64_t pixel) CONVKIT_LAMBDA {
        emit(panel, chunk, height, count, pixel, tile);
        tile += count;
      });
    }
  }
}

// --- NHWC -------------------------------------------------------------------------------------------------------------

// Walks output pixels in memory order, over rows and images.
template <class T>
struct ImageCursor {
  const ConvProblem& p;
  const T* image;
  std::int64_t oy, ox;

  CONVKIT_INLINE ImageCursor(const ConvProblem& problem, const T* x, std::int64_t pixel) : p(problem) {
    const std::int64_t n = pixel / (p.oh * p.ow), rest = pixel % (p.oh * p.ow);
    image = x + n * p.h * p.w * p.c;
    oy = rest / p.ow;
    ox = rest % p.ow;
  }
  CONVKIT_INLINE Origin<T> next() {
    const Origin<T> origin{image, oy * p.stride_h - p.pad_top, ox * p.stride_w - p.pad_left};
    if (++ox == p.ow) {
      ox = 0;
      if (++oy == p.oh) oy = 0, image += p.h * p.w * p.c;
    }
    return origin;
  }
};

// Inside its caller it would keep fewer values in registers.
template <class T>
__attribute__((noinline)) void compute_nhwc(const Context<T>& c, const Scratch<T>& s, int index, int size) {
  const ConvProblem& p = c.p;
  const std::int64_t pixels = p.n * p.oh * p.ow, count = c.panels.count(), block = c.args.parameters->value[0];
  const Grid grid = make_grid(ceil_div(pixels, 6), p.groups * count, size, c.panels.missing(p.groups));
  const Share rows = share(pixels, index / grid.columns, grid.rows);
  const Share columns = share(p.groups * count, index % grid.columns, grid.columns);
  const PixelSource<T> source{p.w * p.c, p.c, p.h, p.w};
  for (std::int64_t begin = rows.begin; begin < rows.end; begin += block) {
    const std::int64_t length = smaller(rows.end - begin, block);
    for (std::int64_t group = columns.begin / count; group * count < columns.end; ++group) {
      const Share which{larger<std::int64_t>(columns.begin - group * count, 0),
                        smaller<std::int64_t>(columns.end - group * count, count)};
      const T* x = static_cast<const T*>(c.args.x) + group * c.g.channels;
      const std::int64_t first = begin * p.o + group * c.g.outputs;
      T* y = static_cast<T*>(c.args.y) + first;
      const auto origins = [&]() CONVKIT_LAMBDA { return ImageCursor<T>(p, x, begin); };
      for_block(c, s, source, length, which, origins,
                [&](std::int64_t panel, std::int64_t chunk, int height, std::int64_t tiles_, std::int64_t pixel,
                    const RunTile<T>* table) CONVKIT_LAMBDA {
                  const bool last = chunk + 1 == c.chunks;
                  const int nv = c.panels.vectors(panel);
                  const std::int64_t o = panel * Panels<T>::width;
                  const TileOut<T> out{
                      y + pixel * p.o + o,
                      p.o,
                      c.finish.bias ? c.finish.bias + group * c.g.outputs + o : nullptr,
                      c.finish.residual && chunk == 0 ? c.finish.residual + first + pixel * p.o + o : nullptr,
                      c.finish.lo,
                      c.finish.hi,
                      c.panels.tail(panel),
                      chunk > 0,
                      c.finish.clamp && last};
                  gather_tiles<T>(nv, height, tiles_, table, c.panel(group, panel), out);
                  if (last && c.finish.after) {
                    activate_rows(out.y, tiles_ * height, p.o, c.panels.valid(panel), *c.finish.after);
                  }
                });
    }
  }
}

// --- NCHW -------------------------------------------------------------------------------------------------------------

// Walks the output pixels of a strip, which begins at the first input row of output row 0.
template <class T>
struct StripCursor {
  const ConvProblem& p;
  const Strip& geometry;
  const T* strip;
  std::int64_t oy, ox;
  CONVKIT_INLINE Origin<T> next() {
    const Origin<T> origin{strip, oy * geometry.walk_h, ox * geometry.walk_w};
    if (++ox == p.ow) ox = 0, ++oy;
    return origin;
  }
};

// Transposes one group's input rows of one image from `y0` (may lie in the padding) into a strip of `rows` rows. Blocks of
// channels go outermost: a channel's rows are contiguous, which is what prefetchers follow.
template <class T>
void fill_strip(const ConvProblem& p, const Strip& geometry, const T* x, std::int64_t channels, std::int64_t y0,
                std::int64_t rows, T* strip) {
  constexpr int lanes = Vec<T>::lanes;
  const std::int64_t row = geometry.row, pixel = geometry.pixel;
  const auto clear = [](T* to, std::int64_t count) {
    if (count > 0) __builtin_memset(to, 0, static_cast<std::size_t>(count) * sizeof(T));
  };
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int64_t y = y0 + r * geometry.step_h;
    T* const to = strip + r * row;
    if (y < 0 || y >= p.h) {
      clear(to, row);
    } else if (geometry.step_w == 1) {
      clear(to, p.pad_left * pixel);
      clear(to + (p.pad_left + p.w) * pixel, p.pad_right * pixel);
    }
  }
  const bool whole = geometry.step_h == 1 && geometry.width == p.w && y0 >= 0 && y0 + rows <= p.h;
  for (std::int64_t c = 0; c < channels; c += lanes) {
    const std::int64_t height = smaller<std::int64_t>(channels - c, lanes);
    if (whole) {
      transpose_block(x + (c * p.h + y0) * p.w, p.h * p.w, height, rows * p.w, strip + c, pixel, EveryColumn{},
                      channels - c);
      continue;
    }
    for (std::int64_t r = 0; r < rows; ++r) {
      const std::int64_t y = y0 + r * geometry.step_h;
      if (y < 0 || y >= p.h) continue;
      const T* from = x + (c * p.h + y) * p.w;
      T* const to = strip + r * row + c;
      if (geometry.step_w == 2) {
        transpose_block(from, p.h * p.w, height, p.ow, to, pixel, EverySecondColumn{}, channels - c);
      } else {
        transpose_block(from, p.h * p.w, height, p.w, to + p.pad_left * pixel, pixel, EveryColumn{}, channels - c);
      }
    }
  }
}

template <class T>
void compute_nchw(const Context<T>& c, const Scratch<T>& s, int index, int size) {
  const ConvProblem& p = c.p;
  const std::int64_t count = c.panels.count(), block = c.args.parameters->value[0], blocks = ceil_div(p.oh, block);
  const Grid grid = make_grid(p.n * blocks, count, size, c.panels.missing(1));
  const Share mine = share(p.n * blocks, index / grid.columns, grid.rows);
  const Share which = share(count, index % grid.columns, grid.columns);
  const std::int64_t image = p.oh * p.ow;
  const Strip strip(p);
  const PixelSource<T> source{strip.row, strip.pixel, 1LL << 40, strip.width};
  if (which.begin == which.end) return;
  for (std::int64_t item = mine.begin; item < mine.end; ++item) {
    const std::int64_t n = item / blocks, oy = item % blocks * block;
    const std::int64_t rows = smaller(p.oh - oy, block);
    for (std::int64_t group = 0; group < p.groups; ++group) {
      fill_strip(p, strip, static_cast<const T*>(c.args.x) + (n * p.c + group * c.g.channels) * p.h * p.w, c.g.channels,
                 oy * p.stride_h - p.pad_top, strip.rows(p, rows), s.strip);
      for (std::int64_t begin = 0; begin < rows * p.ow; begin += scratch_pixels) {
        const std::int64_t pixels = smaller(rows * p.ow - begin, scratch_pixels);
        const std::int64_t first = (n * p.o + group * c.g.outputs) * image + oy * p.ow + begin;
        const auto origins = [&]() CONVKIT_LAMBDA {
          return StripCursor<T>{p, strip, s.strip, begin / p.ow, begin % p.ow};
        };
        for_block(c, s, source, pixels, which, origins,
                  [&](std::int64_t panel, std::int64_t chunk, int height, std::int64_t tiles_, std::int64_t pixel,
                      const RunTile<T>* table) CONVKIT_LAMBDA {
                    const bool last = chunk + 1 == c.chunks;
                    const int nv = c.panels.vectors(panel), panel_width = nv * Vec<T>::lanes;
                    const std::int64_t o = panel * Panels<T>::width;
                    const TileOut<T> out{s.panel + pixel * panel_width,
                                         panel_width,
                                         c.finish.bias ? c.finish.bias + group * c.g.outputs + o : nullptr,
                                         nullptr,
                                         c.finish.lo,
                                         c.finish.hi,
                                         c.panels.tail(panel),
                                         chunk > 0,
                                         c.finish.clamp && last && !c.finish.residual};
                    gather_tiles<T>(nv, height, tiles_, table, c.panel(group, panel), out);
                    if (last && pixel + tiles_ * height == pixels) {
                      store_panel(c.finish, s.panel, panel_width, pixels, c.panels.valid(panel),
                                  static_cast<T*>(c.args.y) + first + o * image,
                                  c.finish.residual ? c.finish.residual + first + o * image : nullptr, image);
                    }
                  });
      }
    }
  }
}

template <class T>
void direct_run(const Arguments& args) {
  const ConvProblem& p = *args.problem;
  run_members<T>(
      args, worthwhile_threads(p, args.threads), pack_panels<T>,
      [&](auto& cut) { return carve<T>(p, *args.parameters, cut); },
      [&](const T* packed) { return Context<T>(args, packed); },
      [&](const Context<T>& context, const Scratch<T>& scratch, int index, int size) {
        for (std::int64_t i = 0; i < context.g.channels * p.kw; ++i) scratch.zeros[i] = T(0);
        if (p.layout == Layout::nhwc) {
          compute_nhwc(context, scratch, index, size);
        } else {
          compute_nchw(context, scratch, index, size);
        }
      });
}

template <class T>
constexpr Kernel direct_entry(const char* name) {
  return kernel_of<T>(
      "direct", name, Op::forward, layout_nchw | layout_nhwc, 2,
      {direct_schema, direct_applies, direct_candidates<T>, direct_cost<T>, direct_workspace<T>, direct_run<T>},
      {panels_entry<T>, pack_panels<T>});
}

constexpr Kernel kernels[] = {
    direct_entry<float>("f32_direct__" CONVKIT_ISA_NAME),
    direct_entry<double>("f64_direct__" CONVKIT_ISA_NAME),
};

}  // namespace

extern const KernelTable direct_table;
constexpr KernelTable direct_table = WithAdjoints<kernels>::table;

}  // namespace convkit::CONVKIT_ISA
