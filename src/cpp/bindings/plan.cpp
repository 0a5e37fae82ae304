#include "plan.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <limits>

#include "../parallel.hpp"
#include "../workspace.hpp"
#include "chooser.hpp"
#include "infinite_weights.hpp"

namespace convkit::bindings {
namespace {

constexpr std::size_t most_plans = 4096;
constexpr std::int64_t largest_bytes = std::int64_t{1} << 62;
// Giving up the GIL and taking it back costs more than it frees below some twenty microseconds of work, here in
// multiply-adds at 20 GHz and bytes at 10 GB/s.
constexpr double least_seconds_without_gil = 20e-6;

std::uint64_t generation = 1;

// Any team size gives the same bits, while OpenMP ends the process where it cannot start that many.
int bounded_team(int threads) {
  static const int most = std::min(most_threads, std::max(8, static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN))));
  return std::min(threads, most);
}

// A tensor's dimensions in N,C,H,W order. Without a batch dimension N is 1.
Geometry geometry(const ArrayArgument& array, Layout layout) {
  const int batch = array.ndim() - 3;  // 0 or 1
  const bool nchw = layout == Layout::nchw;
  const int at[4] = {0, batch + (nchw ? 0 : 2), batch + (nchw ? 1 : 0), batch + (nchw ? 2 : 1)};
  Geometry tensor;
  for (int i = 0; i < 4; ++i) {
    const bool absent = i == 0 && batch == 0;
    tensor.sizes[i] = absent ? 1 : array.shape()[at[i]];
    tensor.strides[i] = absent ? 0 : array.strides()[at[i]];
  }
  return tensor;
}

// The layout to compute in: the memory's own where x is dense, else the one whose fastest dimension is x's.
Layout memory_layout(const Geometry& x, Layout declared, int element, bool& dense) {
  const Layout other = declared == Layout::nchw ? Layout::nhwc : Layout::nchw;
  dense = true;
  if (is_dense(x, declared, element)) return declared;
  if (is_dense(x, other, element)) return other;
  dense = false;
  const auto stride = [&](int i) { return x.sizes[i] > 1 ? std::abs(x.strides[i]) : std::int64_t{0}; };
  if (stride(1) == 0 || stride(3) == 0 || stride(1) == stride(3)) return declared;
  return stride(1) < stride(3) ? Layout::nhwc : Layout::nchw;
}

// What the caller knows the first two operands by.
struct Names {
  std::string x, w;
  explicit Names(const Options& options)
      : x(options.op == Op::weight_grad                     ? "input"
          : options.op == Op::forward || options.transposed ? "x"
                                                            : "grad_output"),
        w(options.op == Op::weight_grad                     ? "grad_output"
          : options.op == Op::forward || options.transposed ? "w"
                                                            : "weight") {}
};

[[noreturn]] void mismatch(const Operands& o, const Names& names, const std::string& reason) {
  raise(PyExc_ValueError, names.x + " of shape " + shape_text(o.x) + " and " + names.w + " of shape " +
                              shape_text(o.w) + " do not go together: " + reason);
}

void check_dtypes(const Operands& o, const Names& operands) {
  const ArrayArgument* others[] = {&o.w, &o.bias, &o.residual, &o.out};
  const std::string names[] = {operands.w, "bias", "residual", "out"};
  o.x.check_dtype(operands.x.c_str());
  for (int i = 0; i < 4; ++i) {
    if (*others[i]) others[i]->check_dtype(names[i].c_str());
    if (*others[i] && others[i]->dtype() != o.x.dtype()) {
      raise(PyExc_TypeError, operands.x + " has dtype " + dtype_name(o.x.dtype()) + " and " + names[i] + " has dtype " +
                                 dtype_name(others[i]->dtype()) +
                                 "; convkit never casts: give all arrays one dtype, float32 or float64");
    }
  }
}

