// The input gradient, under the two names that people know it by: conv2d_input and conv_transpose2d.
#include "calls.hpp"
#include "run.hpp"

namespace convkit::bindings {
namespace {

// --- conv2d_input ------------------------------------------------------------------------------------------------------

namespace input {

constexpr const char* names[] = {"input_size",  "weight",   "grad_output",    "stride", "padding",
                                 "dilation",    "groups",   "layout",         "out",    "algorithm",
                                 "num_threads", "accuracy", "workspace_limit"};
enum Position {
  at_input_size,
  at_weight,
  at_grad_output,
  at_stride,
  at_padding,
  at_dilation,
  at_groups,
  at_layout,
  at_out,
  at_algorithm,
  at_num_threads,
  at_accuracy,
  at_workspace_limit,
  argument_count
};
constexpr OptionPositions positions{at_stride, at_padding,   at_dilation,    at_groups,   at_layout,         -1,
                                    -1,        at_algorithm, at_num_threads, at_accuracy, at_workspace_limit};

const ArgumentNames& argument_names() {
  static const ArgumentNames instance("conv2d_input", names, argument_count, at_layout, at_stride);
  return instance;
}

// Takes height and width from input_size, and checks what the arrays tell, too.
void parse_input_size(PyObject* object, const Operands& operands, Options& options) {
  const Reference sizes = sequence_items(object, "input_size must be a sequence of ints: the shape of the input");
  const Py_ssize_t count = PyTuple_GET_SIZE(sizes.get());
  if (count != operands.x.ndim() || (count != 3 && count != 4)) {
    raise(PyExc_ValueError, "input_size must have 4 numbers, or 3 without a batch, as many as grad_output of shape " +
                                shape_text(operands.x) + " has dimensions; it has " + std::to_string(count));
  }
  npy_intp values[4];
  for (Py_ssize_t i = 0; i < count; ++i) {
    values[i] = parse_integer(PyTuple_GET_ITEM(sizes.get(), i), "input_size", 0);
  }
  const Py_ssize_t batch = count - 3;
  const bool nchw = options.layout == Layout::nchw;
  options.extent[0] = static_cast<std::int32_t>(values[batch + (nchw ? 1 : 0)]);
  options.extent[1] = static_cast<std::int32_t>(values[batch + (nchw ? 2 : 1)]);
  if (operands.w.ndim() != 4) return;  // refused with a better text where problems are described
  const npy_intp channels = values[nchw ? batch : batch + 2];
  if (channels % options.groups != 0 || channels / options.groups != operands.w.shape()[1] ||
      (batch && values[0] != operands.x.shape()[0])) {
    raise(PyExc_ValueError, "input_size " + shape_text(values, static_cast<int>(count)) +
                                " does not go with weight of shape " + shape_text(operands.w) +
                                ", grad_output of shape " + shape_text(operands.x) +
                                " and groups=" + std::to_string(options.groups));
  }
}

struct Call : ParsedCall {
  Call(PyObject* const* arguments, Py_ssize_t given, PyObject* keyword_names) {
    PyObject* values[ArgumentNames::most];
    argument_names().bind(arguments, given, keyword_names, values);
    operands.x = ArrayArgument(values[at_grad_output], "grad_output");
    operands.w = ArrayArgument(values[at_weight], "weight");
    operands.out = optional_array(values[at_out], "out");
    out_object = values[at_out];
    options.op = Op::input_grad;
    parse_options(values, positions, options);
    parse_input_size(values[at_input_size], operands, options);
  }
};

}  // namespace input

// --- conv_transpose2d --------------------------------------------------------------------------------------------------

namespace transposed {

constexpr const char* names[] = {
    "x",        "w",         "bias",        "stride",   "padding",        "output_padding", "groups",
    "dilation", "layout",    "activation",  "residual", "scale",          "shift",          "residual_after",
    "out",      "algorithm", "num_threads", "accuracy", "workspace_limit"};
enum Position {
  at_x,
  at_w,
  at_bias,
  at_stride,
  at_padding,
  at_output_padding,
  at_groups,
  at_dilation,
  at_layout,
  at_activation,
  at_residual,
  at_scale,
  at_shift,
  at_residual_after,
  at_out,
  at_algorithm,
  at_num_threads,
  at_accuracy,
  at_workspace_limit,
  argument_count
};
constexpr OptionPositions positions{at_stride,      at_padding,    at_dilation,       at_groups,
                                    at_layout,      at_activation, at_residual_after, at_algorithm,
                                    at_num_threads, at_accuracy,   at_workspace_limit};

const ArgumentNames& argument_names() {
  static const ArgumentNames instance("conv_transpose2d", names, argument_count, at_layout, at_bias);
  return instance;
}

struct Call : ParsedCall {
  Call(PyObject* const* arguments, Py_ssize_t given, PyObject* keyword_names) {
    PyObject* values[ArgumentNames::most];
    argument_names().bind(arguments, given, keyword_names, values);
    operands.x = ArrayArgument(values[at_x], "x");
    operands.w = ArrayArgument(values[at_w], "w");
    operands.bias = optional_array(values[at_bias], "bias");
    operands.residual = optional_array(values[at_residual], "residual");
    operands.out = optional_array(values[at_out], "out");
    out_object = values[at_out];
    options.op = Op::input_grad;
    options.transposed = true;
    parse_options(values, positions, options);
    parse_factors(values[at_scale], values[at_shift], options, operands);
    if (values[at_output_padding]) parse_pair(values[at_output_padding], "output_padding", 0, options.extent);
  }
};

}  // namespace transposed

PyMethodDef methods[] = {
    {"conv2d_input", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(run_parsed<input::Call>)),
     METH_FASTCALL | METH_KEYWORDS, conv2d_input_doc},
    {"conv_transpose2d", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(run_parsed<transposed::Call>)),
     METH_FASTCALL | METH_KEYWORDS, conv_transpose2d_doc},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

void add_transposed(PyObject* module) {
  input::argument_names();
  transposed::argument_names();
  if (PyModule_AddFunctions(module, methods) < 0) throw PythonError{};
}

}  // namespace convkit::bindings
