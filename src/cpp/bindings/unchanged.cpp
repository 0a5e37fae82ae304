// What a program took for granted about Python's objects and about memory, asked in one go. A loop in Python waits for
// each object to come from memory before it looks at the next; here the processor looks ahead.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

#include "module_parts.hpp"
#include "numpy_api.hpp"

namespace py = pybind11;

namespace convkit::bindings {
namespace {

constexpr Py_ssize_t far = 24;  // objects that are on their way from memory at a time

// Whether an entry is what it was: the same object, or an equal one of a kind that is compared by value.
bool is_same(PyObject* now, PyObject* then) {
  if (now == then) return true;
  if (now == nullptr || !(PyTuple_CheckExact(then) || PyFloat_CheckExact(then) || PyLong_CheckExact(then) ||
                          PyUnicode_CheckExact(then))) {
    return false;
  }
  const int equal = PyObject_RichCompareBool(now, then, Py_EQ);
  if (equal < 0) throw py::error_already_set();
  return equal != 0;
}

py::object entry(PyObject* dict, PyObject* key) {
#if PY_VERSION_HEX >= 0x030D0000
  PyObject* found = nullptr;
  if (PyDict_GetItemRef(dict, key, &found) < 0) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(found);
#else
  PyObject* found = PyDict_GetItemWithError(dict, key);
  if (found == nullptr && PyErr_Occurred()) throw py::error_already_set();
  return py::reinterpret_borrow<py::object>(found);
#endif
}

void expect(bool same_lengths, const char* names) {
  if (!same_lengths) throw py::value_error(std::string(names) + " must have the same number of entries");
}

// The version of each dict: a number that no dict has twice, and that every change replaces (PEP 509). Nothing where
// Python keeps none.
py::bytes dict_versions(const py::list& dicts) {
#if PY_VERSION_HEX < 0x030C0000
  std::vector<std::uint64_t> versions;
  const Py_ssize_t count = PyList_GET_SIZE(dicts.ptr());
  versions.reserve(static_cast<std::size_t>(count));
  for (Py_ssize_t i = 0; i < count; ++i) {
    if (i + far < count) __builtin_prefetch(PyList_GET_ITEM(dicts.ptr(), i + far));
    PyObject* dict = PyList_GET_ITEM(dicts.ptr(), i);
    if (!PyDict_Check(dict)) throw py::type_error("dicts must hold dicts");
    versions.push_back(reinterpret_cast<PyDictObject*>(dict)->ma_version_tag);
  }
  return {reinterpret_cast<const char*>(versions.data()), versions.size() * sizeof(std::uint64_t)};
#else
  static_cast<void>(dicts);
  return {};
#endif
}

// dicts[i][keys[i]] is values[i]; NotImplemented stands for no entry, and without a key the value is the dict's length.
bool entries_stand(const py::list& dicts, const py::list& keys, const py::list& values) {
  const Py_ssize_t count = PyList_GET_SIZE(dicts.ptr());
  expect(PyList_GET_SIZE(keys.ptr()) == count && PyList_GET_SIZE(values.ptr()) == count, "dicts, keys and values");
  for (Py_ssize_t i = 0; i < count; ++i) {
    PyObject* dict = PyList_GET_ITEM(dicts.ptr(), i);
    PyObject* key = PyList_GET_ITEM(keys.ptr(), i);
    PyObject* then = PyList_GET_ITEM(values.ptr(), i);
    if (!PyDict_Check(dict)) throw py::type_error("dicts must hold dicts");
    if (key == Py_None) {
      if (PyDict_Size(dict) != PyLong_AsSsize_t(then)) return false;
      continue;
    }
    const py::object now = entry(dict, key);
    if (then == Py_NotImplemented ? static_cast<bool>(now) : !is_same(now.ptr(), then)) return false;
  }
  return true;
}

bool types_stand(const py::list& objects, const py::list& types) {
  const Py_ssize_t count = PyList_GET_SIZE(objects.ptr());
  expect(PyList_GET_SIZE(types.ptr()) == count, "objects and types");
  for (Py_ssize_t i = 0; i < count; ++i) {
    if (i + far < count) __builtin_prefetch(PyList_GET_ITEM(objects.ptr(), i + far));
    if (reinterpret_cast<PyObject*>(Py_TYPE(PyList_GET_ITEM(objects.ptr(), i))) != PyList_GET_ITEM(types.ptr(), i)) {
      return false;
    }
  }
  return true;
}

// Elements of arrays, which are to keep the values that they have now. Holds the arrays, and with them their memory.
class Elements {
 public:
  explicit Elements(const py::list& arrays) : arrays_(py::tuple(arrays)) {
    for (const py::handle one : arrays_) {
      if (!PyArray_Check(one.ptr())) throw py::type_error("arrays must hold arrays");
      auto* array = reinterpret_cast<PyArrayObject*>(one.ptr());
      if (PyArray_ITEMSIZE(array) % static_cast<npy_intp>(sizeof(std::uint32_t)) != 0 ||
          PyDataType_REFCHK(PyArray_DESCR(array))) {
        throw py::type_error("arrays must have numbers of whole words as elements");
      }
      add(array, 0, PyArray_BYTES(array));
    }
  }

