// Runs a plan on the arrays of one call.
#pragma once
#include "plan.hpp"

namespace convkit::bindings {

// Returns the result as a new reference: `out_object` if the call has an `out`, else a fresh array. `packed` are the
// packed weights of a layer, or null.
PyObject* run_plan(const Plan& plan, const Operands& operands, const Options& options, const void* packed,
                   PyObject* out_object);

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
}

}  // namespace convkit::bindings
