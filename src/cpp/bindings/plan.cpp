#include "plan.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <limits>
#include <string>
#include <utility>

#include "../parallel.hpp"
#include "../workspace.hpp"
#include "chooser.hpp"
#include "infinite_weights.hpp"

namespace convkit::bindings {
namespace {

// Giving up the GIL and taking it back costs more than it frees below some twenty microseconds of work, here in
// multiply-adds at 20 GHz and bytes at 10 GB/s.
constexpr double least_seconds_without_gil = 20e-6;

// Any team size gives the same bits, while OpenMP ends the process where it cannot start that many.
int bounded_team(int threads) {
  static const int most = std::min(most_threads, std::max(8, static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN))));
  return std::min(threads, most);
}

double estimated_seconds(const Plan& plan) {
  const ConvProblem& p = plan.problem;
  const double bytes =
      static_cast<double>(plan.y_bytes) + static_cast<double>(plan.arena_bytes) +
      element_bytes(p.dtype) * static_cast<double>(p.n) * static_cast<double>(p.c * p.h) * static_cast<double>(p.w);
  return multiply_adds(p) / 20e9 + bytes / 10e9;
}

void reserve_factor(const Factor& factor, const ArrayArgument& array, const ConvProblem& p, Bring& bring,
                    std::int64_t& arena) {
  if (array) bring.reserve_channels(array, arena);
  if (factor.kind == Factor::number) bring.reserve_number(result_channels(p), p.dtype, arena);
}

// What of the arena each operand needs, and the kernel's workspace.
void bring_operands(const Operands& o, const Options& options, Plan& plan) {
  const ConvProblem& p = plan.problem;
  std::int64_t& arena = plan.arena_bytes;
  if (!plan.x_dense || o.x.misaligned()) {
    plan.x.reserve_tensor(o.x, options.layout, p.layout, arena, options.transposed ? p.oh : 0,
                          options.transposed ? p.ow : 0);
  }
  const bool gradient = options.op == Op::weight_grad;
  if (gradient) {
    plan.w.reserve_tensor(o.w, options.layout, p.layout, arena);
  } else {
    // A layer's kernel reads a packing, or weights that the layer has made dense for it.
    const bool any_strides = plan.packing.id[0] != 0;
    std::int64_t copies = 0;
    plan.weights = plan.w.reserve_weights(o.w, any_strides, p.groups, static_cast<bool>(o.weight_scale),
                                          p.packed ? copies : arena);
    if (p.packed) plan.w.copied = false;
  }
  if (o.bias) plan.bias.reserve_channels(o.bias, arena);
  reserve_factor(options.scale, o.scale, p, plan.scale, arena);
  reserve_factor(options.shift, o.shift, p, plan.shift, arena);
  if (o.residual) {
    plan.residual.reserve_tensor(o.residual, options.layout, p.layout, arena, 0, 0, adds_late_in_place(o, options));
  }
  if (o.out) {
    plan.out.reserve_tensor(o.out, gradient ? Layout::nchw : options.layout, gradient ? Layout::nchw : p.layout, arena);
  }
  const std::int64_t workspace = plan.kernel->workspace_bytes(p, plan.parameters, machine(), plan.threads);
  if (workspace > 0) {
    // Kernels are promised a page's alignment; the arena starts on one.
    arena = checked_sum(arena, 4095) / 4096 * 4096;
    plan.workspace_offset = arena;
    arena = checked_sum(arena, workspace);
  }
}

}  // namespace

int default_team() {
  // Read at first use and again after clear_plans(), as everything else that decides a call.
  static Shared<std::uint64_t> read_at{0};
  static Shared<int> named{0};
  const std::uint64_t generation = plan_generation();
  if (read_at != generation) {
    int read = 0;
    if (const char* text = std::getenv("CONVKIT_NUM_THREADS"); text && *text) {
      char* end;
      errno = 0;
      const long value = std::strtol(text, &end, 10);
      if (*end || errno || value < 1 || value > std::numeric_limits<int>::max()) {
        raise(PyExc_ValueError,
              std::string("CONVKIT_NUM_THREADS must be an integer of at least 1, not '") + text + "'");
      }
      read = bounded_team(static_cast<int>(value));
    }
    named = read;
    read_at = generation;
  }
  const int count = named;
  return count ? count : default_threads();
}

int resolve_threads(const Options& options) {
  return options.threads == 0 ? default_team() : bounded_team(options.threads);
}

int resolve_threads(PyObject* num_threads) {
  Options options;
  if (num_threads != Py_None) options.threads = parse_integer(num_threads, "num_threads", 1);
  return resolve_threads(options);
}

PlanPointer make_plan(const Operands& operands, const Options& options, int threads, bool packed) {
  look_for_runtime();  // libraries that were imported since the last new shape may have brought one
  Held<Plan> fresh = make_held<Plan>();
  Plan* const plan = &*fresh;
  const PlanPointer made = std::move(fresh);
  const Opaque* opaques[] = {&options.algorithm, &options.accuracy, &options.workspace_limit};
  for (int i = 0; i < 3; ++i) plan->owned[i] = Reference::borrow(opaques[i]->value);
  static_cast<Description&>(*plan) = describe(operands, options, packed);
  plan->threads = threads;
  if (plan->y_bytes == 0 || PyArray_SIZE(operands.x.get()) == 0) return made;

  Key described;
  described.add(operands);
  Choice choice = choose(plan->problem, threads, options);
  Key chosen_for;
  chosen_for.add(operands);
  if (!(described == chosen_for)) {
    raise(PyExc_RuntimeError, "an array changed its shape, strides or dtype while its convolution was being planned");
  }
  plan->kernel = choice.kernel;
  plan->parameters = choice.parameters;
  plan->settle = std::move(choice.settle);
  plan->flushes_subnormals = !choice.strict;
  plan->asks_finite = choice.strict && multiplies_padding(plan->problem);
  plan->packing = Packing{};
  plan->kernel->packing(plan->problem, plan->parameters, &plan->packing);

  bring_operands(operands, options, *plan);
  plan->releases_gil = estimated_seconds(*plan) > least_seconds_without_gil;
  return made;
}

}  // namespace convkit::bindings
