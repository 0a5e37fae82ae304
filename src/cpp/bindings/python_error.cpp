#include "python_error.hpp"

#include <pybind11/pybind11.h>

namespace convkit::bindings {

void set_python_error() noexcept {
  try {
    throw;
  } catch (pybind11::error_already_set& error) {
    error.restore();
  } catch (const std::bad_alloc&) {
    PyErr_SetString(PyExc_MemoryError, "convkit: a workspace or an output of this size cannot be had");
  } catch (const std::invalid_argument& error) {
    PyErr_SetString(PyExc_ValueError, error.what());
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  } catch (...) {
    PyErr_SetString(PyExc_RuntimeError, "convkit: unknown C++ exception");
  }
}

}  // namespace convkit::bindings
