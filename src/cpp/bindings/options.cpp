#include "options.hpp"

#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include "gil.hpp"

namespace convkit::bindings {
namespace {

std::string repr(PyObject* object) {
  const Reference text(checked(retaking_gil([&] { return PyObject_Repr(object); })));
  const char* utf8 = PyUnicode_AsUTF8(text.get());
  if (!utf8) throw PythonError{};
  return utf8;
}

// A str argument that has a fixed set of values: which one `object` is, or -1.
int position_in(PyObject* object, const char* const* names, int count) {
  if (!PyUnicode_Check(object)) return -1;
  for (int i = 0; i < count; ++i) {
    if (PyUnicode_CompareWithASCIIString(object, names[i]) == 0) return i;
  }
  return -1;
}

// The items of a tuple or a list, as a tuple of its own: an item's __index__ or repr may change the list that it came from.
// Null for anything else.
Reference items_of(PyObject* object) {
  if (PyTuple_Check(object)) return Reference::borrow(object);
  return PyList_Check(object) ? Reference(checked(PyList_AsTuple(object))) : Reference();
}

Py_ssize_t count(const Reference& items) { return items ? PyTuple_GET_SIZE(items.get()) : 0; }
PyObject* item(const Reference& items, Py_ssize_t i) { return PyTuple_GET_ITEM(items.get(), i); }

// `expected` completes the sentence that says what is wrong.
double parse_real(PyObject* object, const char* name, const char* expected) {
  const double value = retaking_gil([&] { return PyFloat_AsDouble(object); });
  if (value == -1.0 && PyErr_Occurred()) {
    if (!PyErr_ExceptionMatches(PyExc_TypeError)) throw PythonError{};
    PyErr_Clear();
    raise(PyExc_TypeError, std::string(name) + " must be " + expected + ", not " + repr(object));
  }
  if (std::isnan(value)) raise(PyExc_ValueError, std::string(name) + " is NaN");
  return value;
}

constexpr const char* padding_forms =
    "padding must be an int, a pair, ((top, bottom), (left, right)), 'valid', 'same', 'same_upper' or 'same_lower', "
    "not ";
constexpr const char* activation_forms =
    "activation must be None, 'relu', 'relu6', ('clip', lo, hi), 'silu', 'hardswish', 'sigmoid', 'tanh', 'gelu', "
    "'gelu_tanh' or ('leaky_relu', slope), not ";

}  // namespace

Reference sequence_items(PyObject* object, const char* expected) {
  if (PyTuple_Check(object)) return Reference::borrow(object);
  const Reference items(retaking_gil([&] { return PySequence_Fast(object, expected); }));
  return items_of(checked(items.get()));
}

std::int32_t parse_integer(PyObject* object, const char* name, std::int32_t least) {
  long long value;
  int overflow = 0;
  if (PyLong_CheckExact(object)) {
    value = PyLong_AsLongLongAndOverflow(object, &overflow);
  } else {
    const Reference index(retaking_gil([&] { return PyNumber_Index(object); }));
    if (!index) {
      if (!PyErr_ExceptionMatches(PyExc_TypeError)) throw PythonError{};
      PyErr_Clear();
      raise(PyExc_TypeError, std::string(name) + " must be an int, not " + repr(object));
    }
    value = PyLong_AsLongLongAndOverflow(index.get(), &overflow);
  }
  if (overflow || value < least || value > std::numeric_limits<std::int32_t>::max()) {
    raise(PyExc_ValueError,
          std::string(name) + " must be at least " + std::to_string(least) + " and below 2**31, not " + repr(object));
  }
  return static_cast<std::int32_t>(value);
}

void parse_pair(PyObject* object, const char* name, std::int32_t least, std::int32_t out[2]) {
  if (PyLong_CheckExact(object)) {
    out[0] = out[1] = parse_integer(object, name, least);
    return;
  }
  if (const Reference items = items_of(object); count(items) == 2) {
    out[0] = parse_integer(item(items, 0), name, least);
    out[1] = parse_integer(item(items, 1), name, least);
  } else if (PyIndex_Check(object)) {
    out[0] = out[1] = parse_integer(object, name, least);
  } else {
    raise(PyExc_TypeError,
          std::string(name) + " must be an int or a pair (height, width) of ints, not " + repr(object));
  }
}

void parse_padding(PyObject* object, Options& options) {
  std::int32_t* pads = options.pads;
  options.padding = Padding::sides;
  if (PyUnicode_Check(object)) {
    static constexpr const char* names[] = {"valid", "same", "same_upper", "same_lower"};
    const int which = position_in(object, names, 4);
    if (which < 0) raise(PyExc_ValueError, padding_forms + repr(object));
    options.padding = static_cast<Padding>(which);  // "valid" is four sides of 0
    std::memset(pads, 0, sizeof options.pads);
    return;
  }
  const Reference items = items_of(object);
  if (count(items) == 2) {
    const Reference rows = items_of(item(items, 0)), columns = items_of(item(items, 1));
    if (count(rows) == 2 && count(columns) == 2) {
      parse_pair(rows.get(), "padding", 0, pads);
      parse_pair(columns.get(), "padding", 0, pads + 2);
      return;
    }
  } else if (!PyIndex_Check(object)) {
    raise(PyExc_TypeError, padding_forms + repr(object));
  }
  std::int32_t pair[2];
  parse_pair(items ? items.get() : object, "padding", 0, pair);
  pads[0] = pads[1] = pair[0];
  pads[2] = pads[3] = pair[1];
}

void parse_transposed_padding(PyObject* object, Options& options) {
  if (PyUnicode_Check(object)) {
    raise(PyExc_ValueError,
          "padding of a transposed convolution must be an int, a pair or ((top, bottom), (left, right)), not " +
              repr(object));
  }
  parse_padding(object, options);
}

Layout parse_layout(PyObject* object) {
  static constexpr const char* names[] = {"NCHW", "NHWC"};
  const int which = position_in(object, names, 2);
  if (which < 0) raise(PyExc_ValueError, "layout must be 'NCHW' or 'NHWC', not " + repr(object));
  return static_cast<Layout>(which);
}

void parse_activation(PyObject* object, Options& options) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  options.lo = -infinity;
  options.hi = infinity;
  if (PyUnicode_Check(object)) {
    static constexpr const char* names[] = {"relu",    "relu6", "silu", "hardswish",
                                            "sigmoid", "tanh",  "gelu", "gelu_tanh"};
    static constexpr Activation activations[] = {Activation::clamp,     Activation::clamp,    Activation::silu,
                                                 Activation::hardswish, Activation::sigmoid,  Activation::tanh,
                                                 Activation::gelu,      Activation::gelu_tanh};
    const int which = position_in(object, names, 8);
    if (which < 0) raise(PyExc_ValueError, activation_forms + repr(object));
    options.activation = activations[which];
    if (which < 2) options.lo = 0;
    if (which == 1) options.hi = 6;
    return;
  }
  const Reference items = items_of(object);
  if (!items) raise(PyExc_TypeError, activation_forms + repr(object));
  const Py_ssize_t size = count(items);
  static constexpr const char* clip[] = {"clip"};
  static constexpr const char* leaky[] = {"leaky_relu"};
  if (size == 3 && position_in(item(items, 0), clip, 1) == 0) {
    options.activation = Activation::clamp;
    if (item(items, 1) != Py_None) options.lo = parse_real(item(items, 1), "lo of activation", "a number");
    if (item(items, 2) != Py_None) options.hi = parse_real(item(items, 2), "hi of activation", "a number");
    if (options.lo > options.hi) raise(PyExc_ValueError, "lo is above hi in activation " + repr(object));
  } else if (size == 2 && position_in(item(items, 0), leaky, 1) == 0) {
    options.activation = Activation::leaky_relu;
    options.lo = parse_real(item(items, 1), "slope of activation", "a number");
  } else {
    raise(PyExc_ValueError, activation_forms + repr(object));
  }
}

