// Errors between C++ and Python for the raw entries, which pybind11's dispatcher does not guard.
#pragma once
#include <Python.h>

#include <new>
#include <stdexcept>
#include <string>

#include "gil.hpp"

namespace convkit::bindings {

// A Python exception is set and travels up.
struct PythonError {};

[[noreturn]] inline void raise(PyObject* type, const std::string& text) {
  PyErr_SetString(type, text.c_str());
  throw PythonError{};
}

// The same, with `cause` as the exception's __cause__.
[[noreturn]] void raise_from(PyObject* type, const std::string& text, PyObject* cause);

// New references, checked.
inline PyObject* checked(PyObject* object) {
  if (!object) throw PythonError{};
  return object;
}

// The exception that is set, taken away, as a new reference; null if there is none.
PyObject* take_exception();

// Owns one reference.
class Reference {
 public:
  Reference() = default;
  explicit Reference(PyObject* owned) : object_(owned) {}
  Reference(Reference&& other) noexcept : object_(other.release()) {}
  Reference& operator=(Reference&& other) noexcept {
    PyObject* old = object_;
    object_ = other.release();
    Py_XDECREF(old);
    return *this;
  }
  ~Reference() { Py_XDECREF(object_); }
  static Reference borrow(PyObject* object) {
    Py_XINCREF(object);
    return Reference(object);
  }
  PyObject* get() const { return object_; }
  PyObject* release() {
    PyObject* object = object_;
    object_ = nullptr;
    return object;
  }
  explicit operator bool() const { return object_ != nullptr; }

 private:
  PyObject* object_ = nullptr;
};

// Turns the exception in flight into a Python one. Call it in a catch block only.
void set_python_error() noexcept;

// Runs the body of a raw entry: its result, or `failure` with a Python exception set.
template <class Result = PyObject*, class Body>
Result guarded(Body&& body, Result failure = Result{}) noexcept {
  try {
    return body();
  } catch (const PythonError&) {
    return failure;
#ifdef __GLIBCXX__
  } catch (const abi::__forced_unwind&) {
    stay_until_exit();  // Python code that something above called took the GIL in vain
#endif
  } catch (...) {
    set_python_error();
    return failure;
  }
}

}  // namespace convkit::bindings
