// What a layer is made of, checked. All raise TypeError or ValueError.
#pragma once
#include "options.hpp"

namespace convkit::bindings {

void check_weights(const ArrayArgument& w, const ArrayArgument& bias, const Options& options);
void check_options(const ArrayArgument& w, const Options& options);
// A factor's values as the layer keeps them; `name` is the argument's.
Reference values_of(PyObject* object, const char* name, const ArrayArgument& w, const Options& options);
// Whether packings are kept.
bool parse_memory(PyObject* object);

}  // namespace convkit::bindings