// Pads of one dimension that keep ceil(size / stride) outputs; the odd one goes to the end, or to the beginning.
void same_pads(std::int64_t size, std::int64_t filter, std::int64_t stride, std::int64_t dilation, bool odd_at_begin,
               std::int64_t& begin, std::int64_t& end) {
  const std::int64_t outputs = (size + stride - 1) / stride;
  const std::int64_t total = std::max<std::int64_t>(0, (outputs - 1) * stride + dilation * (filter - 1) + 1 - size);
  begin = odd_at_begin ? (total + 1) / 2 : total / 2;
  end = total - begin;
}

void fill_pads(const Options& options, ConvProblem& p) {
  if (options.padding == Padding::sides) {
    p.pad_top = options.pads[0];
    p.pad_bottom = options.pads[1];
    p.pad_left = options.pads[2];
    p.pad_right = options.pads[3];
    return;
  }
  if (options.padding == Padding::same && (p.stride_h != 1 || p.stride_w != 1)) {
    raise(PyExc_ValueError, "padding 'same' needs stride 1, not (" + std::to_string(p.stride_h) + ", " +
                                std::to_string(p.stride_w) + "); 'same_upper' and 'same_lower' take any stride");
  }
  const bool lower = options.padding == Padding::same_lower;
  same_pads(p.h, p.kh, p.stride_h, p.dilation_h, lower, p.pad_top, p.pad_bottom);
  same_pads(p.w, p.kw, p.stride_w, p.dilation_w, lower, p.pad_left, p.pad_right);
}

void check_same_shape(const ArrayArgument& array, const char* name, const Plan& plan) {
  if (array.ndim() == plan.y_ndim && std::equal(plan.y_shape, plan.y_shape + plan.y_ndim, array.shape())) return;
  raise(PyExc_ValueError, std::string(name) + " has shape " + shape_text(array) + ", the result has shape " +
                              shape_text(plan.y_shape, plan.y_ndim));
}

// Refuses what 64-bit byte offsets could not address: broadcast inputs may have any product of sizes.
void check_bytes(const Operands& o, const Names& names, const std::int64_t sizes[4], int element) {
  __int128 bytes = element;
  for (int i = 0; i < 4; ++i) bytes *= sizes[i];
  if (bytes > largest_bytes) mismatch(o, names, "the tensors would not fit into memory");
}

// Length of a transposed convolution's result along one dimension. Where output_padding is a stride or more, a convolution
// of the result has outputs beyond the pixels of x: `beyond` is their number, and they count as zeros.
std::int64_t transposed_length(std::int64_t size, std::int64_t taps, std::int64_t stride, std::int64_t dilation,
                               std::int64_t extra, std::int64_t pads, std::int64_t& beyond) {
  if (extra >= std::max(stride, dilation)) {
    raise(PyExc_ValueError, "output_padding must be smaller than stride or dilation, not " + std::to_string(extra) +
                                " with stride " + std::to_string(stride) + " and dilation " + std::to_string(dilation));
  }
  beyond = extra / stride;
  return (size - 1) * stride - pads + dilation * (taps - 1) + 1 + extra;
}

void check_image_shape(const ArrayArgument& array, const std::string& name, Layout layout) {
  if (array.ndim() == 3 || array.ndim() == 4) return;
  const bool nchw = layout == Layout::nchw;
  raise(PyExc_ValueError, name + " has shape " + shape_text(array) + ", expected " +
                              (nchw ? "(N, C, H, W) or (C, H, W)" : "(N, H, W, C) or (H, W, C)") + " for layout " +
                              (nchw ? "'NCHW'" : "'NHWC'"));
}

// What a problem takes from the options as they are.
void apply_options(const Options& options, ConvProblem& p) {
  p.op = options.op;
  p.stride_h = options.stride[0];
  p.stride_w = options.stride[1];
  p.dilation_h = options.dilation[0];
  p.dilation_w = options.dilation[1];
  p.groups = options.groups;
  p.epilogue = epilogue_class(options.activation);
}

