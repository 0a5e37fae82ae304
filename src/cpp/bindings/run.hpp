// Runs a plan on the arrays of one call.
#pragma once
#include "chooser.hpp"
#include "plan.hpp"

namespace convkit::bindings {

// What a layer knows of its weights.
struct OwnWeights {
  const void* packed;  // null if the kernel reads them as they are, or packs them on the way
  const void* dense;   // what it reads then, if it is not the operand
  bool finite;
};

// Returns the result as a new reference: `out_object` if the call has an `out`, else a fresh array. `own` is null if the
// weights are not a layer's. `parts`: what the kernel reads in place of x, if it reads parts.
PyObject* run_plan(const Plan& plan, const Operands& operands, const Options& options, const OwnWeights* own,
                   PyObject* out_object, const Parts* parts = nullptr);

// Frees the arena that small calls share. Needs the GIL.
void clear_kept_arena();

// Checks of `out` that depend on addresses, hence on every call.
inline void check_out_operands(const Operands& operands, bool own_weights) {
  if (!operands.out) return;
  check_out(operands.out);
  check_overlap(operands.out, operands.x, "x", false);
  if (!own_weights) check_overlap(operands.out, operands.w, "w", false);
  if (operands.bias && !own_weights) check_overlap(operands.out, operands.bias, "bias", false);
  if (operands.residual) check_overlap(operands.out, operands.residual, "residual", true);
  if (operands.scale && !own_weights) check_overlap(operands.out, operands.scale, "scale", false);
  if (operands.shift && !own_weights) check_overlap(operands.out, operands.shift, "shift", false);
}

// Finds or makes the plan of a call that brings its own weights, and runs it.
inline PyObject* run_call(const Operands& operands, const Options& options, PyObject* out_object) {
  // First, since NumPy may give up the GIL meanwhile: from the key on nobody else may touch the arrays' shapes.
  check_out_operands(operands, false);
  const int threads = resolve_threads(options);
  Key key;
  key.add(threads | context_token() << 32);
  key.add(operands);
  key.add(options);
  if (options.residual_after) key.add(adds_late_in_place(operands, options));
  ++counters().calls;
  PlanPointer plan = kept_plan(key);
  if (plan) {
    ++counters().plan_hits;
  } else {
    ++counters().plan_misses;
    const std::uint64_t generation = plan_generation();
    plan = make_plan(operands, options, threads, false);
    // What was chosen before a clear_plans() meanwhile must not outlive it.
    if (!plan->settle) keep_plan(key, plan, generation);
  }
  return run_plan(*plan, operands, options, nullptr, out_object);
}

// What a call's own parser, which derives from this, makes of its arguments.
struct ParsedCall {
  Operands operands;
  Options options;
  PyObject* out_object;
};

template <class Call>
PyObject* run_parsed(PyObject*, PyObject* const* arguments, Py_ssize_t given, PyObject* keyword_names) {
  return guarded([&] {
    const Call call(arguments, given, keyword_names);
    return run_call(call.operands, call.options, call.out_object);
  });
}

}  // namespace convkit::bindings
