// The submodule `filters`: filters of stacks of images, described by convkit.ndimage, which has checked what users gave.
#include <pybind11/numpy.h>

#include <string>
#include <utility>

#include "../cpu/features.hpp"
#include "../filters.hpp"
#include "../workspace.hpp"
#include "gil.hpp"
#include "module_parts.hpp"
#include "plan.hpp"

namespace py = pybind11;

namespace convkit::bindings {
namespace {

constexpr npy_intp least_bytes_without_gil = npy_intp{1} << 16;

using Doubles = py::array_t<double, py::array::c_style | py::array::forcecast>;

Element element_of(const py::array& array, const char* name) {
  switch (array.dtype().byteorder() == '>' ? NPY_NOTYPE : array.dtype().num()) {
    case NPY_BOOL: return Element::boolean;
    case NPY_BYTE: return Element::i8;
    case NPY_UBYTE: return Element::u8;
    case NPY_SHORT: return Element::i16;
    case NPY_USHORT: return Element::u16;
    case NPY_INT: return Element::i32;
    case NPY_UINT: return Element::u32;
    case NPY_LONG:
    case NPY_LONGLONG: return Element::i64;
    case NPY_ULONG:
    case NPY_ULONGLONG: return Element::u64;
    case NPY_FLOAT: return Element::f32;
    case NPY_DOUBLE: return Element::f64;
    default:
      throw py::type_error(std::string(name) + " must hold booleans, integers, float32 or float64, not " +
                           py::str(array.dtype()).cast<std::string>());
  }
}

Edge edge_of(const std::string& mode, const char* name) {
  static constexpr const char* modes[] = {"reflect", "mirror", "nearest", "wrap", "constant"};
  for (int i = 0; i < 5; ++i) {
    if (mode == modes[i]) return static_cast<Edge>(i);
  }
  throw py::value_error(std::string(name) + " must be reflect, mirror, nearest, wrap or constant, not " + mode);
}

FilterAxis axis_of(Edge edge, py::ssize_t size, py::ssize_t origin, const char* name) {
  if (size < 1) throw py::value_error(std::string(name) + " must be at least 1, not " + std::to_string(size));
  const py::ssize_t before = size / 2 + origin;
  if (before < 0 || before >= size) {
    throw py::value_error("origin " + std::to_string(origin) + " is outside of a window of " + std::to_string(size));
  }
  return {edge, size, before};
}

Isa isa_of(const py::object& name) {
  if (name.is_none()) return active_isa();
  const auto text = name.cast<std::string>();
  for (int i = 0; i < isa_count; ++i) {
    if (text == isa_name(static_cast<Isa>(i)) && allowed(static_cast<Isa>(i))) return static_cast<Isa>(i);
  }
  throw py::value_error("isa must be one of usable_isas(), not " + text);
}

// What all calls have in common.
struct Call {
  FilterJob job{};
  int threads;
  bool empty;
  npy_intp bytes;

  // `lead`: filters in front of the result's own dimensions, or -1.
  Call(FilterKind kind, const py::array& image, py::array& out, py::ssize_t lead, const std::string& row_mode,
       const std::string& column_mode, const std::pair<py::ssize_t, py::ssize_t>& sizes,
       const std::pair<py::ssize_t, py::ssize_t>& origin, double cval, const py::object& num_threads) {
    if (image.ndim() != 3) throw py::value_error("image must have 3 dimensions, not " + std::to_string(image.ndim()));
    const int skip = lead < 0 ? 0 : 1;
    bool fits = out.ndim() == 3 + skip && (lead < 0 || out.shape(0) == lead);
    for (int i = 0; fits && i < 3; ++i) fits = out.shape(i + skip) == image.shape(i);
    if (!fits) {
      throw py::value_error("out has shape " + shape(out) + ", but image has " + shape(image) +
                            (lead < 0 ? "" : " and there are " + std::to_string(lead) + " filters"));
    }
    if (!out.writeable()) throw py::value_error("out is read-only");
    job.kind = kind;
    job.from = static_cast<const char*>(image.data());
    job.to = static_cast<char*>(out.mutable_data());
    job.from_element = element_of(image, "image");
    job.to_element = element_of(out, "out");
    job.images = image.shape(0);
    job.height = image.shape(1);
    job.width = image.shape(2);
    job.filters = lead < 0 ? 1 : lead;
    job.from_image = image.strides(0);
    job.from_row = image.strides(1);
    job.from_column = image.strides(2);
    job.to_filter = lead < 0 ? 0 : out.strides(0);
    job.to_image = out.strides(skip);
    job.to_row = out.strides(1 + skip);
    job.to_column = out.strides(2 + skip);
    job.down = axis_of(edge_of(row_mode, "row_mode"), sizes.first, origin.first, "the window's height");
    job.along = axis_of(edge_of(column_mode, "column_mode"), sizes.second, origin.second, "the window's width");
    job.cval = cval;
    empty = out.size() == 0;
    bytes = image.nbytes();
    threads = resolve_threads(num_threads.ptr());
  }

