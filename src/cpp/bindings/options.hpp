// The keyword values of a call, parsed.
#pragma once
#include <cstdint>

#include "../inventory.hpp"
#include "arrays.hpp"
#include "python_error.hpp"

namespace convkit::bindings {

enum class Padding : std::int32_t { sides = 0, same = 1, same_upper = 2, same_lower = 3 };

// A value that only the chooser understands, reduced to what may be compared bit by bit. The object is borrowed; a plan
// whose key holds it owns a reference, so that its address stays its own.
struct Opaque {
  enum Kind : std::int32_t { none = 0, interned = 1, real = 2, integer = 3, object = 4 };
  PyObject* value = nullptr;
  Kind kind = none;
  std::int64_t bits = 0;
};

// A number for all channels of the result, or an array with one for each, which is among the operands.
struct Factor {
  enum Kind : std::int32_t { none = 0, number = 1, array = 2 };
  Kind kind = none;
  double value = 0;
};

// What a key repeats as it lies here.
struct Window {
  // input_grad: height and width of the result, or what output_padding adds to them; weight_grad: of the filters.
  std::int32_t extent[2] = {0, 0};
  std::int32_t stride[2] = {1, 1};
  std::int32_t dilation[2] = {1, 1};
  std::int32_t pads[4] = {0, 0, 0, 0};  // top, bottom, left, right, where padding is `sides`
  Padding padding = Padding::sides;
  std::int32_t groups = 1;
};

struct Options : Window {
  Op op = Op::forward;
  bool transposed = false;  // input_grad: called as a transposed convolution
  Layout layout = Layout::nchw;
  Activation activation = Activation::none;
  double lo = 0, hi = 0;
  Factor scale, shift;          // after the activation
  bool residual_after = false;  // the residual is added last
  int threads = 0;              // 0: default_team()
  Opaque algorithm, accuracy, workspace_limit;
};

// The parsers take any object, null standing for "not given", and raise TypeError or ValueError.
//
// The items of any sequence as a tuple of its own: an item's __index__ may change what it came from. A TypeError says
// `expected` of what is no sequence.
Reference sequence_items(PyObject* object, const char* expected);
void parse_pair(PyObject* object, const char* name, std::int32_t least, std::int32_t out[2]);
void parse_padding(PyObject* object, Options& options);
std::int32_t parse_integer(PyObject* object, const char* name, std::int32_t least);
// Refuses what a transposed convolution cannot have: its result's size follows from numbers.
void parse_transposed_padding(PyObject* object, Options& options);
Layout parse_layout(PyObject* object);
void parse_activation(PyObject* object, Options& options);
bool parse_flag(PyObject* object, const char* name);
Factor parse_factor(PyObject* object, const char* name, ArrayArgument& array);
// Both of a call's arguments.
void parse_factors(PyObject* scale, PyObject* shift, Options& options, Operands& operands);
Opaque parse_opaque(PyObject* object);
Opaque parse_workspace_limit(PyObject* object);

// Positions of the options that all calls share, within an array of argument values; a gradient has no epilogue (-1).
struct OptionPositions {
  int stride, padding, dilation, groups, layout, activation, residual_after, algorithm, num_threads, accuracy,
      workspace_limit;
};
// `values` are what ArgumentNames::bind filled in.
void parse_options(PyObject* const* values, const OptionPositions& at, Options& options);

const char* activation_name(Activation activation);

// Whether `out` is the residual, and is still to be read when y is written.
inline bool adds_late_in_place(const Operands& o, const Options& options) {
  return options.residual_after && o.out && o.residual && o.out.data() == o.residual.data();
}

// Names of a raw entry's arguments: the first `positional` may be given by position, the rest by name only.
class ArgumentNames {
 public:
  static constexpr int most = 20;
  ArgumentNames(const char* function, const char* const* names, int count, int positional, int required);
  // Sorts the arguments of a vectorcall into `values` (count entries, null where not given).
  void bind(PyObject* const* arguments, Py_ssize_t given, PyObject* keyword_names, PyObject** values) const;

 private:
  int find(PyObject* name) const;

  static constexpr int slot_bits = 7;
  std::size_t slot(const PyObject* name) const {
    return reinterpret_cast<std::uintptr_t>(name) * multiplier_ >> (64 - slot_bits);
  }
  // Whether each name got a slot of its own; the constructor looks for a multiplier that does it.
  bool place();

  const char* function_;
  PyObject* names_[most];  // interned, so that almost every caller's name is found by its address
  int count_, positional_, required_;
  std::uint64_t multiplier_ = 0x9E3779B97F4A7C15u;
  std::int8_t position_in_[1 << slot_bits];
};

}  // namespace convkit::bindings
