// Runner: one kernel with explicit parameters on one problem, for tests and for measuring.
#include <chrono>
#include <cstring>
#include <limits>
#include <string>

#include "../workspace.hpp"
#include "arrays.hpp"
#include "chooser.hpp"
#include "gil.hpp"
#include "module_parts.hpp"
#include "outputs.hpp"
#include "plan.hpp"

namespace py = pybind11;

namespace convkit::bindings {
namespace {

struct Shape {
  int ndim = 4;
  npy_intp sizes[4];
};

Shape image(const ConvProblem& p, std::int64_t channels, std::int64_t rows, std::int64_t columns) {
  if (p.layout == Layout::nchw) return {4, {p.n, channels, rows, columns}};
  return {4, {p.n, rows, columns, channels}};
}

Shape input_shape(const ConvProblem& p) { return image(p, p.c, p.h, p.w); }
Shape output_shape(const ConvProblem& p) { return image(p, p.o, p.oh, p.ow); }
Shape filter_shape(const ConvProblem& p) { return {4, {p.o, p.c / p.groups, p.kh, p.kw}}; }

// Parses Activation's own names: a runner takes bounds apart from them.
Activation activation_from(const std::string& name) {
  static constexpr const char* names[] = {"none", "clamp",      "silu", "hardswish", "sigmoid",
                                          "tanh", "leaky_relu", "gelu", "gelu_tanh"};
  for (int i = 0; i < 9; ++i) {
    if (name == names[i]) return static_cast<Activation>(i);
  }
  throw py::value_error("no activation is called " + name);
}

class Runner {
 public:
  Runner(int index, const py::object& parameters, const py::object& problem, const py::object& team, py::object x,
         py::object w, py::object bias, py::object residual, double lo, double hi, const std::string& activation,
         py::object scale, py::object shift, bool residual_after, bool poison)
      : problem_(problem_from(problem.ptr())), asked_(problem_), poison_(poison) {
    if (index < 0 || index >= kernel_count()) throw py::value_error("no kernel has index " + std::to_string(index));
    const int threads = team_from(team.ptr());
    kernel_ = &kernel(index);
    if (asked_.n == 0) asked_.n = 1;
    if (!applies(*kernel_, asked_)) throw py::value_error(std::string(kernel_->name) + " does not take this problem");
    parameters_ = parameters_from(parameters.ptr(), *kernel_);
    kernel_->packing(asked_, parameters_, &packing_);
    const Op op = problem_.op;
    arguments_.problem = &asked_;
    arguments_.parameters = &parameters_;
    arguments_.machine = &machine();
    arguments_.threads = threads;
    arguments_.x = dense(x, op == Op::input_grad ? output_shape(problem_) : input_shape(problem_), "x");
    if (op == Op::weight_grad) {
      arguments_.dy = dense(w, output_shape(problem_), "w");
    } else {
      take_weights(w, threads);
    }
    const Shape result = op == Op::input_grad ? input_shape(problem_) : output_shape(problem_);
    const Shape channels{1, {result_channels(problem_)}};
    const void* const added = optional(residual, result, problem_.residual, "residual");
    arguments_.epilogue = {optional(bias, channels, problem_.bias, "bias"),
                           residual_after ? nullptr : added,
                           activation_from(activation),
                           lo,
                           hi,
                           nullptr};
    allocate_output();
    if (!scale.is_none() || !shift.is_none() || (added && residual_after)) {
      following_ = {arguments_.y,
                    result_channels(problem_),
                    problem_.layout == Layout::nhwc ? 1 : result.sizes[2] * result.sizes[3],
                    scale.is_none() ? nullptr : dense(scale, channels, "scale"),
                    shift.is_none() ? nullptr : dense(shift, channels, "shift"),
                    residual_after ? added : nullptr};
      arguments_.epilogue.following = &following_;
    }
    workspace_bytes_ = kernel_->workspace_bytes(asked_, parameters_, machine(), threads);
    workspace_ = Block(workspace_bytes_);
    arguments_.workspace = workspace_.data();
  }
  Runner(const Runner&) = delete;
  Runner& operator=(const Runner&) = delete;

  py::object run() {
    {
      const ReleasedGil released;
      if (poison_) {
        // All bytes 0xFF are a NaN in either type.
        std::memset(arguments_.y, 0xFF, static_cast<std::size_t>(y_bytes_));
        std::memset(workspace_.data(), 0xFF, static_cast<std::size_t>(workspace_bytes_));
      }
      if (problem_.n > 0) {
        kernel_->run(arguments_);
      } else {  // only the gradient of the weights has any element
        std::memset(arguments_.y, 0, static_cast<std::size_t>(y_bytes_));
      }
    }
    return y_;
  }

  double time(int repeats) {
    if (problem_.n == 0) return 0;
    const ReleasedGil released;
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < repeats; ++i) kernel_->run(arguments_);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }

  py::object y() const { return y_; }

