#include <pybind11/pybind11.h>

#define CONVKIT_IMPORTS_NUMPY
#include "bindings/arrays.hpp"
#include "bindings/calls.hpp"
#include "bindings/free_threading.hpp"
#include "bindings/module_parts.hpp"
#include "bindings/numpy_api.hpp"
#include "bindings/python_error.hpp"

#include <stdexcept>

namespace {

constexpr char only_main[] =
    "convkit cannot be imported in a sub-interpreter: import and call it in the main interpreter of the process";

bool in_main_interpreter() { return PyInterpreterState_Get() == PyInterpreterState_Main(); }

}  // namespace

// Says that it can be loaded everywhere, so that it is this module that refuses, and its own sentence that a user reads.
PYBIND11_MODULE(checked_core, module, pybind11::mod_gil_not_used(),
                pybind11::multiple_interpreters::per_interpreter_gil()) {
  using namespace convkit::bindings;
  if (!in_main_interpreter()) throw std::runtime_error(only_main);
  if (PyArray_ImportNumPyAPI() < 0) throw pybind11::error_already_set();
  keep_mutexes_of_pybind11_free_in_children();
  pybind11::register_local_exception_translator([](std::exception_ptr error) {
    try {
      if (error) std::rethrow_exception(error);
    } catch (const PythonError&) {
      // Its Python exception is set already.
    }
  });
  module.doc() = "The compiled core of convkit: kernels, plans and the two calls that run them.";
  add_inventory(module);
  add_runner(module);
  add_process(module);
  add_profile(module);
  add_transpose(module);
  add_filters(module);
  add_images(module);
  add_unchanged(module);
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

// Python 3.11 and 3.12 are in the sub-interpreter already when they come here, where what pybind11 does first may wait for
// the main interpreter's lock for ever; Python 3.13 first gets to the body above.
extern "C" PYBIND11_EXPORT PyObject* PyInit__core() {
  if (in_main_interpreter()) return PyInit_checked_core();
  PyErr_SetString(PyExc_ImportError, only_main);
  return nullptr;
}
