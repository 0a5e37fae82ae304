#include "describe.hpp"

#include <algorithm>
#include <cstdlib>

namespace convkit::bindings {
namespace {

constexpr std::int64_t largest_bytes = std::int64_t{1} << 62;

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
  const ArrayArgument* others[] = {&o.w, &o.bias, &o.residual, &o.out, &o.scale, &o.shift};
  const std::string names[] = {operands.w, "bias", "residual", "out", "scale", "shift"};
  o.x.check_dtype(operands.x.c_str());
  for (int i = 0; i < 6; ++i) {
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

void check_same_shape(const ArrayArgument& array, const char* name, const Description& call) {
  if (array.ndim() == call.y_ndim && std::equal(call.y_shape, call.y_shape + call.y_ndim, array.shape())) return;
  raise(PyExc_ValueError, std::string(name) + " has shape " + shape_text(array) + ", the result has shape " +
                              shape_text(call.y_shape, call.y_ndim));
}

// Refuses what 64-bit byte offsets could not address: broadcast inputs may have any product of sizes.
void check_bytes(const Operands& o, const Names& names, const std::int64_t sizes[4], int element) {
  __int128 bytes = element;
  for (int i = 0; i < 4; ++i) bytes *= sizes[i];
  if (bytes > largest_bytes) mismatch(o, names, "the tensors would not fit into memory");
}

// The result: `sizes` in N,C,H,W order, an array of `ndim` dimensions in `declared` order whose memory lies as `memory`.
void describe_result(const Operands& o, const Names& names, const std::int64_t sizes[4], int ndim, Layout declared,
                     Layout memory, Description& call) {
  static constexpr int order[2][4] = {{0, 1, 2, 3}, {0, 2, 3, 1}};
  const int element = element_bytes(call.problem.dtype);
  check_bytes(o, names, sizes, element);
  std::int64_t strides[4];
  dense_strides(sizes, memory, element, strides);
  call.y_bytes = element * sizes[0] * sizes[1] * sizes[2] * sizes[3];
  call.y_ndim = ndim;
  call.y_in_c_order = declared == memory;
  for (int i = 0; i < ndim; ++i) {
    const int from = order[static_cast<int>(declared)][i + 4 - ndim];
    call.y_shape[i] = sizes[from];
    call.y_strides[i] = strides[from];
  }
  if (o.residual) check_same_shape(o.residual, "residual", call);
  if (o.out) check_same_shape(o.out, "out", call);
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

void check_factor(const ArrayArgument& array, const char* name, std::int64_t channels) {
  if (array.ndim() == 1 && array.shape()[0] == channels) return;
  raise(PyExc_ValueError, std::string(name) + " has shape " + shape_text(array) + ", the result has " +
                              std::to_string(channels) + " channels: pass a number or an array of shape (" +
                              std::to_string(channels) + ",)");
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
  p.epilogue = options.activation == Activation::none    ? EpilogueClass::none
               : options.activation == Activation::clamp ? EpilogueClass::clamp
                                                         : EpilogueClass::other;
}

// As `describe`, for a weight gradient: x and w are the input and grad_output, the result is OIHW whatever the layout.
Description describe_weight_gradient(const Operands& o, const Options& options) {
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
  Description call;
  ConvProblem& p = call.problem;
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
  p.layout = memory_layout(x, options.layout, element, call.x_dense);
  if (const Refusal refused = complete(p)) mismatch(o, names, refused.text);
  if (p.oh != dy.sizes[2] || p.ow != dy.sizes[3]) {
    mismatch(o, names,
             "a convolution of the input with filters of " + std::to_string(p.kh) + " x " + std::to_string(p.kw) +
                 " has outputs of " + std::to_string(p.oh) + " x " + std::to_string(p.ow));
  }
  const std::int64_t sizes[4] = {p.o, p.c / p.groups, p.kh, p.kw};
  describe_result(o, names, sizes, 4, Layout::nchw, Layout::nchw, call);
  return call;
}

void check_channels(const Operands& o, const Names& names, const Options& options, const ConvProblem& p,
                    std::int64_t given) {
  if (const std::int64_t takes = options.op == Op::forward ? p.c : p.o; takes != given) {
    mismatch(o, names,
             "with groups=" + std::to_string(p.groups) + " " + names.w + " takes " + std::to_string(takes) +
                 " input channels, " + names.x + " has " + std::to_string(given) +
                 (options.layout == Layout::nchw ? " (layout 'NCHW')" : " (layout 'NHWC')"));
  }
  if (p.o % p.groups != 0) {
    mismatch(o, names,
             "the " + std::to_string(p.o) + (options.transposed ? " input" : " output") + " channels of " + names.w +
                 " are not divisible by groups=" + std::to_string(p.groups));
  }
}

// Size of a transposed convolution's result. `rows` and `columns` of x become what a convolution of the result has.
void fill_transposed(const Operands& o, const Names& names, const Options& options, ConvProblem& p, std::int64_t& rows,
                     std::int64_t& columns) {
  std::int64_t below, right;
  p.h = transposed_length(rows, p.kh, p.stride_h, p.dilation_h, options.extent[0], p.pad_top + p.pad_bottom, below);
  p.w = transposed_length(columns, p.kw, p.stride_w, p.dilation_w, options.extent[1], p.pad_left + p.pad_right, right);
  if (p.h < 1 || p.w < 1 || p.h >= size_limit || p.w >= size_limit) {
    mismatch(o, names,
             "with stride (" + std::to_string(p.stride_h) + ", " + std::to_string(p.stride_w) +
                 ") and this padding the result would be " + std::to_string(p.h) + " x " + std::to_string(p.w) +
                 " pixels; at least 1 and less than 2**31 along an axis are possible");
  }
  rows += below;
  columns += right;
}

}  // namespace

Description describe(const Operands& o, const Options& options, bool packed) {
  if (options.op == Op::weight_grad) return describe_weight_gradient(o, options);
  const Names names(options);
  check_dtypes(o, names);
  const bool forward = options.op == Op::forward;
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
  Description call;
  ConvProblem& p = call.problem;
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
  check_channels(o, names, options, p, x.sizes[1]);
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
    fill_transposed(o, names, options, p, rows, columns);
    const std::int64_t extended[4] = {x.sizes[0], x.sizes[1], rows, columns};
    check_bytes(o, names, extended, element);
  }
  p.layout = memory_layout(x, options.layout, element, call.x_dense);
  if (const Refusal refused = complete(p)) mismatch(o, names, refused.text);
  if (!forward && (p.oh != rows || p.ow != columns)) {
    mismatch(o, names,
             "an input of " + std::to_string(p.h) + " x " + std::to_string(p.w) + " pixels has outputs of " +
                 std::to_string(p.oh) + " x " + std::to_string(p.ow));
  }
  if (rows != x.sizes[2] || columns != x.sizes[3]) call.x_dense = false;
  const std::int64_t channels = result_channels(p);
  if (o.bias && (o.bias.ndim() != 1 || o.bias.shape()[0] != channels)) {
    raise(PyExc_ValueError, "bias has shape " + shape_text(o.bias) + ", w of shape " + shape_text(o.w) + " needs (" +
                                std::to_string(channels) + ",)");
  }
  if (o.scale) check_factor(o.scale, "scale", channels);
  if (o.shift) check_factor(o.shift, "shift", channels);
  call.follows = options.scale.kind || options.shift.kind || (o.residual && options.residual_after);
  if (call.follows) p.epilogue = EpilogueClass::other;

  const std::int64_t sizes[4] = {x.sizes[0], channels, forward ? p.oh : p.h, forward ? p.ow : p.w};
  describe_result(o, names, sizes, o.x.ndim(), options.layout, p.layout, call);
  return call;
}

ConvProblem describe_problem(const Operands& operands, const Options& options, bool packed) {
  const Description call = describe(operands, options, packed);
  if (call.y_bytes == 0) raise(PyExc_ValueError, "the batch is empty: there is nothing to choose");
  return call.problem;
}

}  // namespace convkit::bindings