  bool stand() const {
    const auto count = static_cast<Py_ssize_t>(places_.size());
    for (Py_ssize_t i = 0; i < count; ++i) {
      if (i + far < count) __builtin_prefetch(places_[i + far]);
      if (read(places_[i]) != values_[i]) return false;
    }
    return true;
  }

 private:
  static std::uint32_t read(const char* at) {
    std::uint32_t value;
    std::memcpy(&value, at, sizeof value);
    return value;
  }

  void add(PyArrayObject* array, int axis, const char* at) {
    if (axis < PyArray_NDIM(array)) {
      for (npy_intp i = 0; i < PyArray_DIM(array, axis); ++i)
        add(array, axis + 1, at + i * PyArray_STRIDE(array, axis));
      return;
    }
    for (npy_intp i = 0; i < PyArray_ITEMSIZE(array); i += sizeof(std::uint32_t)) {
      places_.push_back(at + i);
      values_.push_back(read(at + i));
    }
  }

  py::tuple arrays_;
  std::vector<const char*> places_;
  std::vector<std::uint32_t> values_;
};

// What a function says of objects, in whole numbers.
py::bytes answers(const py::object& function, const py::list& objects) {
  std::vector<unsigned long long> numbers;
  numbers.reserve(objects.size());
  for (std::size_t i = 0; i < objects.size(); ++i) {  // which the function may shorten
    const py::object object = objects[i];
    PyObject* arguments[] = {object.ptr()};
    const auto answer = py::reinterpret_steal<py::object>(PyObject_Vectorcall(function.ptr(), arguments, 1, nullptr));
    if (!answer) throw py::error_already_set();
    numbers.push_back(PyLong_AsUnsignedLongLong(answer.ptr()));
    if (numbers.back() == static_cast<unsigned long long>(-1) && PyErr_Occurred()) throw py::error_already_set();
  }
  return {reinterpret_cast<const char*>(numbers.data()), numbers.size() * sizeof(unsigned long long)};
}

// Has the processor bring memory that is read soon, all of it at once. Reads nothing: any number may be an address.
void prefetch(const py::bytes& addresses) {
  const std::string_view bytes = addresses;
  for (std::size_t at = 0; at + sizeof(std::uintptr_t) <= bytes.size(); at += sizeof(std::uintptr_t)) {
    std::uintptr_t address;
    std::memcpy(&address, bytes.data() + at, sizeof address);
    __builtin_prefetch(reinterpret_cast<const void*>(address));
  }
}

}  // namespace

void add_unchanged(py::module_& module) {
  module.def("entries_stand", entries_stand, py::arg("dicts"), py::arg("keys"), py::arg("values"),
             "Whether each dict has, under its key, the same value as before. NotImplemented stands for no entry; "
             "with None as the key the value is the number of entries.");
  module.def("dict_versions", dict_versions, py::arg("dicts"),
             "The versions of dicts, which change with every change to them; empty where Python has none.");
  module.def("types_stand", types_stand, py::arg("objects"), py::arg("types"),
             "Whether objects are of exactly these types.");
  module.def("prefetch", prefetch, py::arg("addresses"),
             "Bring memory that is read soon into the caches: addresses as machine words. None is read.");
  module.def("answers", answers, py::arg("function"), py::arg("objects"),
             "What a function says of each object, in whole numbers from 0 to 2**64 - 1, as machine words.");
  py::class_<Elements>(module, "Elements", "Elements of arrays, which are to keep the values that they have now.")
      .def(py::init<const py::list&>(), py::arg("arrays"))
      .def("stand", &Elements::stand, "Whether they have kept them.");
}

}  // namespace convkit::bindings