// As `describe`, for a weight gradient: x and w are the input and grad_output, the result is OIHW whatever the layout.
bool describe_weight_gradient(const Operands& o, const Options& options, Plan& plan) {
  const Names names(options);
  check_dtypes(o, names);
  check_image_shape(o.x, names.x, options.layout);
  check_image_shape(o.w, names.w, options.layout);
  const int element = element_bytes(o.x.dtype());
  const Geometry x = geometry(o.x, options.layout), dy = geometry(o.w, options.layout);
  for (int i = 0; i < 4; ++i) {
    if (i > 0 && (x.sizes[i] == 0 || dy.sizes[i] == 0)) mismatch(o, names, "only the batch may be empty");
    if (x.sizes[i] >= size_limit || dy.sizes[i] >= size_limit) mismatch(o, names, "every size must be below 2**31");
  }
  if (o.x.ndim() != o.w.ndim() || x.sizes[0] != dy.sizes[0]) mismatch(o, names, "the batches differ");
  check_bytes(o, names, x.sizes, element);
  check_bytes(o, names, dy.sizes, element);
  ConvProblem& p = plan.problem;
  p = ConvProblem{};
  apply_options(options, p);
  p.dtype = o.x.dtype();
  p.n = std::max<std::int64_t>(1, x.sizes[0]);
  p.c = x.sizes[1];
  p.h = x.sizes[2];
  p.w = x.sizes[3];
  p.o = dy.sizes[1];
  p.kh = options.extent[0];
  p.kw = options.extent[1];
  if (p.c % p.groups != 0 || p.o % p.groups != 0) {
    mismatch(o, names, "the channels of both must be divisible by groups=" + std::to_string(p.groups));
  }
  fill_pads(options, p);
  bool dense;
  p.layout = memory_layout(x, options.layout, element, dense);
  if (const Refusal refused = complete(p)) mismatch(o, names, refused.text);
  if (p.oh != dy.sizes[2] || p.ow != dy.sizes[3]) {
    mismatch(o, names,
             "a convolution of the input with filters of " + std::to_string(p.kh) + " x " + std::to_string(p.kw) +
                 " has outputs of " + std::to_string(p.oh) + " x " + std::to_string(p.ow));
  }
  const std::int64_t sizes[4] = {p.o, p.c / p.groups, p.kh, p.kw};
  check_bytes(o, names, sizes, element);
  std::int64_t strides[4];
  dense_strides(sizes, Layout::nchw, element, strides);
  plan.y_ndim = 4;
  plan.y_bytes = element * sizes[0] * sizes[1] * sizes[2] * sizes[3];
  for (int i = 0; i < 4; ++i) {
    plan.y_shape[i] = sizes[i];
    plan.y_strides[i] = strides[i];
  }
  if (o.out) check_same_shape(o.out, "out", plan);
  return dense;
}

