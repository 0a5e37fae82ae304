#include "module_parts.hpp"

#include "../cpu/features.hpp"
#include "../inventory.hpp"
#include "arrays.hpp"
#include "chooser.hpp"

namespace py = pybind11;

namespace convkit::bindings {
namespace {

const Kernel& kernel_at(int index) {
  active_isa();  // a bad CONVKIT_ISA is reported by whatever is asked first
  if (index < 0 || index >= kernel_count()) throw py::value_error("no kernel has index " + std::to_string(index));
  return kernel(index);
}

py::object owned(Reference reference) { return py::reinterpret_steal<py::object>(reference.release()); }

// An empty batch is answered without a kernel: what is asked about it is asked about a batch of one.
ConvProblem nonempty(const py::object& fields) {
  ConvProblem problem = problem_from(fields.ptr());
  if (problem.n == 0) problem.n = 1;
  return problem;
}

const Kernel& applicable(int index, const ConvProblem& problem) {
  const Kernel& found = kernel_at(index);
  if (!applies(found, problem)) throw py::value_error(std::string(found.name) + " does not take this problem");
  return found;
}

const char* op_name(Op op) {
  static constexpr const char* names[] = {"forward", "input_grad", "weight_grad"};
  return names[static_cast<int>(op)];
}

py::list kernels() {
  active_isa();
  py::list all;
  for (int i = 0; i < kernel_count(); ++i) {
    const Kernel& k = kernel(i);
    py::list layouts, schema;
    for (const Layout layout : {Layout::nchw, Layout::nhwc}) {
      if ((k.layouts >> static_cast<int>(layout)) & 1u) layouts.append(layout == Layout::nchw ? "NCHW" : "NHWC");
    }
    for (int p = 0; p < schema_length(k); ++p) {
      schema.append(py::make_tuple(k.schema[p].name, k.schema[p].least, k.schema[p].most));
    }
    py::dict entry;
    entry["index"] = i;
    entry["family"] = k.family;
    entry["name"] = k.name;
    entry["isa"] = isa_name(k.isa);
    entry["op"] = op_name(k.op);
    entry["dtypes"] = py::make_tuple(dtype_name(k.dtype_x), dtype_name(k.dtype_w), dtype_name(k.dtype_accumulate),
                                     dtype_name(k.dtype_y));
    entry["layouts"] = py::tuple(layouts);
    entry["revision"] = k.revision;
    entry["direct"] = k.error.direct;
    entry["rms_ratio"] = static_cast<double>(k.error.rms_ratio);
    entry["parameters"] = schema;
    all.append(entry);
  }
  return all;
}

bool kernel_applies(int index, const py::object& problem) { return applies(kernel_at(index), nonempty(problem)); }

py::list candidates(int index, const py::object& problem, const py::object& threads) {
  constexpr int capacity = 64;
  const ConvProblem p = nonempty(problem);
  const Kernel& k = applicable(index, p);
  Parameters sets[capacity]{};
  const int count = k.candidates(p, machine(), team_from(threads.ptr()), sets, capacity);
  py::list all;
  for (int i = 0; i < count; ++i) all.append(owned(parameters_tuple(sets[i], k)));
  return all;
}

py::dict cost(int index, const py::object& problem, const py::object& parameters, const py::object& threads) {
  const ConvProblem p = nonempty(problem);
  const Kernel& k = applicable(index, p);
  Cost c{};
  k.cost(p, parameters_from(parameters.ptr(), k), machine(), team_from(threads.ptr()), &c);
  py::dict fields;
  fields["fmas"] = c.fmas;
  fields["vector_ops"] = c.vector_ops;
  fields["bytes_l2"] = c.bytes_l2;
  fields["bytes_l3"] = c.bytes_l3;
  fields["bytes_dram"] = c.bytes_dram;
  fields["efficiency"] = c.efficiency;
  fields["imbalance"] = c.imbalance;
  fields["barriers"] = c.barriers;
  return fields;
}

py::tuple packing(int index, const py::object& problem, const py::object& parameters) {
  const ConvProblem p = nonempty(problem);
  const Kernel& k = applicable(index, p);
  Packing description{};
  k.packing(p, parameters_from(parameters.ptr(), k), &description);
  return py::make_tuple(description.id, description.bytes);
}

std::int64_t workspace_bytes(int index, const py::object& problem, const py::object& parameters,
                             const py::object& threads) {
  const ConvProblem p = nonempty(problem);
  const Kernel& k = applicable(index, p);
  return k.workspace_bytes(p, parameters_from(parameters.ptr(), k), machine(), team_from(threads.ptr()));
}

py::list usable_isas() {
  py::list names;
  for (int i = isa_count - 1; i >= 0; --i) {
    if (usable(static_cast<Isa>(i))) names.append(isa_name(static_cast<Isa>(i)));
  }
  return names;
}

py::list cpu_features() {
  py::list present;
#define CONVKIT_FEATURE(name) \
  if (__builtin_cpu_supports(name)) present.append(name)
  CONVKIT_FEATURE("sse4.2");
  CONVKIT_FEATURE("avx");
  CONVKIT_FEATURE("f16c");
  CONVKIT_FEATURE("fma");
  CONVKIT_FEATURE("avx2");
  CONVKIT_FEATURE("avx512f");
  CONVKIT_FEATURE("avx512dq");
  CONVKIT_FEATURE("avx512cd");
  CONVKIT_FEATURE("avx512bw");
  CONVKIT_FEATURE("avx512vl");
  CONVKIT_FEATURE("avx512vnni");
  CONVKIT_FEATURE("avx512bf16");
#undef CONVKIT_FEATURE
  return present;
}

py::dict describe_cpu() {
  active_isa();
  const Cpu& c = cpu();
  py::dict facts;
  facts["vendor"] = c.vendor;
  facts["family"] = c.family;
  facts["model"] = c.model;
  facts["stepping"] = c.stepping;
  facts["brand"] = c.brand;
  facts["level"] = c.level;
  facts["features"] = cpu_features();
  facts["isa"] = isa_name(active_isa());
  facts["l1d"] = c.machine.l1d;
  facts["l2"] = c.machine.l2;
  facts["l3"] = c.machine.l3;
  facts["wide_units"] = c.machine.wide_units;
  return facts;
}

}  // namespace

void add_inventory(py::module_& module) {
  using py::arg;
  module.def("kernels", kernels, "All kernels of all usable instruction sets, best first, as dicts.");
  module.def(
      "active_isa", [] { return isa_name(active_isa()); },
      "The instruction set in force: the best usable one, or what CONVKIT_ISA says.");
  module.def("usable_isas", usable_isas, "Instruction sets that this machine can run, best first.");
  module.def(
      "cpu", describe_cpu,
      "What CPUID says: vendor, family, model, stepping, brand, level, caches in bytes, and by the model how many\n"
      "multiply-adds of 64-byte vectors a core starts in a cycle.");
  module.def("applies", kernel_applies, arg("index"), arg("problem"), "Whether the kernel takes the problem.");
  module.def("candidates", candidates, arg("index"), arg("problem"), arg("threads"),
             "Parameter sets worth measuring, the default first.");
  module.def("cost", cost, arg("index"), arg("problem"), arg("parameters"), arg("threads"),
             "The kernel's declared cost, totals over all threads.");
  module.def("packing", packing, arg("index"), arg("problem"), arg("parameters"),
             "Id and bytes of the packed weights; an empty id stands for dense OIHW.");
  module.def("workspace_bytes", workspace_bytes, arg("index"), arg("problem"), arg("parameters"), arg("threads"),
             "Bytes of workspace that a run needs.");
}

}  // namespace convkit::bindings
