#include "inventory.hpp"

#include <vector>

#include "cpu/features.hpp"

namespace convkit {

#define CONVKIT_ISA_ENTRY(name, bytes, features, flags) \
  namespace name {                                      \
  extern const KernelTable* const kernel_tables[];      \
  }
#include "isa/built.def"
#undef CONVKIT_ISA_ENTRY

namespace {

std::vector<const Kernel*> list_kernels() {
  const KernelTable* const* const tables_of[isa_count] = {
#define CONVKIT_ISA_ENTRY(name, bytes, features, flags) name::kernel_tables,
#include "isa/built.def"
#undef CONVKIT_ISA_ENTRY
  };
  std::vector<const Kernel*> list;
  for (int isa = isa_count - 1; isa >= 0; --isa) {
    if (!allowed(static_cast<Isa>(isa))) continue;
    for (const KernelTable* const* table = tables_of[isa]; *table; ++table) {
      for (int i = 0; i < (*table)->count; ++i) list.push_back((*table)->kernels + i);
    }
  }
  return list;
}

const std::vector<const Kernel*>& kernels() {
  static const std::vector<const Kernel*> list = list_kernels();
  return list;
}

}  // namespace

int kernel_count() { return static_cast<int>(kernels().size()); }

const Kernel& kernel(int index) { return *kernels()[index]; }

bool applies(const Kernel& kernel, const ConvProblem& problem) {
  const bool empty = problem.n == 0 || problem.c == 0 || problem.o == 0 || problem.h == 0 || problem.w == 0;
  return !empty && kernel.op == problem.op && kernel.dtype_x == problem.dtype &&
         ((kernel.layouts >> static_cast<int>(problem.layout)) & 1u) && kernel.applies(problem);
}

const Machine& machine() { return cpu().machine; }

}  // namespace convkit
