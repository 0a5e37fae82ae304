#include "run.hpp"

#include "../cpu/subnormals.hpp"
#include "../workspace.hpp"
#include "gil.hpp"
#include "infinite_weights.hpp"
#include "outputs.hpp"
#include "profile.hpp"
#include "strided_copy.hpp"

namespace convkit::bindings {
namespace {

// The arena of calls that keep the GIL: no two of them run at once, so they need neither a lock nor a list.
constexpr std::int64_t largest_kept_arena = std::int64_t{1} << 20;
Block kept_arena;

std::byte* arena_under_gil(std::int64_t bytes) {
  if (kept_arena.bytes() < bytes) kept_arena = Block(bytes);
  return kept_arena.data();
}

StridedCopy between(const Bring& bring, int element) {
  StridedCopy c{};
  c.element = element;
  for (int i = 0; i < 4; ++i) c.sizes[i] = bring.tensor.sizes[i];
  return c;
}

// The operand where the kernel can read it.
const char* brought(const Bring& bring, const char* data, std::byte* arena, int element, int threads) {
  if (!bring.copied) return data;
  if (bring.zeroed) std::memset(arena + bring.offset, 0, static_cast<std::size_t>(bring.zeroed));
  StridedCopy c = between(bring, element);
  c.from = data;
  c.to = reinterpret_cast<char*>(arena + bring.offset);
  for (int i = 0; i < 4; ++i) {
    c.from_strides[i] = bring.tensor.strides[i];
    c.to_strides[i] = bring.dense[i];
  }
  copy(c, threads);
  return c.to;
}

void copy_out(const Bring& bring, char* data, std::byte* arena, int element, int threads) {
  StridedCopy c = between(bring, element);
  c.from = reinterpret_cast<const char*>(arena + bring.offset);
  c.to = data;
  for (int i = 0; i < 4; ++i) {
    c.from_strides[i] = bring.dense[i];
    c.to_strides[i] = bring.tensor.strides[i];
  }
  copy(c, threads);
}

// The gradient over an empty batch: a sum of nothing.
void fill_with_zeros(PyObject* array) {
  const Reference zero(checked(PyLong_FromLong(0)));
  if (PyArray_FillWithScalar(reinterpret_cast<PyArrayObject*>(array), zero.get()) < 0) throw PythonError{};
}

}  // namespace

void clear_kept_arena() { kept_arena = Block(); }

PyObject* run_plan(const Plan& plan, const Operands& operands, const Options& options, const OwnWeights* own,
                   PyObject* out_object) {
  Reference result(operands.out
                       ? Py_NewRef(out_object)
                       : new_output(plan.problem.dtype, plan.y_ndim, plan.y_shape, plan.y_strides, plan.y_bytes));
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
    a.x = brought(plan.x, operands.x.data(), arena, element, threads);
    const char* const second = brought(plan.w, operands.w.data(), arena, element, threads);
    const bool gradient = plan.problem.op == Op::weight_grad;
    a.dy = gradient ? second : nullptr;
    a.w = plan.weights;
    a.w.data = gradient ? nullptr : second;
    a.packed = own ? own->packed : nullptr;
    a.epilogue.bias = operands.bias ? brought(plan.bias, operands.bias.data(), arena, element, threads) : nullptr;
    a.epilogue.residual =
        operands.residual ? brought(plan.residual, operands.residual.data(), arena, element, threads) : nullptr;
    a.epilogue.activation = options.activation;
    a.epilogue.lo = options.lo;
    a.epilogue.hi = options.hi;
    a.y = plan.out.copied ? reinterpret_cast<char*>(arena + plan.out.offset) : y;
    a.workspace = arena + plan.workspace_offset;
    a.threads = threads;
    {
      const FlushedSubnormals flushed(plan.flushes_subnormals);
      plan.kernel->run(a);
    }
    if (plan.asks_finite && !(own ? own->finite : all_finite(operands.w))) multiply_padding(plan.problem, a.w, a.y);
    if (plan.out.copied) copy_out(plan.out, y, arena, element, threads);
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
