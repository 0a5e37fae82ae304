#include "chooser.hpp"

#include <limits>
#include <string>
#include <utility>

#include "../cpu/features.hpp"
#include "../workspace.hpp"
#include "gil.hpp"
#include "plan.hpp"

namespace convkit::bindings {
namespace {

PyObject* registered_chooser = nullptr;
PyObject* context_variable = nullptr;  // made at import
Shared<int> contexts_entered{0};

// Cycles that one core would take for the declared work, were every term exposed: enough to rank kernels of one ISA.
double predicted_cycles(const Kernel& kernel, const ConvProblem& problem, const Parameters& parameters, int threads) {
  Cost cost{};
  kernel.cost(problem, parameters, machine(), threads, &cost);
  const double lanes = static_cast<double>(isa_entry(kernel.isa).vector_bytes) / element_bytes(problem.dtype);
  const double work = cost.fmas / (lanes * (cost.efficiency > 0 ? cost.efficiency : 1)) + cost.vector_ops +
                      cost.bytes_l2 / 32 + cost.bytes_l3 / 16 + cost.bytes_dram / 8;
  return work * cost.imbalance / threads + 2000.0 * cost.barriers;
}

// Direct summation only: without the selector there is nobody to ask how much accuracy may be traded.
Choice least_predicted(const ConvProblem& problem, int threads) {
  Choice best;
  best.strict = true;
  double least = std::numeric_limits<double>::infinity();
  const Isa active = active_isa();
  for (int i = 0; i < kernel_count(); ++i) {
    const Kernel& candidate = kernel(i);
    if (candidate.isa != active || !candidate.error.direct || !applies(candidate, problem)) continue;
    Parameters parameters{};
    candidate.candidates(problem, machine(), threads, &parameters, 1);
    if (candidate.workspace_bytes(problem, parameters, machine(), threads) > workspace_limit()) continue;
    const double cycles = predicted_cycles(candidate, problem, parameters, threads);
    if (cycles < least) {
      least = cycles;
      best.kernel = &candidate;
      best.parameters = parameters;
    }
  }
  if (!best.kernel) raise(PyExc_MemoryError, "convkit: no kernel takes this problem within the workspace limit");
  return best;
}

Reference present_chooser() {
  const Guard guard(&registered_chooser);
  return Reference::borrow(registered_chooser);
}

Reference given_or_none(const Opaque& opaque) {
  return Reference::borrow(opaque.kind == Opaque::none ? Py_None : opaque.value);
}

}  // namespace

int schema_length(const Kernel& kernel) {
  int length = 0;
  while (length < max_parameters && kernel.schema[length].name) ++length;
  return length;
}

Reference problem_tuple(const ConvProblem& p) {
  const std::int64_t fields[] = {static_cast<std::int64_t>(p.op),
                                 static_cast<std::int64_t>(p.dtype),
                                 static_cast<std::int64_t>(p.layout),
                                 p.n,
                                 p.c,
                                 p.h,
                                 p.w,
                                 p.o,
                                 p.kh,
                                 p.kw,
                                 p.stride_h,
                                 p.stride_w,
                                 p.pad_top,
                                 p.pad_bottom,
                                 p.pad_left,
                                 p.pad_right,
                                 p.dilation_h,
                                 p.dilation_w,
                                 p.groups,
                                 static_cast<std::int64_t>(p.epilogue),
                                 p.bias,
                                 p.residual,
                                 p.packed};
  static_assert(sizeof fields / sizeof fields[0] == problem_fields, "ConvProblem has changed");
  Reference tuple(checked(PyTuple_New(problem_fields)));
  for (int i = 0; i < problem_fields; ++i) {
    PyTuple_SET_ITEM(tuple.get(), i, checked(PyLong_FromLongLong(fields[i])));
  }
  return tuple;
}

ConvProblem problem_from(PyObject* fields) {
  const Reference sequence = sequence_items(fields, "a problem is a sequence of 23 ints");
  if (PyTuple_GET_SIZE(sequence.get()) != problem_fields) {
    raise(PyExc_ValueError, "a problem has " + std::to_string(problem_fields) + " fields, not " +
                                std::to_string(PyTuple_GET_SIZE(sequence.get())));
  }
  std::int64_t v[problem_fields];
  for (int i = 0; i < problem_fields; ++i) {
    v[i] = parse_integer(PyTuple_GET_ITEM(sequence.get(), i), "a problem's field", 0);
  }
  if (v[0] > 2 || v[1] > 1 || v[2] > 1 || v[19] > 2 || v[20] > 1 || v[21] > 1 || v[22] > 1) {
    raise(PyExc_ValueError, "a problem's op, dtype, layout, epilogue or flag is out of range");
  }
  ConvProblem p{static_cast<Op>(v[0]),
                static_cast<Dtype>(v[1]),
                static_cast<Layout>(v[2]),
                v[3],
                v[4],
                v[5],
                v[6],
                v[7],
                v[8],
                v[9],
                v[10],
                v[11],
                v[12],
                v[13],
                v[14],
                v[15],
                v[16],
                v[17],
                v[18],
                static_cast<EpilogueClass>(v[19]),
                v[20],
                v[21],
                v[22],
                0,
                0};
  if (const Refusal refused = complete(p)) raise(PyExc_ValueError, std::string("impossible problem: ") + refused.text);
  return p;
}

Parameters parameters_from(PyObject* values, const Kernel& kernel) {
  const Reference sequence = sequence_items(values, "parameters are a sequence of ints");
  const int length = schema_length(kernel);
  if (PyTuple_GET_SIZE(sequence.get()) != length) {
    raise(PyExc_ValueError, std::string(kernel.name) + " takes " + std::to_string(length) + " parameters, not " +
                                std::to_string(PyTuple_GET_SIZE(sequence.get())));
  }
  Parameters parameters{};
  for (int i = 0; i < length; ++i) {
    const ParameterSpec& spec = kernel.schema[i];
    const std::int32_t value = parse_integer(PyTuple_GET_ITEM(sequence.get(), i), spec.name, spec.least);
    if (value > spec.most) {
      raise(PyExc_ValueError, std::string(spec.name) + " of " + kernel.name + " must be at most " +
                                  std::to_string(spec.most) + ", not " + std::to_string(value));
    }
    parameters.value[i] = value;
  }
  return parameters;
}

int team_from(PyObject* threads) {
  const std::int32_t team = parse_integer(threads, "threads", 1);
  if (team > most_threads) {
    raise(PyExc_ValueError,
          "threads must be at most " + std::to_string(most_threads) + ", not " + std::to_string(team));
  }
  return team;
}

Reference parameters_tuple(const Parameters& parameters, const Kernel& kernel) {
  const int length = schema_length(kernel);
  Reference tuple(checked(PyTuple_New(length)));
  for (int i = 0; i < length; ++i) {
    PyTuple_SET_ITEM(tuple.get(), i, checked(PyLong_FromLong(parameters.value[i])));
  }
  return tuple;
}

Choice choose(const ConvProblem& problem, int threads, const Options& options) {
  const Reference chooser = present_chooser();
  if (!chooser) return least_predicted(problem, threads);
  const Reference fields = problem_tuple(problem);
  const Reference team(checked(PyLong_FromLong(threads)));
  const Reference algorithm = given_or_none(options.algorithm), accuracy = given_or_none(options.accuracy);
  const Reference limit = options.workspace_limit.kind == Opaque::none
                              ? Reference(checked(PyLong_FromLongLong(workspace_limit())))
                              : given_or_none(options.workspace_limit);
  PyObject* arguments[] = {fields.get(), team.get(), algorithm.get(), accuracy.get(), limit.get()};
  const Reference answer(
      checked(retaking_gil([&] { return PyObject_Vectorcall(chooser.get(), arguments, 5, nullptr); })));
  if (!PyTuple_Check(answer.get()) || PyTuple_GET_SIZE(answer.get()) != 4) {
    raise(PyExc_TypeError, "a chooser returns (kernel index, parameters, settle, strict)");
  }
  const std::int32_t index = parse_integer(PyTuple_GET_ITEM(answer.get(), 0), "a kernel's index", 0);
  if (index >= kernel_count()) raise(PyExc_ValueError, "the chooser returned a kernel index out of range");
  Choice choice;
  choice.kernel = &kernel(index);
  choice.parameters = parameters_from(PyTuple_GET_ITEM(answer.get(), 1), *choice.kernel);
  // A kernel run on a problem that it did not accept would write out of bounds.
  if (!applies(*choice.kernel, problem)) {
    raise(PyExc_ValueError, std::string("the chooser returned ") + choice.kernel->name + ", which does not apply");
  }
  if (PyTuple_GET_ITEM(answer.get(), 2) != Py_None) {
    choice.settle = Reference::borrow(PyTuple_GET_ITEM(answer.get(), 2));
  }
  choice.strict = PyTuple_GET_ITEM(answer.get(), 3) == Py_True && choice.kernel->error.direct;
  return choice;
}

PyObject* set_chooser(PyObject*, PyObject* chooser) {
  return guarded([&]() -> PyObject* {
    if (chooser != Py_None && !PyCallable_Check(chooser)) raise(PyExc_TypeError, "a chooser is a callable, or None");
    Reference old = chooser == Py_None ? Reference() : Reference::borrow(chooser);
    {
      const Guard guard(&registered_chooser);
      old = Reference(std::exchange(registered_chooser, old.release()));
    }
    clear_plans();
    Py_RETURN_NONE;
  });
}

std::int64_t context_token() {
  if (contexts_entered == 0) return 0;
  PyObject* value = nullptr;
  if (PyContextVar_Get(context_variable, nullptr, &value) < 0) throw PythonError{};
  const Reference token(value);
  if (!token) return 0;
  const long long number = PyLong_AsLongLong(token.get());
  if (number == -1 && PyErr_Occurred()) throw PythonError{};
  return number;
}

void make_context_variable() { context_variable = checked(PyContextVar_New("convkit_tuning", nullptr)); }

PyObject* set_context(PyObject*, PyObject* token) {
  return guarded([&]() -> PyObject* {
    if (!PyLong_Check(token)) raise(PyExc_TypeError, "a context's token is an int");
    const Reference reset(checked(PyContextVar_Set(context_variable, token)));
    Py_RETURN_NONE;
  });
}

PyObject* context(PyObject*, PyObject*) {
  return guarded([] { return checked(PyLong_FromLongLong(context_token())); });
}

PyObject* context_entered(PyObject*, PyObject*) {
  ++contexts_entered;
  Py_RETURN_NONE;
}

PyObject* context_left(PyObject*, PyObject*) {
  if (contexts_entered > 0) --contexts_entered;
  Py_RETURN_NONE;
}

}  // namespace convkit::bindings