bool parse_flag(PyObject* object, const char* name) {
  if (object == Py_True || object == Py_False) return object == Py_True;
  if (PyArray_IsScalar(object, Bool)) return PyObject_IsTrue(object) == 1;
  raise(PyExc_TypeError, std::string(name) + " must be True or False, not " + repr(object));
}

Factor parse_factor(PyObject* object, const char* name, ArrayArgument& array) {
  const auto is_array = [&] {
    return PyArray_Check(object) || retaking_gil([&] { return PyObject_HasAttrString(object, "__dlpack__"); }) != 0;
  };
  if (PyFloat_Check(object) || PyLong_Check(object) || PyArray_IsScalar(object, Generic) || !is_array()) {
    return {Factor::number, parse_real(object, name, "a number or an array with one for each channel of the result")};
  }
  array = ArrayArgument(object, name);
  if (array.ndim() > 0) return {Factor::array, 0};
  const Reference value(checked(PyArray_GETITEM(array.get(), array.data())));
  array = ArrayArgument();
  return {Factor::number, parse_real(value.get(), name, "a number")};
}

void parse_factors(PyObject* scale, PyObject* shift, Options& options, Operands& operands) {
  if (scale && scale != Py_None) options.scale = parse_factor(scale, "scale", operands.scale);
  if (shift && shift != Py_None) options.shift = parse_factor(shift, "shift", operands.shift);
}

