#include "run.hpp"

#include <utility>

#include "../cpu/subnormals.hpp"
#include "../workspace.hpp"
#include "filter_scale.hpp"
#include "gil.hpp"
#include "infinite_weights.hpp"
#include "outputs.hpp"
#include "profile.hpp"

namespace convkit::bindings {
namespace {

// The arena of calls that keep the GIL: no two of them run at once, so they need neither a lock nor a list. Where there is no
// GIL each thread has one.
constexpr std::int64_t largest_kept_arena = std::int64_t{1} << 20;
CONVKIT_PER_THREAD Block kept_arena;

#ifdef Py_GIL_DISABLED
// Raised when all threads are to give theirs back, which each does at its next call.
std::atomic<unsigned> clearings{0};
thread_local unsigned clearings_seen = 0;
#endif

std::byte* arena_under_gil(std::int64_t bytes) {
#ifdef Py_GIL_DISABLED
  if (const unsigned now = clearings; clearings_seen != now) {
    kept_arena = Block();
    clearings_seen = now;
  }
#endif
  if (kept_arena.bytes() < bytes) kept_arena = Block(bytes);
  return kept_arena.data();
}

// A factor of every channel, or null.
const void* channel_values(const Factor& factor, const Bring& bring, const ArrayArgument& array, std::byte* arena,
                           Dtype dtype, int threads) {
  if (factor.kind == Factor::none) return nullptr;
  if (factor.kind == Factor::number) return bring.fill(factor.value, arena, dtype);
  return bring.in(array.data(), arena, element_bytes(dtype), threads);
}

// The gradient over an empty batch: a sum of nothing.
void fill_with_zeros(PyObject* array) {
  const Reference zero(checked(PyLong_FromLong(0)));
  if (PyArray_FillWithScalar(reinterpret_cast<PyArrayObject*>(array), zero.get()) < 0) throw PythonError{};
}

}  // namespace

void clear_kept_arena() {
#ifdef Py_GIL_DISABLED
  ++clearings;
#endif
  kept_arena = Block();
}

PyObject* run_plan(const Plan& plan, const Operands& operands, const Options& options, const OwnWeights* own,
                   PyObject* out_object, const Parts* parts) {
  const npy_intp* const strides = plan.y_in_c_order ? nullptr : plan.y_strides;
  Reference result(operands.out ? Py_NewRef(out_object)
                                : new_output(plan.problem.dtype, plan.y_ndim, plan.y_shape, strides, plan.y_bytes));
  if (!plan.kernel) {
    if (plan.y_bytes > 0) fill_with_zeros(result.get());
    return result.release();
  }
  char* y = operands.out ? operands.out.data() : PyArray_BYTES(reinterpret_cast<PyArrayObject*>(result.get()));
  const bool under_gil = !plan.releases_gil && plan.arena_bytes <= largest_kept_arena;
  const Workspace workspace(under_gil ? 0 : plan.arena_bytes);
  std::byte* arena = under_gil ? arena_under_gil(plan.arena_bytes) : workspace.data();
  const int element = element_bytes(plan.problem.dtype), threads = plan.threads;
  const bool recorded = profiling, timed = recorded || plan.settle;
  ProfileClock::time_point start, end;
  {
    const ReleasedGil released(plan.releases_gil);
    if (timed) start = ProfileClock::now();
    Arguments a;
    a.problem = &plan.problem;
    a.parameters = &plan.parameters;
    a.machine = &machine();
    a.parts = parts;
    a.x = plan.x.in(operands.x.data(), arena, element, threads);
    const char* const second = plan.w.in(operands.w.data(), arena, element, threads);
    const bool gradient = plan.problem.op == Op::weight_grad;
    a.dy = gradient ? second : nullptr;
    a.w = plan.weights;
    a.w.data = gradient ? nullptr : own && own->dense ? own->dense : second;
    a.packed = own ? own->packed : nullptr;
    if (operands.weight_scale) {
      scale_filters(plan.problem, operands.weight_scale.data(), arena + plan.w.offset, threads);
    }
    a.epilogue.bias = operands.bias ? plan.bias.in(operands.bias.data(), arena, element, threads) : nullptr;
    a.epilogue.residual =
        operands.residual ? plan.residual.in(operands.residual.data(), arena, element, threads) : nullptr;
    a.epilogue.activation = options.activation;
    a.epilogue.lo = options.lo;
    a.epilogue.hi = options.hi;
    a.epilogue.following = nullptr;
    a.y = plan.out.out(y, arena);
    Following following;
    if (plan.follows) {
      const ConvProblem& p = plan.problem;
      const std::int64_t pixels = p.op == Op::forward ? p.oh * p.ow : p.h * p.w;
      following = {a.y,
                   result_channels(p),
                   p.layout == Layout::nhwc ? 1 : pixels,
                   channel_values(options.scale, plan.scale, operands.scale, arena, p.dtype, threads),
                   channel_values(options.shift, plan.shift, operands.shift, arena, p.dtype, threads),
                   options.residual_after ? std::exchange(a.epilogue.residual, nullptr) : nullptr};
      a.epilogue.following = &following;
    }
    a.workspace = arena + plan.workspace_offset;
    a.threads = threads;
    {
      const FlushedSubnormals flushed(plan.flushes_subnormals);
      plan.kernel->run(a);
    }
    if (plan.asks_finite && !(own ? own->finite : all_finite(operands.w))) multiply_padding(plan.problem, a.w, a.y);
    plan.out.copy_out(y, arena, element, threads);
    if (timed) end = ProfileClock::now();
  }
  if (recorded) record_call(plan, start, end);
  if (plan.settle) {
    const Reference time(checked(PyFloat_FromDouble(std::chrono::duration<double>(end - start).count())));
    const Reference ignored(checked(retaking_gil([&] { return PyObject_CallOneArg(plan.settle.get(), time.get()); })));
  }
  return result.release();
}

}  // namespace convkit::bindings