// Shapes, problem and result of a call; everything but the kernel. Returns whether the kernel can read x as it is.
bool describe(const Operands& o, const Options& options, bool packed, Plan& plan) {
  if (options.op == Op::weight_grad) return describe_weight_gradient(o, options, plan);
  const Names names(options);
  check_dtypes(o, names);
  const bool forward = options.op == Op::forward, nchw = options.layout == Layout::nchw;
  check_image_shape(o.x, names.x, options.layout);
  if (o.w.ndim() != 4) {
    raise(PyExc_ValueError, names.w + " has shape " + shape_text(o.w) + ", expected " +
                                (options.transposed ? "(C, O/groups, KH, KW)" : "(O, C/groups, KH, KW)"));
  }
  const int element = element_bytes(o.x.dtype());
  const Geometry x = geometry(o.x, options.layout);
  const npy_intp* w = o.w.shape();
  for (int i = 0; i < 4; ++i) {
    if ((i > 0 && x.sizes[i] == 0) || w[i] == 0) mismatch(o, names, "only the batch may be empty");
    if (x.sizes[i] >= size_limit || w[i] >= size_limit) mismatch(o, names, "every size must be below 2**31");
  }
  const std::int64_t w_sizes[4] = {w[0], w[1], w[2], w[3]};
  check_bytes(o, names, x.sizes, element);
  check_bytes(o, names, w_sizes, element);
  ConvProblem& p = plan.problem;
  p = ConvProblem{};
  apply_options(options, p);
  p.dtype = o.x.dtype();
  p.n = std::max<std::int64_t>(1, x.sizes[0]);
  p.o = w[0];
  p.kh = w[2];
  p.kw = w[3];
  p.bias = o.bias ? 1 : 0;
  p.residual = o.residual ? 1 : 0;
  p.packed = packed ? 1 : 0;
  p.c = w[1] * p.groups;
  if (const std::int64_t takes = forward ? p.c : p.o; takes != x.sizes[1]) {
    mismatch(o, names,
             "with groups=" + std::to_string(p.groups) + " " + names.w + " takes " + std::to_string(takes) +
                 " input channels, " + names.x + " has " + std::to_string(x.sizes[1]) +
                 (nchw ? " (layout 'NCHW')" : " (layout 'NHWC')"));
  }
  if (p.o % p.groups != 0) {
    mismatch(o, names,
             "the " + std::to_string(p.o) + (options.transposed ? " input" : " output") + " channels of " + names.w +
                 " are not divisible by groups=" + std::to_string(p.groups));
  }
  if (forward) {
    p.h = x.sizes[2];
    p.w = x.sizes[3];
  } else if (!options.transposed) {
    p.h = options.extent[0];
    p.w = options.extent[1];
  }
  fill_pads(options, p);
  std::int64_t rows = x.sizes[2], columns = x.sizes[3];  // of a gradient's first operand, as the kernel reads it
  if (options.transposed) {
    std::int64_t below, right;
    p.h = transposed_length(rows, p.kh, p.stride_h, p.dilation_h, options.extent[0], p.pad_top + p.pad_bottom, below);
    p.w =
        transposed_length(columns, p.kw, p.stride_w, p.dilation_w, options.extent[1], p.pad_left + p.pad_right, right);
    if (p.h < 1 || p.w < 1 || p.h >= size_limit || p.w >= size_limit) {
      mismatch(o, names,
               "with stride (" + std::to_string(p.stride_h) + ", " + std::to_string(p.stride_w) +
                   ") and this padding the result would be " + std::to_string(p.h) + " x " + std::to_string(p.w) +
                   " pixels; at least 1 and less than 2**31 along an axis are possible");
    }
    rows += below;
    columns += right;
    const std::int64_t extended[4] = {x.sizes[0], x.sizes[1], rows, columns};
    check_bytes(o, names, extended, element);
  }
  bool dense;
  p.layout = memory_layout(x, options.layout, element, dense);
  if (const Refusal refused = complete(p)) mismatch(o, names, refused.text);
  if (!forward && (p.oh != rows || p.ow != columns)) {
    mismatch(o, names,
             "an input of " + std::to_string(p.h) + " x " + std::to_string(p.w) + " pixels has outputs of " +
                 std::to_string(p.oh) + " x " + std::to_string(p.ow));
  }
  if (rows != x.sizes[2] || columns != x.sizes[3]) dense = false;
  const std::int64_t channels = result_channels(p);
  if (o.bias && (o.bias.ndim() != 1 || o.bias.shape()[0] != channels)) {
    raise(PyExc_ValueError, "bias has shape " + shape_text(o.bias) + ", w of shape " + shape_text(o.w) + " needs (" +
                                std::to_string(channels) + ",)");
  }

  const std::int64_t sizes[4] = {x.sizes[0], channels, forward ? p.oh : p.h, forward ? p.ow : p.w};
  check_bytes(o, names, sizes, element);
  std::int64_t strides[4];
  dense_strides(sizes, p.layout, element, strides);
  plan.y_bytes = element * sizes[0] * sizes[1] * sizes[2] * sizes[3];
  plan.y_ndim = o.x.ndim();
  static constexpr int order[2][4] = {{0, 1, 2, 3}, {0, 2, 3, 1}};
  for (int i = 0; i < plan.y_ndim; ++i) {
    const int from = order[static_cast<int>(options.layout)][i + 4 - plan.y_ndim];
    plan.y_shape[i] = sizes[from];
    plan.y_strides[i] = strides[from];
  }
  if (o.residual) check_same_shape(o.residual, "residual", plan);
  if (o.out) check_same_shape(o.out, "out", plan);
  return dense;
}

