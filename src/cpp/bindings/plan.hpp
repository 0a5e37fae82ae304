// A plan is everything about a call that does not depend on the data: the problem, the kernel chosen, and how the caller's
// arrays get to it. Needs the GIL.
#pragma once
#include <cstdint>

#include "../inventory.hpp"
#include "bring.hpp"
#include "describe.hpp"
#include "plan_cache.hpp"

namespace convkit::bindings {

struct Plan : Description {
  const Kernel* kernel = nullptr;  // null: the batch is empty, the result is empty or zeros
  Parameters parameters;
  Packing packing;
  int threads = 1;

  Bring x, w, bias, residual, out;  // out: computed in the arena and copied out
  Bring scale, shift;
  WeightView weights;  // strides only
  std::int64_t arena_bytes = 0, workspace_offset = 0;

  bool releases_gil = false;
  bool flushes_subnormals = false;
  bool asks_finite = false;  // weights that are not finite are to meet the padding: see infinite_weights.hpp

  Reference settle;    // called with the seconds of the run, where the chooser wants to learn; such a plan is not kept
  Reference owned[3];  // the opaque values of the key
};

// The team of a call that does not say: CONVKIT_NUM_THREADS, or what default_threads() allows. Raises ValueError.
int default_team();
// The threads that a call with these options gets.
int resolve_threads(const Options& options);
// Those of a call whose only option is num_threads, which may be None.
int resolve_threads(PyObject* num_threads);

// Describes the call and asks the chooser for a kernel. `packed`: the weights are a layer's.
PlanPointer make_plan(const Operands& operands, const Options& options, int threads, bool packed);

}  // namespace convkit::bindings
