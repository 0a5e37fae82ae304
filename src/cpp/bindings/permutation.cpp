// transpose(x, axes): a permutation of dimensions, written out in full.
#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include "arrays.hpp"
#include "gil.hpp"
#include "module_parts.hpp"
#include "options.hpp"
#include "outputs.hpp"
#include "plan.hpp"
#include "strided_copy.hpp"

namespace py = pybind11;

namespace convkit::bindings {
namespace {

constexpr int most_dims = 4;
constexpr std::int64_t least_bytes_without_gil = std::int64_t{1} << 16;

// Which dimension of x each dimension of the result is.
std::vector<npy_intp> parse_axes(const py::object& object, int ndim) {
  const Reference sequence = sequence_items(object.ptr(), "axes must be a sequence of integers");
  std::vector<npy_intp> axes, order;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(sequence.get()); ++i) {
    PyObject* axis = PyTuple_GET_ITEM(sequence.get(), i);
    axes.push_back(parse_integer(axis, "axes", std::numeric_limits<std::int32_t>::min()));
    order.push_back(axes.back() < 0 ? axes.back() + ndim : axes.back());
  }
  std::vector<npy_intp> sorted = order;
  std::sort(sorted.begin(), sorted.end());
  bool permutation = static_cast<int>(axes.size()) == ndim;
  for (int i = 0; permutation && i < ndim; ++i) permutation = sorted[i] == i;
  if (permutation) return order;
  std::string text = "axes must name each of the " + std::to_string(ndim) + " dimensions of x once, not (";
  for (std::size_t i = 0; i < axes.size(); ++i) text += (i ? ", " : "") + std::to_string(axes[i]);
  raise(PyExc_ValueError, text + ")");
}

py::object transpose_array(const py::object& object, const py::object& axes, const py::object& out_object,
                           const py::object& num_threads) {
  const ArrayArgument x(object.ptr(), "x");
  const int ndim = x.ndim();
  if (ndim > most_dims) {
    raise(PyExc_ValueError, "x has " + std::to_string(ndim) + " dimensions, at most 4 are supported");
  }
  const std::vector<npy_intp> order = parse_axes(axes, ndim);
  const int threads = resolve_threads(num_threads.ptr());

  StridedCopy what{};
  what.element = element_bytes(x.dtype());
  npy_intp shape[most_dims], strides[most_dims];
  npy_intp bytes = what.element;
  for (int i = ndim; i-- > 0;) {
    shape[i] = x.shape()[order[i]];
    strides[i] = bytes;
    bytes *= shape[i];
  }
  Reference result;
  if (out_object.is_none()) {
    // At least one byte: a result without elements has an address too.
    result = Reference(new_output(x.dtype(), ndim, shape, strides, std::max<npy_intp>(bytes, 1)));
  } else {
    result = Reference::borrow(out_object.ptr());
  }
  const ArrayArgument out(result.get(), "out");
  if (!out_object.is_none()) {
    if (out.get() != reinterpret_cast<PyArrayObject*>(result.get())) {
      raise(PyExc_TypeError, "out must be a NumPy array");
    }
    if (out.dtype() != x.dtype()) {
      raise(PyExc_TypeError, std::string("out is ") + dtype_name(out.dtype()) + ", but x is " + dtype_name(x.dtype()));
    }
    if (out.ndim() != ndim || !std::equal(shape, shape + ndim, out.shape())) {
      raise(PyExc_ValueError, "out has shape " + shape_text(out) + ", but the result has " + shape_text(shape, ndim));
    }
    check_out(out);
    check_overlap(out, x, "x", false);
  }
  what.to = out.data();
  what.from = x.data();
  for (int i = 0; i < most_dims; ++i) {
    const int at = i - (most_dims - ndim);
    what.sizes[i] = at >= 0 ? shape[at] : 1;
    what.to_strides[i] = at >= 0 ? out.strides()[at] : 0;
    what.from_strides[i] = at >= 0 ? x.strides()[order[at]] : 0;
  }
  if (bytes < least_bytes_without_gil) {
    copy(what, 1);
  } else {
    const ReleasedGil released;
    copy(what, threads);
  }
  return py::reinterpret_steal<py::object>(result.release());
}

py::object as_array(const py::object& object, const std::string& name) {
  const ArrayArgument array(object.ptr(), name.c_str());
  return py::reinterpret_borrow<py::object>(reinterpret_cast<PyObject*>(array.get()));
}

}  // namespace

void add_transpose(py::module_& module) {
  module.def("as_array", as_array, py::arg("object"), py::arg("name"),
             "What the calls make of an argument: a NumPy array of float32 or float64, or the error that names it.");
  module.def("transpose", transpose_array, py::arg("x"), py::arg("axes"), py::arg("out") = py::none(),
             py::arg("num_threads") = py::none(), "A copy of x with its dimensions in the order of axes.");
}

}  // namespace convkit::bindings