// Room in the arena, 64-byte aligned; returns its offset.
std::int64_t reserve(Plan& plan, std::int64_t bytes) {
  const std::int64_t offset = plan.arena_bytes;
  plan.arena_bytes = checked_sum(plan.arena_bytes, checked_sum(bytes, 63) / 64 * 64);
  return offset;
}

// `wanted`: how the kernel reads or writes it; `rows` and `columns`: how many it reads, where that is more than the array
// has.
void bring_tensor(Plan& plan, Bring& bring, const ArrayArgument& array, Layout declared, Layout wanted,
                  std::int64_t rows = 0, std::int64_t columns = 0) {
  const int element = element_bytes(plan.problem.dtype);
  bring.tensor = geometry(array, declared);
  const std::int64_t* own = bring.tensor.sizes;
  const std::int64_t sizes[4] = {own[0], own[1], std::max(own[2], rows), std::max(own[3], columns)};
  const bool extended = sizes[2] != own[2] || sizes[3] != own[3];
  bring.copied = extended || array.misaligned() || !is_dense(bring.tensor, wanted, element);
  if (!bring.copied) return;
  std::int64_t bytes = element;
  for (const std::int64_t size : sizes) bytes = checked_product(bytes, size);
  dense_strides(sizes, wanted, element, bring.dense);
  bring.zeroed = extended ? bytes : 0;
  bring.offset = reserve(plan, bytes);
}

void bring_bias(Plan& plan, const ArrayArgument& bias) {
  const int element = element_bytes(plan.problem.dtype);
  const std::int64_t channels = result_channels(plan.problem);
  plan.bias.tensor = {{1, 1, 1, channels}, {0, 0, 0, bias.strides()[0]}};
  plan.bias.copied = bias.misaligned() || (channels > 1 && bias.strides()[0] != element);
  if (!plan.bias.copied) return;
  dense_strides(plan.bias.tensor.sizes, Layout::nchw, element, plan.bias.dense);
  plan.bias.offset = reserve(plan, element * channels);
}

void bring_weights(Plan& plan, const ArrayArgument& w) {
  const int element = element_bytes(plan.problem.dtype);
  Bring& bring = plan.w;
  bool whole_elements = true;
  for (int i = 0; i < 4; ++i) {
    bring.tensor.sizes[i] = w.shape()[i];
    bring.tensor.strides[i] = w.strides()[i];
    if (w.shape()[i] > 1 && w.strides()[i] % element != 0) whole_elements = false;
  }
  dense_strides(bring.tensor.sizes, Layout::nchw, element, bring.dense);
  const bool as_they_are = plan.packing.id[0] == 0;
  bring.copied = w.misaligned() || !whole_elements || (as_they_are && !is_dense(bring.tensor, Layout::nchw, element));
  // A stride that is never taken may be any number: the dense one keeps it a multiple of the element.
  std::int64_t strides[4];
  for (int i = 0; i < 4; ++i) {
    const bool taken = bring.tensor.sizes[i] > 1 && !bring.copied;
    strides[i] = (taken ? bring.tensor.strides[i] : bring.dense[i]) / element;
  }
  plan.weights = {nullptr,    strides[0], strides[1],
                  strides[2], strides[3], plan.problem.o / plan.problem.groups * strides[0]};
  if (bring.copied) bring.offset = reserve(plan, bring.dense[0] * bring.tensor.sizes[0]);
}

