#include "arrays.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace convkit::bindings {
namespace {

// Set once by import_numpy_functions and kept for the life of the process. Never fetched later: an import runs Python code,
// which gives up the GIL, and another thread that met a lock on the way to this one would never give it back.
PyObject* from_dlpack = nullptr;
PyObject* shares_memory = nullptr;

// Null, without an exception, if there is none.
Reference item_of(PyObject* dictionary, const char* key) {
#if PY_VERSION_HEX >= 0x030D0000
  PyObject* item = nullptr;
  if (PyDict_GetItemStringRef(dictionary, key, &item) < 0) PyErr_Clear();
  return Reference(item);
#else
  return Reference::borrow(PyDict_GetItemString(dictionary, key));
#endif
}

// There is no masked array before somebody has imported numpy.ma. Null, without an exception, if nobody has.
Reference masked_array_type() {
  const Reference module = item_of(PyImport_GetModuleDict(), "numpy.ma");
  if (!module || !PyModule_Check(module.get())) return Reference();
  return item_of(PyModule_GetDict(module.get()), "MaskedArray");
}

std::string type_name(PyObject* object) { return Py_TYPE(object)->tp_name; }

// Raises the RuntimeError that is set as it is, unless it is NumPy's word for a dtype that it has not, such as bfloat16.
[[noreturn]] void explain_runtime_error(const char* name) {
  const Reference error(take_exception());
  const Reference text(checked(PyObject_Str(error.get())));
  const char* utf8 = PyUnicode_AsUTF8(text.get());
  if (!utf8) throw PythonError{};
  if (!std::strstr(utf8, "nsupported dtype")) {
    PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(error.get())), error.get());
    throw PythonError{};
  }
  raise_from(PyExc_TypeError,
             std::string(name) + " has a dtype that NumPy does not know; convkit supports float32 and float64",
             error.get());
}

// An array over the memory of another library's tensor. Runs that library's code.
Reference through_dlpack(PyObject* object, const char* name) {
  const auto has = [&](const char* method) {
    return retaking_gil([&] { return PyObject_HasAttrString(object, method); }) != 0;
  };
  if (!has("__dlpack__")) {
    raise(PyExc_TypeError, std::string(name) + " must be a NumPy array, or an object with __dlpack__ on the CPU, not " +
                               type_name(object));
  }
  if (has("__dlpack_device__")) {
    const Reference device(
        checked(retaking_gil([&] { return PyObject_CallMethod(object, "__dlpack_device__", nullptr); })));
    const Reference kind(checked(PySequence_GetItem(device.get(), 0)));
    const long code = PyLong_AsLong(kind.get());
    if (code == -1 && PyErr_Occurred()) throw PythonError{};
    if (code != 1) {
      raise(PyExc_TypeError, std::string(name) + " is on another device than the CPU (DLPack device type " +
                                 std::to_string(code) + "): copy it to the CPU first");
    }
  }
  Reference array(retaking_gil([&] { return PyObject_CallOneArg(from_dlpack, object); }));
  if (array) return array;
  if (!PyErr_ExceptionMatches(PyExc_RuntimeError)) throw PythonError{};
  explain_runtime_error(name);
}

struct Range {
  const char *begin, *end;
};

// First and one past the last byte that the array's elements touch.
Range touched(const ArrayArgument& array) {
  Range range{array.data(), array.data() + element_bytes(array.dtype())};
  if (PyArray_SIZE(array.get()) == 0) return {nullptr, nullptr};  // whose strides may be any
  for (int i = 0; i < array.ndim(); ++i) {
    const npy_intp reach = (array.shape()[i] - 1) * array.strides()[i];
    (reach < 0 ? range.begin : range.end) += reach;
  }
  return range;
}

// Without a subclass's own ideas of NumPy's functions.
Reference base_view(const ArrayArgument& array) {
  return Reference(checked(PyArray_View(array.get(), nullptr, &PyArray_Type)));
}

bool same_tensor(const ArrayArgument& a, const ArrayArgument& b) {
  return a.data() == b.data() && a.ndim() == b.ndim() && std::equal(a.shape(), a.shape() + a.ndim(), b.shape()) &&
         std::equal(a.strides(), a.strides() + a.ndim(), b.strides());
}

}  // namespace

const char* dtype_name(Dtype dtype) { return dtype == Dtype::f32 ? "float32" : "float64"; }

void import_numpy_functions() {
  const Reference numpy(checked(PyImport_ImportModule("numpy")));
  from_dlpack = checked(PyObject_GetAttrString(numpy.get(), "from_dlpack"));
  shares_memory = checked(PyObject_GetAttrString(numpy.get(), "shares_memory"));
}

