#include "parts.hpp"

#include <algorithm>
#include <string>

#include "../images.hpp"
#include "gil.hpp"
#include "options.hpp"
#include "outputs.hpp"

namespace convkit::bindings {
namespace {

constexpr std::int64_t least_elements_without_gil = std::int64_t{1} << 14;

// Elements between the first of one pixel and the first of the next, for dense rows of images; -1 if pixels lie otherwise.
std::int64_t pixel_stride(const ArrayArgument& x) {
  if (PyArray_SIZE(x.get()) == 0) return 0;
  const npy_intp *const shape = x.shape(), *const strides = x.strides(), element = element_bytes(x.dtype());
  if (shape[3] > 1 && strides[3] != element) return -1;
  std::int64_t stride = 0, run = 1;
  for (int i = 3; i-- > 0;) {
    if (shape[i] == 1) continue;
    if (stride == 0) stride = strides[i];
    if (strides[i] != stride * run || stride < shape[3] * element) return -1;
    run *= shape[i];
  }
  return stride % element == 0 ? stride / element : -1;
}

}  // namespace

PartsArgument::PartsArgument(PyObject* sequence)
    : items_(sequence_items(sequence, "parts must be a sequence of arrays")), parts_{} {
  const auto count = static_cast<int>(PyTuple_GET_SIZE(items_.get()));
  if (count < 1 || count > Parts::most) {
    raise(PyExc_ValueError,
          "parts must be 1 to " + std::to_string(Parts::most) + " arrays, not " + std::to_string(count));
  }
  std::int64_t channels = 0;
  for (int i = 0; i < count; ++i) {
    ArrayArgument& part = arrays_[i];
    const ArrayArgument& first = arrays_[0];
    part = ArrayArgument(PyTuple_GET_ITEM(items_.get(), i), "part");
    if (part.ndim() != 4) {
      raise(PyExc_ValueError, "each part must have 4 dimensions, not the shape " + shape_text(part));
    }
    if (part.dtype() != first.dtype()) {
      raise(PyExc_TypeError,
            std::string("part is ") + dtype_name(part.dtype()) + ", but the first one is " + dtype_name(first.dtype()));
    }
    if (!std::equal(part.shape(), part.shape() + 3, first.shape())) {
      raise(PyExc_ValueError,
            "parts must differ in their channels only, not be " + shape_text(first) + " and " + shape_text(part));
    }
    const std::int64_t stride = pixel_stride(part);
    if (stride < 0 || part.misaligned()) raise(PyExc_ValueError, "each part must have its channels side by side");
    if (part.shape()[3] == 0) continue;
    parts_.part[parts_.count++] = {part.data(), part.shape()[3], stride};
    channels += part.shape()[3];
  }
  std::copy_n(arrays_[0].shape(), 3, shape_);
  shape_[3] = static_cast<npy_intp>(channels);
}

Reference PartsArgument::joined(int threads) const {
  Reference y(new_dense_output(numpy_type(dtype()), element_bytes(dtype()), 4, shape_));
  const std::int64_t pixels = shape_[0] * shape_[1] * shape_[2], elements = pixels * shape_[3];
  if (elements > 0) {
    const Join what{PyArray_DATA(reinterpret_cast<PyArrayObject*>(y.get())), dtype() == Dtype::f64, pixels, shape_[3],
                    parts_};
    const ReleasedGil released(elements >= least_elements_without_gil);
    run(what, threads);
  }
  return y;
}

Reference PartsArgument::frame() const {
  return Reference(checked(PyArray_New(&PyArray_Type, 4, const_cast<npy_intp*>(shape_), numpy_type(dtype()), nullptr,
                                       arrays_[0].data(), 0, NPY_ARRAY_CARRAY_RO, nullptr)));
}

}  // namespace convkit::bindings
