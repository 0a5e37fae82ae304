// Fresh results: 64-byte aligned, large ones from memory that an earlier result gave back.
#pragma once
#include "arrays.hpp"

namespace convkit::bindings {

// A new array of these byte strides, null standing for those of C order, which NumPy then need not find out; its memory
// (`bytes`) goes back when the last view of it dies. Raises MemoryError.
PyObject* new_output(int numpy_type, int ndim, const npy_intp* shape, const npy_intp* strides, std::int64_t bytes);
inline PyObject* new_output(Dtype dtype, int ndim, const npy_intp* shape, const npy_intp* strides, std::int64_t bytes) {
  return new_output(numpy_type(dtype), ndim, shape, strides, bytes);
}

// The same in C order, of elements of so many bytes. Raises MemoryError for what no memory can hold, too.
PyObject* new_dense_output(int numpy_type, std::int64_t element, int ndim, const npy_intp* shape);

// Returns the memory of freed results to the operating system. Needs the GIL.
void clear_kept_outputs();

}  // namespace convkit::bindings