void ArrayArgument::convert(PyObject* object, const char* name) {
  if (PyArray_Check(object)) {
    const Reference masked = masked_array_type();
    if (masked && PyType_Check(masked.get()) &&
        PyType_IsSubtype(Py_TYPE(object), reinterpret_cast<PyTypeObject*>(masked.get()))) {
      raise(PyExc_TypeError, std::string(name) + " is a masked array, whose mask convkit would ignore: pass " + name +
                                 ".filled(value) instead");
    }
    array_ = reinterpret_cast<PyArrayObject*>(object);
    return;
  }
  owned_ = through_dlpack(object, name);
  array_ = reinterpret_cast<PyArrayObject*>(owned_.get());
}

void ArrayArgument::refuse_dtype(PyArrayObject* array, const char* name) {
  const Reference dtype(checked(PyObject_Str(reinterpret_cast<PyObject*>(PyArray_DESCR(array)))));
  const char* text = PyUnicode_AsUTF8(dtype.get());
  if (!text) throw PythonError{};
  const int type = PyArray_TYPE(array);
  const bool swapped = type == NPY_FLOAT || type == NPY_DOUBLE;
  raise(PyExc_TypeError, std::string(name) + " has dtype " + text +
                             (swapped ? " (not this machine's byte order)" : "") +
                             "; convkit supports float32 and float64 in native byte order: convert it with " + name +
                             ".astype(numpy.float32)");
}

std::string shape_text(const npy_intp* shape, int ndim) {
  std::string text = "(";
  for (int i = 0; i < ndim; ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + (ndim == 1 ? ",)" : ")");
}

Geometry geometry(const ArrayArgument& array, Layout layout) {
  const int batch = array.ndim() - 3;  // 0 or 1
  const bool nchw = layout == Layout::nchw;
  const int at[4] = {0, batch + (nchw ? 0 : 2), batch + (nchw ? 1 : 0), batch + (nchw ? 2 : 1)};
  Geometry tensor;
  for (int i = 0; i < 4; ++i) {
    const bool absent = i == 0 && batch == 0;
    tensor.sizes[i] = absent ? 1 : array.shape()[at[i]];
    tensor.strides[i] = absent ? 0 : array.strides()[at[i]];
  }
  return tensor;
}

void dense_strides(const std::int64_t sizes[4], Layout layout, int element, std::int64_t strides[4]) {
  static constexpr int order[2][4] = {{3, 2, 1, 0}, {1, 3, 2, 0}};  // fastest first
  std::int64_t stride = element;
  for (const int i : order[static_cast<int>(layout)]) {
    strides[i] = stride;
    stride *= sizes[i];
  }
}

bool is_dense(const Geometry& tensor, Layout layout, int element) {
  std::int64_t strides[4];
  dense_strides(tensor.sizes, layout, element, strides);
  for (int i = 0; i < 4; ++i) {
    if (tensor.sizes[i] != 1 && tensor.strides[i] != strides[i]) return false;
  }
  return true;
}

void check_out(const ArrayArgument& out) {
  if (!PyArray_ISWRITEABLE(out.get())) raise(PyExc_ValueError, "out is read-only");
  // Elements of an array are apart if each stride steps over all that smaller strides reach. Arrays made by as_strided may
  // interleave in other ways; those are refused too.
  std::pair<npy_intp, npy_intp> dims[NPY_MAXDIMS];
  int count = 0;
  for (int i = 0; i < out.ndim(); ++i) {
    if (out.shape()[i] == 0) return;
    if (out.shape()[i] > 1) dims[count++] = {std::abs(out.strides()[i]), out.shape()[i]};
  }
  std::sort(dims, dims + count);
  npy_intp reach = element_bytes(out.dtype());
  for (int i = 0; i < count; ++i) {
    if (dims[i].first < reach) raise(PyExc_ValueError, "out has elements that overlap each other in memory");
    reach += (dims[i].second - 1) * dims[i].first;
  }
}

void check_overlap(const ArrayArgument& out, const ArrayArgument& other, const char* name, bool same_allowed) {
  const Range a = touched(out), b = touched(other);
  if (a.begin >= b.end || b.begin >= a.end) return;
  if (same_allowed && same_tensor(out, other)) return;
  // Ranges that meet may still interleave without a common element: NumPy solves that exactly, within bounded work.
  const Reference bound(checked(PyLong_FromLong(100000)));
  const Reference first = base_view(out), second = base_view(other);
  PyObject* arguments[] = {first.get(), second.get(), bound.get()};
  const Reference answer(PyObject_Vectorcall(shares_memory, arguments, 3, nullptr));
  if (!answer) {
    PyErr_Clear();  // too hard to tell: treated as an overlap
  } else if (answer.get() == Py_False) {
    return;
  }
  raise(PyExc_ValueError,
        std::string("out shares memory with ") + name +
            (same_allowed ? " without being the same tensor" : ", which is read while out is written"));
}

}  // namespace convkit::bindings
