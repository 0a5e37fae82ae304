#include "python_error.hpp"

#include <pybind11/pybind11.h>

namespace convkit::bindings {

PyObject* take_exception() {
  PyObject *type, *value, *trace;
  PyErr_Fetch(&type, &value, &trace);
  if (!type) return nullptr;
  PyErr_NormalizeException(&type, &value, &trace);
  if (trace) PyException_SetTraceback(value, trace);
  Py_DECREF(type);
  Py_XDECREF(trace);
  return value;
}

void raise_from(PyObject* type, const std::string& text, PyObject* cause) {
  PyErr_SetString(type, text.c_str());
  PyObject* error = take_exception();
  PyException_SetCause(error, Py_NewRef(cause));  // takes the reference
  PyException_SetContext(error, Py_NewRef(cause));
  PyErr_Restore(Py_NewRef(reinterpret_cast<PyObject*>(Py_TYPE(error))), error, PyException_GetTraceback(error));
  throw PythonError{};
}

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
