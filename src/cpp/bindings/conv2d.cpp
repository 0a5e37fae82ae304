#include "calls.hpp"
#include "chooser.hpp"
#include "run.hpp"

namespace convkit::bindings {
namespace {

constexpr const char* names[] = {"x",           "w",        "bias",           "stride",     "padding",
                                 "dilation",    "groups",   "layout",         "activation", "residual",
                                 "scale",       "shift",    "residual_after", "out",        "algorithm",
                                 "num_threads", "accuracy", "workspace_limit"};
enum Position {
  at_x,
  at_w,
  at_bias,
  at_stride,
  at_padding,
  at_dilation,
  at_groups,
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
  static const ArgumentNames instance("conv2d", names, argument_count, at_layout, at_bias);
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
    parse_options(values, positions, options);
    parse_factors(values[at_scale], values[at_shift], options, operands);
  }
};

PyObject* problem_of(PyObject*, PyObject* const* arguments, Py_ssize_t given, PyObject* keyword_names) {
  return guarded([&] {
    const Call call(arguments, given, keyword_names);
    const Reference problem = problem_tuple(describe_problem(call.operands, call.options, false));
    return checked(Py_BuildValue("(Oi)", problem.get(), resolve_threads(call.options)));
  });
}

PyMethodDef methods[] = {
    {"conv2d", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(run_parsed<Call>)), METH_FASTCALL | METH_KEYWORDS,
     conv2d_doc},
    {"problem_of", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(problem_of)), METH_FASTCALL | METH_KEYWORDS,
     "The problem tuple and the thread count that conv2d would ask the chooser for, given the same arguments."},
    {"set_chooser", set_chooser, METH_O,
     "Registers f(problem, threads, algorithm, accuracy, workspace_limit) -> (kernel index, parameters, settle, "
     "strict); None "
     "goes back to the least predicted cost. Clears all plans."},
    {"set_context", set_context, METH_O, "Sets the tuning token of the current context, part of every plan's key."},
    {"context", context, METH_NOARGS, "The tuning token of the current context; 0 outside of any."},
    {"context_entered", context_entered, METH_NOARGS, "Counts a tuning context that calls must look for."},
    {"context_left", context_left, METH_NOARGS, "Undoes one context_entered()."},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

void add_conv2d(PyObject* module) {
  argument_names();
  make_context_variable();
  if (PyModule_AddFunctions(module, methods) < 0) throw PythonError{};
}

}  // namespace convkit::bindings
