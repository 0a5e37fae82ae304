#include <pybind11/pybind11.h>

#define CONVKIT_IMPORTS_NUMPY
#include "bindings/arrays.hpp"
#include "bindings/calls.hpp"
#include "bindings/inventory.hpp"
#include "bindings/numpy_api.hpp"
#include "bindings/python_error.hpp"

PYBIND11_MODULE(_core, module) {
  using namespace convkit::bindings;
  if (PyArray_ImportNumPyAPI() < 0) throw pybind11::error_already_set();
  pybind11::register_local_exception_translator([](std::exception_ptr error) {
    try {
      if (error) std::rethrow_exception(error);
    } catch (const PythonError&) {
      // Its Python exception is set already.
    }
  });
  module.doc() = "The compiled core of convkit: kernels, plans and the two calls that run them.";
  add_inventory(module);
  add_trial(module);
  add_process(module);
  add_profile(module);
  add_transpose(module);
  try {
    import_numpy_functions();
    add_conv2d(module.ptr());
    add_transposed(module.ptr());
    add_weight_gradient(module.ptr());
    add_layer(module.ptr());
  } catch (const PythonError&) {
    throw pybind11::error_already_set();
  }
}
