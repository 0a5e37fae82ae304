// What stands between convolutions, on dense arrays: arguments are checked, results are new arrays. convkit/images.py says
// what each function means.
#include "../images.hpp"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include "arrays.hpp"
#include "gil.hpp"
#include "module_parts.hpp"
#include "options.hpp"
#include "outputs.hpp"
#include "parts.hpp"
#include "plan.hpp"

namespace py = pybind11;

namespace convkit::bindings {
namespace {

constexpr std::int64_t least_elements_without_gil = std::int64_t{1} << 14;
using Sizes = std::int64_t[2];

// A dense array of `ndim` dimensions.
ArrayArgument dense(const py::object& object, const char* name, int ndim) {
  ArrayArgument array(object.ptr(), name);
  if (array.ndim() != ndim) {
    raise(PyExc_ValueError,
          std::string(name) + " must have " + std::to_string(ndim) + " dimensions, not the shape " + shape_text(array));
  }
  if (!PyArray_IS_C_CONTIGUOUS(array.get()) || array.misaligned()) {
    raise(PyExc_ValueError, std::string(name) + " must be C-contiguous and aligned");
  }
  return array;
}

void check_dtype(const ArrayArgument& array, const char* name, const ArrayArgument& x) {
  if (array.dtype() != x.dtype()) {
    raise(PyExc_TypeError,
          std::string(name) + " is " + dtype_name(array.dtype()) + ", but x is " + dtype_name(x.dtype()));
  }
}

// The data of a dense array like x of these sizes; null for None.
const void* operand(const py::object& object, const char* name, const ArrayArgument& x, int ndim, const npy_intp* sizes,
                    ArrayArgument& array) {
  if (object.is_none()) return nullptr;
  array = dense(object, name, ndim);
  check_dtype(array, name, x);
  if (!std::equal(sizes, sizes + ndim, array.shape())) {
    raise(PyExc_ValueError,
          std::string(name) + " must have the shape " + shape_text(sizes, ndim) + ", not " + shape_text(array));
  }
  return array.data();
}

int threads_of(const py::object& num_threads) { return resolve_threads(num_threads.ptr()); }

Reference result_like(const ArrayArgument& x, int ndim, const npy_intp* shape) {
  return Reference(new_dense_output(numpy_type(x.dtype()), element_bytes(x.dtype()), ndim, shape));
}

// A new array like an operand, or the operand.
Reference result_in(const ArrayArgument& operand, const char* name, bool in_place) {
  if (!in_place) return result_like(operand, operand.ndim(), operand.shape());
  if (!PyArray_ISWRITEABLE(operand.get())) {
    raise(PyExc_ValueError, std::string(name) + " is read-only: it cannot hold the result");
  }
  return Reference::borrow(reinterpret_cast<PyObject*>(operand.get()));
}

void* data_of(const Reference& array) { return PyArray_DATA(reinterpret_cast<PyArrayObject*>(array.get())); }
py::object returned(Reference& array) { return py::reinterpret_steal<py::object>(array.release()); }

template <class What>
void run_free(const What& what, std::int64_t elements, int threads) {
  if (elements == 0) return;
  const ReleasedGil released(elements >= least_elements_without_gil);
  run(what, threads);
}

void parse_two(const py::object& object, const char* name, std::int32_t least, Sizes& to) {
  std::int32_t pair[2];
  parse_pair(object.ptr(), name, least, pair);
  std::copy(pair, pair + 2, to);
}

py::object empty(const std::vector<npy_intp>& shape, const py::object& dtype_like) {
  const py::dtype dtype = py::dtype::from_args(dtype_like);
  if (dtype.num() < NPY_BOOL || dtype.num() > NPY_DOUBLE) {
    raise(PyExc_TypeError,
          "dtype must be bool, an integer, float32 or float64, not " + py::str(dtype).cast<std::string>());
  }
  for (const npy_intp size : shape) {
    if (size < 0) raise(PyExc_ValueError, "sizes must not be negative, not " + std::to_string(size));
  }
  return py::reinterpret_steal<py::object>(
      new_dense_output(dtype.num(), dtype.itemsize(), static_cast<int>(shape.size()), shape.data()));
}

py::object join(const py::object& images, const py::object& num_threads) {
  const PartsArgument parts(images.ptr());
  Reference y = parts.joined(threads_of(num_threads));
  return returned(y);
}

py::object pool(const py::object& images, const py::object& kernel, const py::object& stride,
                const py::object& dilation, const py::object& before, const py::object& size,
                const py::object& row_factors, const py::object& column_factors, const py::object& num_threads) {
  const ArrayArgument x = dense(images, "x", 4);
  Pool what{};
  parse_two(kernel, "kernel", 1, what.kernel);
  parse_two(stride, "stride", 1, what.stride);
  parse_two(dilation, "dilation", 1, what.dilation);
  parse_two(before, "before", 0, what.before);
  parse_two(size, "size", 0, what.out);
  what.wide = x.dtype() == Dtype::f64;
  what.images = x.shape()[0];
  what.channels = x.shape()[3];
  std::copy(x.shape() + 1, x.shape() + 3, what.in);
  ArrayArgument factors[2];
  const npy_intp counts[2] = {static_cast<npy_intp>(what.out[0]), static_cast<npy_intp>(what.out[1])};
  what.factor[0] = operand(row_factors, "row_factors", x, 1, counts, factors[0]);
  what.factor[1] = operand(column_factors, "column_factors", x, 1, counts + 1, factors[1]);
  if (!what.factor[0] != !what.factor[1]) {
    raise(PyExc_ValueError, "row_factors and column_factors must be given both or not at all");
  }
  const npy_intp shape[4] = {x.shape()[0], counts[0], counts[1], x.shape()[3]};
  const int threads = threads_of(num_threads);
  Reference y = result_like(x, 4, shape);
  what.from = x.data();
  what.to = data_of(y);
  run_free(what, shape[0] * shape[1] * shape[2] * shape[3], threads);
  return returned(y);
}

py::object pool_gradient(const py::object& gradient, const py::object& images, const py::object& maxima,
                         const py::object& kernel, const py::object& stride, const py::object& dilation,
                         const py::object& before, const py::object& num_threads) {
  const ArrayArgument x = dense(images, "x", 4), y = dense(maxima, "y", 4), dy = dense(gradient, "dy", 4);
  PoolGradient what{};
  Pool& pool = what.pool;
  parse_two(kernel, "kernel", 1, pool.kernel);
  parse_two(stride, "stride", 1, pool.stride);
  parse_two(dilation, "dilation", 1, pool.dilation);
  parse_two(before, "before", 0, pool.before);
  check_dtype(y, "y", x);
  check_dtype(dy, "dy", x);
  if (y.shape()[0] != x.shape()[0] || y.shape()[3] != x.shape()[3]) {
    raise(PyExc_ValueError,
          "y must have as many images and channels as x, not " + shape_text(y) + " and " + shape_text(x));
  }
  if (!std::equal(y.shape(), y.shape() + 4, dy.shape())) {
    raise(PyExc_ValueError, "dy must have y's shape " + shape_text(y) + ", not " + shape_text(dy));
  }
  pool.wide = x.dtype() == Dtype::f64;
  pool.images = x.shape()[0];
  pool.channels = x.shape()[3];
  std::copy(x.shape() + 1, x.shape() + 3, pool.in);
  std::copy(y.shape() + 1, y.shape() + 3, pool.out);
  pool.from = x.data();
  pool.to = PyArray_DATA(y.get());
  what.given = dy.data();
  const int threads = threads_of(num_threads);
  Reference dx = result_like(x, 4, x.shape());
  what.to = data_of(dx);
  run_free(what, pool.images * pool.in[0] * pool.in[1] * pool.channels, threads);
  return returned(dx);
}

// Positions along an axis of `size` pixels as the array that holds them.
const std::int64_t* positions(const py::object& object, const char* name, std::int64_t size, npy_intp& count) {
  auto* array = reinterpret_cast<PyArrayObject*>(object.ptr());
  if (!PyArray_Check(object.ptr()) || PyArray_TYPE(array) != NPY_INT64 || PyArray_NDIM(array) != 1 ||
      !PyArray_IS_C_CONTIGUOUS(array) || !PyArray_ISBEHAVED_RO(array)) {
    raise(PyExc_TypeError, std::string(name) + " must be a contiguous array of int64 with one dimension");
  }
  const npy_intp length = PyArray_DIM(array, 0);
  if (count >= 0 && length != count) {
    raise(PyExc_ValueError, std::string(name) + " has " + std::to_string(length) + " positions, the lower ones are " +
                                std::to_string(count));
  }
  count = length;
  const auto* const found = static_cast<const std::int64_t*>(PyArray_DATA(array));
  for (npy_intp i = 0; i < length; ++i) {
    if (found[i] < 0 || found[i] >= size) {
      raise(PyExc_IndexError, std::string(name) + " has position " + std::to_string(found[i]) + " of " +
                                  std::to_string(size) + " pixels");
    }
  }
  return found;
}

py::object resample(const py::object& images, const py::object& rows, const py::object& columns,
                    const py::object& rows_above, const py::object& columns_above, const py::object& row_weights,
                    const py::object& column_weights, const py::object& num_threads) {
  const ArrayArgument x = dense(images, "x", 4);
  Resample what{};
  what.wide = x.dtype() == Dtype::f64;
  what.images = x.shape()[0];
  what.channels = x.shape()[3];
  std::copy(x.shape() + 1, x.shape() + 3, what.in);
  npy_intp counts[2] = {-1, -1};
  what.low[0] = positions(rows, "rows", what.in[0], counts[0]);
  what.low[1] = positions(columns, "columns", what.in[1], counts[1]);
  ArrayArgument weights[2];
  if (!rows_above.is_none()) {
    what.high[0] = positions(rows_above, "rows_above", what.in[0], counts[0]);
    what.high[1] = positions(columns_above, "columns_above", what.in[1], counts[1]);
    what.weight[0] = operand(row_weights, "row_weights", x, 1, counts, weights[0]);
    what.weight[1] = operand(column_weights, "column_weights", x, 1, counts + 1, weights[1]);
    if (!what.weight[0] || !what.weight[1]) raise(PyExc_TypeError, "row_weights and column_weights are missing");
  }
  std::copy(counts, counts + 2, what.out);
  const npy_intp shape[4] = {x.shape()[0], counts[0], counts[1], x.shape()[3]};
  const int threads = threads_of(num_threads);
  Reference y = result_like(x, 4, shape);
  what.from = x.data();
  what.to = data_of(y);
  run_free(what, shape[0] * shape[1] * shape[2] * shape[3], threads);
  return returned(y);
}

py::object moments(const py::object& object, bool with_variance, const py::object& num_threads) {
  const ArrayArgument x = dense(object, "x", 3);
  Moments what{};
  what.wide = x.dtype() == Dtype::f64;
  what.outer = x.shape()[0];
  what.count = x.shape()[1];
  what.inner = x.shape()[2];
  if (what.count == 0) raise(PyExc_ValueError, "x has no elements to take the mean of: its shape is " + shape_text(x));
  const npy_intp shape[2] = {x.shape()[0], x.shape()[2]};
  const int threads = threads_of(num_threads);
  Reference mean = result_like(x, 2, shape), variance;
  if (with_variance) variance = result_like(x, 2, shape);
  what.from = x.data();
  what.mean = data_of(mean);
  what.variance = with_variance ? data_of(variance) : nullptr;
  run_free(what, what.outer * what.count * what.inner, threads);
  if (!with_variance) return returned(mean);
  return py::make_tuple(returned(mean), returned(variance));
}

py::object scale_shift(const py::object& object, const py::object& scale, const py::object& shift,
                       const py::object& residual, const py::object& activation, bool in_place,
                       const py::object& num_threads) {
  const ArrayArgument x = dense(object, "x", 3);
  const npy_intp factors[2] = {x.shape()[0], x.shape()[2]};
  ArrayArgument given[3];
  ScaleShift what{};
  what.wide = x.dtype() == Dtype::f64;
  what.outer = x.shape()[0];
  what.count = x.shape()[1];
  what.inner = x.shape()[2];
  what.scale = operand(scale, "scale", x, 2, factors, given[0]);
  what.shift = operand(shift, "shift", x, 2, factors, given[1]);
  what.residual = operand(residual, "residual", x, 3, x.shape(), given[2]);
  Options options;
  if (!activation.is_none()) parse_activation(activation.ptr(), options);
  what.activation = options.activation;
  what.lo = options.lo;
  what.hi = options.hi;
  const int threads = threads_of(num_threads);
  Reference y = result_in(x, "x", in_place);
  what.from = x.data();
  what.to = data_of(y);
  run_free(what, what.outer * what.count * what.inner, threads);
  return returned(y);
}

// What both passes back through a scale_shift take.
ScaleGradient way_back(const ArrayArgument& dy, const ArrayArgument& x, const py::object& scale,
                       const py::object& shift, const py::object& activation, ArrayArgument (&given)[2]) {
  check_dtype(dy, "dy", x);
  if (!std::equal(x.shape(), x.shape() + 3, dy.shape())) {
    raise(PyExc_ValueError, "dy must have x's shape " + shape_text(x) + ", not " + shape_text(dy));
  }
  const npy_intp factors[2] = {x.shape()[0], x.shape()[2]};
  ScaleGradient what{};
  what.wide = x.dtype() == Dtype::f64;
  what.outer = x.shape()[0];
  what.count = x.shape()[1];
  what.inner = x.shape()[2];
  what.given = dy.data();
  what.from = x.data();
  what.scale = operand(scale, "scale", x, 2, factors, given[0]);
  what.shift = operand(shift, "shift", x, 2, factors, given[1]);
  Options options;
  options.lo = -std::numeric_limits<double>::infinity();
  options.hi = std::numeric_limits<double>::infinity();
  if (!activation.is_none()) parse_activation(activation.ptr(), options);
  if (options.activation != Activation::none && options.activation != Activation::clamp) {
    raise(PyExc_ValueError, "activation must be None, 'relu', 'relu6' or ('clip', lo, hi) on the way back, not " +
                                py::repr(activation).cast<std::string>());
  }
  what.lo = options.lo;
  what.hi = options.hi;
  return what;
}

py::object gradient_sums(const py::object& gradient, const py::object& input, const py::object& centre,
                         const py::object& scale, const py::object& shift, const py::object& activation,
                         const py::object& num_threads) {
  const ArrayArgument dy = dense(gradient, "dy", 3), x = dense(input, "x", 3);
  ArrayArgument given[2], about;
  ScaleGradient what = way_back(dy, x, scale, shift, activation, given);
  const npy_intp shape[2] = {x.shape()[0], x.shape()[2]};
  what.centre = operand(centre, "centre", x, 2, shape, about);
  const int threads = threads_of(num_threads);
  Reference total = result_like(x, 2, shape), along = result_like(x, 2, shape);
  what.total = data_of(total);
  what.along = data_of(along);
  if (what.count == 0) {  // nothing runs then
    for (const Reference* sums : {&total, &along}) {
      PyArray_FILLWBYTE(reinterpret_cast<PyArrayObject*>(sums->get()), 0);
    }
  }
  run_free(what, what.outer * what.count * what.inner, threads);
  return py::make_tuple(returned(total), returned(along));
}

py::object scale_gradient(const py::object& gradient, const py::object& input, const py::object& dy_factor,
                          const py::object& x_factor, const py::object& summand, const py::object& scale,
                          const py::object& shift, const py::object& activation, bool in_place,
                          const py::object& num_threads) {
  const ArrayArgument dy = dense(gradient, "dy", 3), x = dense(input, "x", 3);
  ArrayArgument given[2], factors[3];
  ScaleGradient what = way_back(dy, x, scale, shift, activation, given);
  const npy_intp shape[2] = {x.shape()[0], x.shape()[2]};
  what.given_factor = operand(dy_factor, "dy_factor", x, 2, shape, factors[0]);
  what.from_factor = operand(x_factor, "x_factor", x, 2, shape, factors[1]);
  what.summand = operand(summand, "summand", x, 2, shape, factors[2]);
  const int threads = threads_of(num_threads);
  Reference dx = result_in(dy, "dy", in_place);
  what.to = data_of(dx);
  run_free(what, what.outer * what.count * what.inner, threads);
  return returned(dx);
}

py::object rows_of(const ArrayArgument& x, Rows& what, const py::object& num_threads) {
  what.wide = x.dtype() == Dtype::f64;
  what.rows = x.shape()[0];
  what.length = x.shape()[1];
  const int threads = threads_of(num_threads);
  Reference y = result_like(x, 2, x.shape());
  what.from = x.data();
  what.to = data_of(y);
  run_free(what, what.rows * what.length, threads);
  return returned(y);
}

py::object softmax(const py::object& object, const py::object& num_threads) {
  Rows what{};
  what.softmax = true;
  return rows_of(dense(object, "x", 2), what, num_threads);
}

py::object layer_norm(const py::object& object, const py::object& weight, const py::object& bias, double epsilon,
                      const py::object& num_threads) {
  const ArrayArgument x = dense(object, "x", 2);
  ArrayArgument given[2];
  Rows what{};
  what.weight = operand(weight, "weight", x, 1, x.shape() + 1, given[0]);
  what.bias = operand(bias, "bias", x, 1, x.shape() + 1, given[1]);
  what.epsilon = epsilon;
  return rows_of(x, what, num_threads);
}

}  // namespace

void add_images(py::module_& module) {
  const auto none = py::none();
  module.def("empty", empty, py::arg("shape"), py::arg("dtype"),
             "A new array, its memory from an earlier result if it is large.");
  module.def("join", join, py::arg("parts"), py::arg("num_threads") = none,
             "Images (N, H, W, C) side by side along their channels.");
  module.def("pool", pool, py::arg("x"), py::arg("kernel"), py::arg("stride"), py::arg("dilation"), py::arg("before"),
             py::arg("size"), py::arg("row_factors") = none, py::arg("column_factors") = none,
             py::arg("num_threads") = none, "Maxima, or sums times factors, of the windows of images (N, H, W, C).");
  module.def("pool_gradient", pool_gradient, py::arg("dy"), py::arg("x"), py::arg("y"), py::arg("kernel"),
             py::arg("stride"), py::arg("dilation"), py::arg("before"), py::arg("num_threads") = none,
             "The gradient of x of the maxima y of a pool, at the first pixel that has each.");
  module.def("resample", resample, py::arg("x"), py::arg("rows"), py::arg("columns"), py::arg("rows_above") = none,
             py::arg("columns_above") = none, py::arg("row_weights") = none, py::arg("column_weights") = none,
             py::arg("num_threads") = none, "Images (N, H, W, C) made of the named rows and columns of others.");
  module.def("moments", moments, py::arg("x"), py::arg("variance") = false, py::arg("num_threads") = none,
             "Means along the middle of three dimensions, and variances if asked for.");
  module.def("scale_shift", scale_shift, py::arg("x"), py::arg("scale") = none, py::arg("shift") = none,
             py::arg("residual") = none, py::arg("activation") = none, py::arg("in_place") = false,
             py::arg("num_threads") = none,
             "activation(x * scale + shift + residual), factors without the middle of three dimensions.");
  module.def("gradient_sums", gradient_sums, py::arg("dy"), py::arg("x"), py::arg("centre") = none,
             py::arg("scale") = none, py::arg("shift") = none, py::arg("activation") = none,
             py::arg("num_threads") = none,
             "Sums of g and of g * (x - centre), without the middle of three dimensions.");
  module.def("scale_gradient", scale_gradient, py::arg("dy"), py::arg("x"), py::arg("dy_factor") = none,
             py::arg("x_factor") = none, py::arg("summand") = none, py::arg("scale") = none, py::arg("shift") = none,
             py::arg("activation") = none, py::arg("in_place") = false, py::arg("num_threads") = none,
             "g * dy_factor + x * x_factor + summand; g is dy where a clamp of x * scale + shift lets it through.");
  module.def("softmax", softmax, py::arg("x"), py::arg("num_threads") = none, "Softmax of each row.");
  module.def("layer_norm", layer_norm, py::arg("x"), py::arg("weight") = none, py::arg("bias") = none,
             py::arg("epsilon") = 1e-5, py::arg("num_threads") = none, "Each row normalized, then weight and bias.");
}

}  // namespace convkit::bindings