  static std::string shape(const py::array& array) { return shape_text(reinterpret_cast<PyArrayObject*>(array.ptr())); }
  static std::string shape_text(PyArrayObject* array) {
    return bindings::shape_text(PyArray_DIMS(array), PyArray_NDIM(array));
  }

  void run(const py::object& isa_name) const {
    const Isa isa = isa_of(isa_name);
    if (empty) return;
    const ReleasedGil released(bytes >= least_bytes_without_gil);
    filter(job, isa, threads);
  }
};

void correlate(const py::array& image, const Doubles& weights, py::array out, const std::string& row_mode,
               const std::string& column_mode, double cval, std::pair<py::ssize_t, py::ssize_t> origin,
               const py::object& threads, const py::object& isa, bool exact) {
  if (weights.ndim() != 2 && weights.ndim() != 3) {
    throw py::value_error("weights must have 2 or 3 dimensions, not " + std::to_string(weights.ndim()));
  }
  const py::ssize_t bank = weights.ndim() - 2;
  Call call(FilterKind::dense, image, out, bank ? weights.shape(0) : -1, row_mode, column_mode,
            {weights.shape(bank), weights.shape(bank + 1)}, origin, cval, threads);
  call.job.weights = weights.data();
  call.job.exact = exact;
  call.run(isa);
}

void separable(const py::array& image, const Doubles& column_taps, const Doubles& row_taps, py::array out,
               const std::string& row_mode, const std::string& column_mode, double cval,
               std::pair<py::ssize_t, py::ssize_t> origin, const py::object& threads, const py::object& isa,
               bool rounded) {
  if (column_taps.ndim() != 1 || row_taps.ndim() != 1) throw py::value_error("taps must have 1 dimension");
  Call call(FilterKind::separable, image, out, -1, row_mode, column_mode, {column_taps.size(), row_taps.size()}, origin,
            cval, threads);
  call.job.down_taps = column_taps.data();
  call.job.along_taps = row_taps.data();
  call.job.rounded = rounded;
  call.run(isa);
}

void uniform(const py::array& image, py::ssize_t column_size, py::ssize_t row_size, py::array out,
             const std::string& row_mode, const std::string& column_mode, double cval,
             std::pair<py::ssize_t, py::ssize_t> origin, const py::object& threads, const py::object& isa,
             bool rounded) {
  Call call(FilterKind::uniform, image, out, -1, row_mode, column_mode, {column_size, row_size}, origin, cval, threads);
  call.job.rounded = rounded;
  call.run(isa);
}

}  // namespace

void add_filters(py::module_& module) {
  py::module_ filters = module.def_submodule("filters", "Filters of stacks of images, for convkit.ndimage.");
  const auto row_mode = py::arg("row_mode"), column_mode = py::arg("column_mode");
  const auto isa = py::arg("isa") = py::none();
  filters.def(
      "correlate", correlate, py::arg("image").noconvert(), py::arg("weights"), py::arg("out").noconvert(),
      py::kw_only(), row_mode, column_mode, py::arg("cval"), py::arg("origin"), py::arg("threads") = py::none(), isa,
      py::arg("exact") = true,
      "Sums weights of (height, width), or of as many filters as there are results, over each pixel's window. Not "
      "`exact`: large float32 filters take fewer products, at some more rounding.");
  filters.def("separable", separable, py::arg("image").noconvert(), py::arg("column_taps"), py::arg("row_taps"),
              py::arg("out").noconvert(), py::kw_only(), row_mode, column_mode, py::arg("cval"), py::arg("origin"),
              py::arg("threads") = py::none(), isa, py::arg("rounded") = false,
              "Sums taps along the columns, then along the rows. `rounded`: to elements of out in between.");
  filters.def("uniform", uniform, py::arg("image").noconvert(), py::arg("column_size"), py::arg("row_size"),
              py::arg("out").noconvert(), py::kw_only(), row_mode, column_mode, py::arg("cval"), py::arg("origin"),
              py::arg("threads") = py::none(), isa, py::arg("rounded") = true,
              "Means of each pixel's window, as `separable`.");
}

}  // namespace convkit::bindings
