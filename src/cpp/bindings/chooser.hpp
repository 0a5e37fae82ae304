// Which kernel? Python's answer, or, where nobody has registered a chooser, the least predicted cost.
#pragma once
#include "../inventory.hpp"
#include "options.hpp"

namespace convkit::bindings {

struct Choice {
  const Kernel* kernel = nullptr;
  Parameters parameters{};
  Reference settle;
  bool strict = false;  // the call asked for accuracy "strict", and the kernel sums directly
};

Choice choose(const ConvProblem& problem, int threads, const Options& options);

// set_chooser(f), set_context(token) and the like, as METH_O and METH_NOARGS functions.
PyObject* set_chooser(PyObject* self, PyObject* chooser);
PyObject* set_context(PyObject* self, PyObject* token);
PyObject* context(PyObject* self, PyObject*);
PyObject* context_entered(PyObject* self, PyObject*);
PyObject* context_left(PyObject* self, PyObject*);

// Called when the module is imported.
void make_context_variable();
// The tuning context's token: part of every plan's key. 0 outside of any, and read only while some context is entered.
std::int64_t context_token();

// Plain data to and from Python.
Reference problem_tuple(const ConvProblem& problem);
ConvProblem problem_from(PyObject* fields);                          // raises ValueError
Parameters parameters_from(PyObject* values, const Kernel& kernel);  // raises ValueError
Reference parameters_tuple(const Parameters& parameters, const Kernel& kernel);
int schema_length(const Kernel& kernel);
int team_from(PyObject* threads);  // raises ValueError

}  // namespace convkit::bindings