Opaque parse_opaque(PyObject* object) {
  Opaque opaque;
  opaque.value = object;
  if (PyUnicode_CheckExact(object)) {
    // Equal strings become one object, which the interpreter's table or the plan keeps alive.
    Py_INCREF(object);
    PyUnicode_InternInPlace(&object);
    Py_DECREF(object);
    opaque.value = object;
    opaque.kind = Opaque::interned;
    opaque.bits = reinterpret_cast<std::intptr_t>(object);
  } else if (PyFloat_Check(object)) {
    opaque.kind = Opaque::real;
    const double value = PyFloat_AS_DOUBLE(object);
    std::memcpy(&opaque.bits, &value, sizeof value);
  } else {
    int overflow = 1;
    if (PyLong_CheckExact(object)) opaque.bits = PyLong_AsLongLongAndOverflow(object, &overflow);
    opaque.kind = overflow ? Opaque::object : Opaque::integer;
    if (overflow) opaque.bits = reinterpret_cast<std::intptr_t>(object);
  }
  return opaque;
}

Opaque parse_workspace_limit(PyObject* object) {
  const Reference index(retaking_gil([&] { return PyNumber_Index(object); }));
  if (!index) {
    if (!PyErr_ExceptionMatches(PyExc_TypeError)) throw PythonError{};
    PyErr_Clear();
    raise(PyExc_TypeError, "workspace_limit must be an int, in bytes, not " + repr(object));
  }
  int overflow = 0;
  const long long bytes = PyLong_AsLongLongAndOverflow(index.get(), &overflow);
  if (overflow || bytes < 0) {
    raise(PyExc_ValueError, "workspace_limit must be at least 0 and below 2**63 bytes, not " + repr(object));
  }
  Opaque opaque;
  opaque.value = object;
  opaque.kind = Opaque::integer;
  opaque.bits = bytes;
  return opaque;
}

