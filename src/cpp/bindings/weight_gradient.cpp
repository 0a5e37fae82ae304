// The call conv2d_weight.
#include "calls.hpp"
#include "run.hpp"

namespace convkit::bindings {
namespace {

constexpr const char* names[] = {"input",       "weight_size", "grad_output",    "stride", "padding",
                                 "dilation",    "groups",      "layout",         "out",    "algorithm",
                                 "num_threads", "accuracy",    "workspace_limit"};
enum Position {
  at_input,
  at_weight_size,
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
  static const ArgumentNames instance("conv2d_weight", names, argument_count, at_layout, at_stride);
  return instance;
}

// Takes the filter's height and width from weight_size, and checks what the arrays tell, too.
void parse_weight_size(PyObject* object, const Operands& operands, Options& options) {
  const Reference sizes = sequence_items(object, "weight_size must be a sequence of ints: (O, C/groups, KH, KW)");
  const Py_ssize_t count = PyTuple_GET_SIZE(sizes.get());
  if (count != 4) {
    raise(PyExc_ValueError, "weight_size must have 4 numbers, (O, C/groups, KH, KW); it has " + std::to_string(count));
  }
  npy_intp values[4];
  for (Py_ssize_t i = 0; i < count; ++i) {
    values[i] = parse_integer(PyTuple_GET_ITEM(sizes.get(), i), "weight_size", 1);
  }
  options.extent[0] = static_cast<std::int32_t>(values[2]);
  options.extent[1] = static_cast<std::int32_t>(values[3]);
  const int dimensions = operands.x.ndim(), batch = dimensions - 3;
  // Refused with a better text where problems are described.
  if ((batch != 0 && batch != 1) || operands.w.ndim() != dimensions) return;
  const int channel = options.layout == Layout::nchw ? batch : batch + 2;
  if (values[0] != operands.w.shape()[channel] || values[1] * options.groups != operands.x.shape()[channel]) {
    raise(PyExc_ValueError, "weight_size " + shape_text(values, 4) + " does not go with input of shape " +
                                shape_text(operands.x) + ", grad_output of shape " + shape_text(operands.w) +
                                " and groups=" + std::to_string(options.groups));
  }
}

struct Call : ParsedCall {
  Call(PyObject* const* arguments, Py_ssize_t given, PyObject* keyword_names) {
    PyObject* values[ArgumentNames::most];
    argument_names().bind(arguments, given, keyword_names, values);
    operands.x = ArrayArgument(values[at_input], "input");
    operands.w = ArrayArgument(values[at_grad_output], "grad_output");
    operands.out = optional_array(values[at_out], "out");
    out_object = values[at_out];
    options.op = Op::weight_grad;
    parse_options(values, positions, options);
    parse_weight_size(values[at_weight_size], operands, options);
  }
};

PyMethodDef methods[] = {
    {"conv2d_weight", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(run_parsed<Call>)),
     METH_FASTCALL | METH_KEYWORDS, conv2d_weight_doc},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

void add_weight_gradient(PyObject* module) {
  argument_names();
  if (PyModule_AddFunctions(module, methods) < 0) throw PythonError{};
}

}  // namespace convkit::bindings
