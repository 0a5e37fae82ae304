#include "layer_arguments.hpp"

#include <string>

#include "gil.hpp"
#include "layer_weights.hpp"

namespace convkit::bindings {
namespace {

// Channels of the result.
npy_intp channels(const ArrayArgument& w, const Options& options) {
  return options.transposed ? w.shape()[1] * options.groups : w.shape()[0];
}

}  // namespace

void check_weights(const ArrayArgument& w, const ArrayArgument& bias, const Options& options) {
  if (w.ndim() != 4) {
    raise(PyExc_ValueError, "w has shape " + shape_text(w) + ", expected " +
                                (options.transposed ? "(C, O/groups, KH, KW)" : "(O, C/groups, KH, KW)"));
  }
  for (int i = 0; i < 4; ++i) {
    if (w.shape()[i] == 0 || w.shape()[i] >= size_limit) {
      raise(PyExc_ValueError, "w has shape " + shape_text(w) + ": no size may be 0, or 2**31 and above");
    }
  }
  if (!bias) return;
  if (bias.dtype() != w.dtype()) {
    raise(PyExc_TypeError, std::string("w has dtype ") + dtype_name(w.dtype()) + " and bias has dtype " +
                               dtype_name(bias.dtype()) + "; convkit never casts: give all arrays one dtype");
  }
  if (bias.ndim() != 1 || bias.shape()[0] != channels(w, options)) {
    raise(PyExc_ValueError, "bias has shape " + shape_text(bias) + ", w of shape " + shape_text(w) + " needs (" +
                                std::to_string(channels(w, options)) + ",)");
  }
}

void check_options(const ArrayArgument& w, const Options& options) {
  if (w.shape()[0] % options.groups != 0) {
    raise(PyExc_ValueError, "the " + std::to_string(w.shape()[0]) + (options.transposed ? " input" : " output") +
                                " channels of w, of shape " + shape_text(w) +
                                ", are not divisible by groups=" + std::to_string(options.groups));
  }
  if (options.padding == Padding::same && (options.stride[0] != 1 || options.stride[1] != 1)) {
    raise(PyExc_ValueError, "padding 'same' needs stride 1; 'same_upper' and 'same_lower' take any stride");
  }
}

Reference values_of(PyObject* object, const char* name, const ArrayArgument& w, const Options& options) {
  if (!object || object == Py_None) return Reference();
  ArrayArgument array;
  const Factor factor = parse_factor(object, name, array);
  const npy_intp size = channels(w, options);
  if (array && array.dtype() != w.dtype()) {
    raise(PyExc_TypeError, std::string("w has dtype ") + dtype_name(w.dtype()) + " and " + name + " has dtype " +
                               dtype_name(array.dtype()) + "; convkit never casts: give all arrays one dtype");
  }
  if (array && (array.ndim() != 1 || array.shape()[0] != size)) {
    raise(PyExc_ValueError, std::string(name) + " has shape " + shape_text(array) + ", w of shape " + shape_text(w) +
                                " needs a number or (" + std::to_string(size) + ",)");
  }
  return frozen_values(factor, array, w.dtype(), size);
}

bool parse_memory(PyObject* object) {
  if (PyUnicode_Check(object)) {
    if (PyUnicode_CompareWithASCIIString(object, "fast") == 0) return true;
    if (PyUnicode_CompareWithASCIIString(object, "low") == 0) return false;
  }
  const Reference text(checked(retaking_gil([&] { return PyObject_Repr(object); })));
  const char* utf8 = PyUnicode_AsUTF8(text.get());
  if (!utf8) throw PythonError{};
  raise(PyExc_ValueError, std::string("memory must be 'fast' or 'low', not ") + utf8);
}

}  // namespace convkit::bindings