void parse_options(PyObject* const* values, const OptionPositions& at, Options& options) {
  const auto given = [&](int position) -> PyObject* {
    PyObject* value = values[position];
    return value == Py_None ? nullptr : value;
  };
  if (values[at.stride]) parse_pair(values[at.stride], "stride", 1, options.stride);
  if (values[at.padding]) {
    options.transposed ? parse_transposed_padding(values[at.padding], options)
                       : parse_padding(values[at.padding], options);
  }
  if (values[at.dilation]) parse_pair(values[at.dilation], "dilation", 1, options.dilation);
  if (values[at.groups]) options.groups = parse_integer(values[at.groups], "groups", 1);
  if (values[at.layout]) options.layout = parse_layout(values[at.layout]);
  if (at.activation >= 0) {
    if (PyObject* value = given(at.activation)) parse_activation(value, options);
    if (values[at.residual_after]) options.residual_after = parse_flag(values[at.residual_after], "residual_after");
  }
  if (PyObject* value = given(at.num_threads)) options.threads = parse_integer(value, "num_threads", 1);
  if (PyObject* value = given(at.algorithm)) options.algorithm = parse_opaque(value);
  if (PyObject* value = given(at.accuracy)) options.accuracy = parse_opaque(value);
  if (PyObject* value = given(at.workspace_limit)) options.workspace_limit = parse_workspace_limit(value);
}

const char* activation_name(Activation activation) {
  static constexpr const char* names[] = {"none", "clip",       "silu", "hardswish", "sigmoid",
                                          "tanh", "leaky_relu", "gelu", "gelu_tanh"};
  return names[static_cast<int>(activation)];
}

ArgumentNames::ArgumentNames(const char* function, const char* const* names, int count, int positional, int required)
    : function_(function), count_(count), positional_(positional), required_(required) {
  for (int i = 0; i < count; ++i) names_[i] = checked(PyUnicode_InternFromString(names[i]));
  for (int attempt = 0; attempt < 1000 && !place(); ++attempt) multiplier_ = multiplier_ * 0xD1342543DE82EF95u | 1;
}

bool ArgumentNames::place() {
  std::memset(position_in_, -1, sizeof position_in_);
  for (int i = 0; i < count_; ++i) {
    std::int8_t& position = position_in_[slot(names_[i])];
    if (position >= 0) return false;
    position = static_cast<std::int8_t>(i);
  }
  return true;
}

int ArgumentNames::find(PyObject* name) const {
  if (const int likely = position_in_[slot(name)]; likely >= 0 && names_[likely] == name) return likely;
  for (int i = 0; i < count_; ++i) {
    const int order = PyUnicode_Compare(names_[i], name);
    if (order == -1 && PyErr_Occurred()) throw PythonError{};
    if (order == 0) return i;
  }
  raise(PyExc_TypeError, std::string(function_) + "() got an unexpected keyword argument " + repr(name));
}

void ArgumentNames::bind(PyObject* const* arguments, Py_ssize_t given, PyObject* keyword_names,
                         PyObject** values) const {
  if (given > positional_) {
    raise(PyExc_TypeError, std::string(function_) + "() takes at most " + std::to_string(positional_) +
                               " positional arguments, " + std::to_string(given) + " were given");
  }
  for (Py_ssize_t i = 0; i < given; ++i) values[i] = arguments[i];
  for (Py_ssize_t i = given; i < count_; ++i) values[i] = nullptr;
  const Py_ssize_t keywords = keyword_names ? PyTuple_GET_SIZE(keyword_names) : 0;
  for (Py_ssize_t i = 0; i < keywords; ++i) {
    PyObject* name = PyTuple_GET_ITEM(keyword_names, i);
    PyObject*& value = values[find(name)];
    if (value) {
      raise(PyExc_TypeError, std::string(function_) + "() got multiple values for argument " + repr(name));
    }
    value = arguments[given + i];
  }
  for (int i = 0; i < required_; ++i) {
    if (!values[i]) {
      const char* name = PyUnicode_AsUTF8(names_[i]);
      raise(PyExc_TypeError, std::string(function_) + "() is missing its argument '" + (name ? name : "?") + "'");
    }
  }
}

}  // namespace convkit::bindings