 private:
  // The data of a dense array of exactly this shape; the array lives as long as the runner.
  const void* dense(const py::object& object, const Shape& shape, const char* name) {
    const ArrayArgument array = fitting(object, shape, name);
    if (!PyArray_IS_C_CONTIGUOUS(array.get()) || array.misaligned()) {
      throw py::value_error(std::string(name) + " must be dense and aligned");
    }
    return array.data();
  }

  const void* optional(const py::object& object, const Shape& shape, std::int64_t expected, const char* name) {
    if (object.is_none() != (expected == 0)) {
      throw py::value_error(std::string("the problem and the arguments disagree about ") + name);
    }
    return object.is_none() ? nullptr : dense(object, shape, name);
  }

  ArrayArgument fitting(const py::object& object, const Shape& shape, const char* name) {
    if (!PyArray_Check(object.ptr())) throw py::type_error(std::string(name) + " must be a NumPy array");
    ArrayArgument array(object.ptr(), name);
    if (array.dtype() != problem_.dtype) throw py::type_error(std::string(name) + " has not the problem's dtype");
    if (array.ndim() != shape.ndim || std::memcmp(array.shape(), shape.sizes, sizeof(npy_intp) * shape.ndim) != 0) {
      throw py::value_error(std::string(name) + " has shape " + shape_text(array) + ", the problem needs " +
                            shape_text(shape.sizes, shape.ndim));
    }
    kept_.append(object);
    return array;
  }

  // Weights may have any strides of whole elements unless the kernel reads them as they are.
  void take_weights(const py::object& object, int threads) {
    const ArrayArgument w = fitting(object, filter_shape(problem_), "w");
    const bool as_they_are = packing_.id[0] == 0;
    std::int64_t strides[4];
    for (int i = 0; i < 4; ++i) {
      const npy_intp bytes = w.strides()[i];
      if (bytes % element_bytes(problem_.dtype) != 0) throw py::value_error("w has strides of partial elements");
      strides[i] = bytes / element_bytes(problem_.dtype);
    }
    if (w.misaligned() || (as_they_are && !PyArray_IS_C_CONTIGUOUS(w.get()))) {
      throw py::value_error(std::string(kernel_->name) + " needs dense OIHW weights");
    }
    arguments_.w = {w.data(),   strides[0], strides[1],
                    strides[2], strides[3], problem_.o / problem_.groups * strides[0]};
    if (problem_.packed && !as_they_are) {
      packed_ = Block(packing_.bytes);
      kernel_->pack(asked_, parameters_, arguments_.w, packed_.data(), threads);
      arguments_.packed = packed_.data();
    }
  }

  void allocate_output() {
    const Shape shape = problem_.op == Op::forward      ? output_shape(problem_)
                        : problem_.op == Op::input_grad ? input_shape(problem_)
                                                        : filter_shape(problem_);
    npy_intp strides[4];
    y_bytes_ = element_bytes(problem_.dtype);
    for (int i = 3; i >= 0; --i) {
      strides[i] = y_bytes_;
      y_bytes_ = checked_product(y_bytes_, shape.sizes[i]);
    }
    y_ = py::reinterpret_steal<py::object>(new_output(problem_.dtype, 4, shape.sizes, strides, y_bytes_));
    arguments_.y = PyArray_DATA(reinterpret_cast<PyArrayObject*>(y_.ptr()));
  }

  ConvProblem problem_;
  ConvProblem asked_;  // the same, with a batch of one in place of an empty one: kernels see no empty tensor
  bool poison_;
  const Kernel* kernel_ = nullptr;
  Parameters parameters_{};
  Packing packing_{};
  Arguments arguments_{};
  Following following_{};
  py::list kept_;
  py::object y_;
  std::int64_t y_bytes_ = 0, workspace_bytes_ = 0;
  Block packed_, workspace_;
};

}  // namespace

void add_runner(py::module_& module) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  py::class_<Runner>(
      module, "Runner",
      "One kernel with explicit parameters on one problem.\n\n"
      "Arrays are dense in the problem's layout (w: OIHW; for op weight_grad, x and dy are passed as x and "
      "w).\nPacks the weights if the problem says so, and allocates the result and the workspace. With "
      "poison=True\nboth are filled with NaN before each run.")
      .def(py::init<int, const py::object&, const py::object&, const py::object&, py::object, py::object, py::object,
                    py::object, double, double, const std::string&, py::object, py::object, bool, bool>(),
           py::arg("index"), py::arg("parameters"), py::arg("problem"), py::arg("threads"), py::arg("x"), py::arg("w"),
           py::arg("bias") = py::none(), py::arg("residual") = py::none(), py::arg("lo") = -infinity,
           py::arg("hi") = infinity, py::arg("activation") = "none", py::arg("scale") = py::none(),
           py::arg("shift") = py::none(), py::arg("residual_after") = false, py::arg("poison") = false)
      .def("run", &Runner::run, "Runs once; returns y, the same array each time.")
      .def("time", &Runner::time, py::arg("repeats"), "Seconds that `repeats` runs take, by a steady clock.")
      .def_property_readonly("y", &Runner::y, "The result's array.");
}

}  // namespace convkit::bindings