double estimated_seconds(const Plan& plan) {
  const ConvProblem& p = plan.problem;
  const double bytes =
      static_cast<double>(plan.y_bytes) + static_cast<double>(plan.arena_bytes) +
      element_bytes(p.dtype) * static_cast<double>(p.n) * static_cast<double>(p.c * p.h) * static_cast<double>(p.w);
  return multiply_adds(p) / 20e9 + bytes / 10e9;
}

}  // namespace

void Key::add(const ArrayArgument& array) {
  if (!array) return add(0);
  const int ndim = array.ndim();
  add(1 | ndim << 1 | PyArray_TYPE(array.get()) << 8 | static_cast<int>(array.misaligned()) << 16);
  if (ndim > 4) return;  // refused on a miss, hence in no key that was kept
  for (int i = 0; i < ndim; ++i) add(array.shape()[i]);
  for (int i = 0; i < ndim; ++i) add(array.strides()[i]);
}

void Key::add(const Operands& o) {
  for (const ArrayArgument* array : {&o.x, &o.w, &o.bias, &o.residual, &o.out}) add(*array);
}

void Key::add(const Options& o) {
  const auto two = [](std::int32_t a, std::int32_t b) {
    return static_cast<std::int64_t>(a) << 32 | static_cast<std::int64_t>(b);
  };
  add(static_cast<int>(o.padding) | static_cast<int>(o.layout) << 4 | static_cast<int>(o.activation) << 8 |
      o.algorithm.kind << 12 | o.accuracy.kind << 16 | o.workspace_limit.kind << 20 | static_cast<int>(o.op) << 24 |
      static_cast<int>(o.transposed) << 26);
  add(two(o.stride[0], o.stride[1]));
  add(two(o.dilation[0], o.dilation[1]));
  add(two(o.pads[0], o.pads[1]));
  add(two(o.pads[2], o.pads[3]));
  add(o.groups);
  if (o.op != Op::forward) add(two(o.extent[0], o.extent[1]));
  if (o.algorithm.kind) add(o.algorithm.bits);
  if (o.accuracy.kind) add(o.accuracy.bits);
  if (o.workspace_limit.kind) add(o.workspace_limit.bits);
}

std::size_t Key::hash() const {
  // Two multiplicative chains, so that half of the latency of one is hidden.
  std::uint64_t a = 0x9E3779B97F4A7C15u, b = used_;
  for (std::size_t i = 0; i + 1 < used_; i += 2) {
    a = (a ^ static_cast<std::uint64_t>(words_[i])) * 0xFF51AFD7ED558CCDu;
    a ^= a >> 29;
    b = (b ^ static_cast<std::uint64_t>(words_[i + 1])) * 0xC4CEB9FE1A85EC53u;
    b ^= b >> 29;
  }
  if (used_ % 2) a = (a ^ static_cast<std::uint64_t>(words_[used_ - 1])) * 0xFF51AFD7ED558CCDu;
  return static_cast<std::size_t>(a ^ (b << 1) ^ (a >> 32));
}

int default_team() {
  // Read at first use and again after clear_plans(), as everything else that decides a call.
  static std::uint64_t read_at = 0;
  static int named = 0;
  if (read_at != generation) {
    named = 0;
    if (const char* text = std::getenv("CONVKIT_NUM_THREADS"); text && *text) {
      char* end;
      errno = 0;
      const long value = std::strtol(text, &end, 10);
      if (*end || errno || value < 1 || value > std::numeric_limits<int>::max()) {
        raise(PyExc_ValueError,
              std::string("CONVKIT_NUM_THREADS must be an integer of at least 1, not '") + text + "'");
      }
      named = bounded_team(static_cast<int>(value));
    }
    read_at = generation;
  }
  return named ? named : default_threads();
}

