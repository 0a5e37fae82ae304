// What a caller hands in as a tensor: checks of type, dtype, strides and overlap.
#pragma once
#include <cstdint>
#include <string>

#include "../problem.hpp"
#include "numpy_api.hpp"
#include "python_error.hpp"

namespace convkit::bindings {

// An argument as a NumPy array; owns a reference where the object had to be converted.
class ArrayArgument {
 public:
  ArrayArgument() = default;
  // `object` must outlive this unless it had to be converted. Accepts arrays and CPU objects with __dlpack__.
  ArrayArgument(PyObject* object, const char* name) {
    if (PyArray_CheckExact(object)) {
      array_ = reinterpret_cast<PyArrayObject*>(object);
    } else {
      convert(object, name);
    }
    check_dtype(name);
  }
  // Raises TypeError unless the array is float32 or float64. Python code that ran since may have changed what it is.
  void check_dtype(const char* name) const {
    const int type = PyArray_TYPE(array_);
    if ((type != NPY_FLOAT && type != NPY_DOUBLE) || !PyArray_ISNOTSWAPPED(array_)) refuse_dtype(array_, name);
  }

  explicit operator bool() const { return array_ != nullptr; }
  PyArrayObject* operator->() const { return array_; }
  PyArrayObject* get() const { return array_; }
  int ndim() const { return PyArray_NDIM(array_); }
  const npy_intp* shape() const { return PyArray_DIMS(array_); }
  const npy_intp* strides() const { return PyArray_STRIDES(array_); }
  char* data() const { return PyArray_BYTES(array_); }
  Dtype dtype() const { return PyArray_TYPE(array_) == NPY_FLOAT ? Dtype::f32 : Dtype::f64; }
  bool misaligned() const {
    return (reinterpret_cast<std::uintptr_t>(data()) & (PyArray_TYPE(array_) == NPY_FLOAT ? 3 : 7)) != 0;
  }

 private:
  void convert(PyObject* object, const char* name);
  [[noreturn]] static void refuse_dtype(PyArrayObject* array, const char* name);

  PyArrayObject* array_ = nullptr;
  Reference owned_;
};

inline ArrayArgument optional_array(PyObject* object, const char* name) {
  return object && object != Py_None ? ArrayArgument(object, name) : ArrayArgument();
}

// The arrays of one call; w may be a layer's own.
struct Operands {
  Operands() {}  // no constant, which GCC clears by rep stos: that takes longer to start than all of these stores
  ArrayArgument x, w, bias, residual, out;
  ArrayArgument scale, shift;  // where they are arrays
  ArrayArgument weight_scale;  // of w, in each call
};

inline int element_bytes(Dtype dtype) { return dtype == Dtype::f32 ? 4 : 8; }
inline int numpy_type(Dtype dtype) { return dtype == Dtype::f32 ? NPY_FLOAT : NPY_DOUBLE; }
const char* dtype_name(Dtype dtype);

// "(1, 3, 8, 8)"
std::string shape_text(const npy_intp* shape, int ndim);
inline std::string shape_text(const ArrayArgument& array) { return shape_text(array.shape(), array.ndim()); }

// Fetches what is used of NumPy's Python side; called when the module is imported. Throws PythonError.
void import_numpy_functions();

// Sizes and byte strides of a tensor in N,C,H,W order, whatever the order of the array's own dimensions.
struct Geometry {
  std::int64_t sizes[4];
  std::int64_t strides[4];
};

// A tensor's dimensions in N,C,H,W order. Without a batch dimension N is 1.
Geometry geometry(const ArrayArgument& array, Layout layout);

// Byte strides of a dense tensor of these sizes (N,C,H,W order) that lies in memory as `layout`.
void dense_strides(const std::int64_t sizes[4], Layout layout, int element, std::int64_t strides[4]);
// Whether the tensor is dense in `layout`; strides of dimensions of size 1 do not matter.
bool is_dense(const Geometry& tensor, Layout layout, int element);

// Raises ValueError if `out` cannot be written, or shares memory with `other` in any way but being the same tensor where
// `same_allowed`.
void check_out(const ArrayArgument& out);
void check_overlap(const ArrayArgument& out, const ArrayArgument& other, const char* name, bool same_allowed);

}  // namespace convkit::bindings