int resolve_threads(const Options& options) {
  return options.threads == 0 ? default_team() : bounded_team(options.threads);
}

ConvProblem describe_problem(const Operands& operands, const Options& options, bool packed) {
  Plan plan;
  describe(operands, options, packed, plan);
  if (plan.y_bytes == 0) raise(PyExc_ValueError, "the batch is empty: there is nothing to choose");
  return plan.problem;
}

std::shared_ptr<const Plan> make_plan(const Operands& operands, const Options& options, int threads, bool packed) {
  look_for_runtime();  // libraries that were imported since the last new shape may have brought one
  auto plan = std::make_shared<Plan>();
  const Opaque* opaques[] = {&options.algorithm, &options.accuracy, &options.workspace_limit};
  for (int i = 0; i < 3; ++i) plan->owned[i] = Reference::borrow(opaques[i]->value);
  const bool dense = describe(operands, options, packed, *plan);
  plan->threads = threads;
  if (plan->y_bytes == 0 || PyArray_SIZE(operands.x.get()) == 0) return plan;

  Key described;
  described.add(operands);
  Choice choice = choose(plan->problem, threads, options);
  Key chosen_for;
  chosen_for.add(operands);
  if (!(described == chosen_for)) {
    raise(PyExc_RuntimeError, "an array changed its shape, strides or dtype while its convolution was being planned");
  }
  plan->kernel = choice.kernel;
  plan->parameters = choice.parameters;
  plan->settle = std::move(choice.settle);
  plan->flushes_subnormals = !choice.strict;
  plan->asks_finite = choice.strict && multiplies_padding(plan->problem);
  plan->packing = Packing{};
  plan->kernel->packing(plan->problem, plan->parameters, &plan->packing);

  const Layout layout = plan->problem.layout;
  if (!dense || operands.x.misaligned()) {
    const bool transposed = options.transposed;
    bring_tensor(*plan, plan->x, operands.x, options.layout, layout, transposed ? plan->problem.oh : 0,
                 transposed ? plan->problem.ow : 0);
  }
  if (options.op == Op::weight_grad) {
    bring_tensor(*plan, plan->w, operands.w, options.layout, layout);
    if (operands.out) bring_tensor(*plan, plan->out, operands.out, Layout::nchw, Layout::nchw);
  } else {
    bring_weights(*plan, operands.w);
    if (operands.bias) bring_bias(*plan, operands.bias);
    if (operands.residual) bring_tensor(*plan, plan->residual, operands.residual, options.layout, layout);
    if (operands.out) bring_tensor(*plan, plan->out, operands.out, options.layout, layout);
  }
  const std::int64_t workspace = plan->kernel->workspace_bytes(plan->problem, plan->parameters, machine(), threads);
  if (workspace > 0) {
    // Kernels are promised a page's alignment; the arena starts on one.
    plan->arena_bytes = checked_sum(plan->arena_bytes, 4095) / 4096 * 4096;
    plan->workspace_offset = plan->arena_bytes;
    plan->arena_bytes = checked_sum(plan->arena_bytes, workspace);
  }
  plan->releases_gil = estimated_seconds(*plan) > least_seconds_without_gil;
  return plan;
}

PlanCache<PlanPointer>& plan_cache() {
  static auto* const cache = new PlanCache<PlanPointer>(most_plans);  // outlives the interpreter's last call
  return *cache;
}

std::uint64_t plan_generation() { return generation; }

void clear_plans() {
  ++generation;
  plan_cache().clear();
}

Counters& counters() {
  static Counters instance{};
  return instance;
}

}  // namespace convkit::bindings
