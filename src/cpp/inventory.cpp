#include "inventory.hpp"

#include <vector>

#include "cpu/features.hpp"

namespace convkit {

namespace portable {
#define CONVKIT_ALGORITHM(name) extern const KernelTable name##_table;
#include "algorithms/registry.def"
#undef CONVKIT_ALGORITHM
}  // namespace portable
namespace avx2 {
#define CONVKIT_ALGORITHM(name) extern const KernelTable name##_table;
#include "algorithms/registry.def"
#undef CONVKIT_ALGORITHM
}  // namespace avx2
namespace avx512 {
#define CONVKIT_ALGORITHM(name) extern const KernelTable name##_table;
#include "algorithms/registry.def"
#undef CONVKIT_ALGORITHM
}  // namespace avx512

namespace {

std::vector<const Kernel*> list_kernels() {
  const KernelTable* const tables[isa_count][32] = {
      {
#define CONVKIT_ALGORITHM(name) &portable::name##_table,
#include "algorithms/registry.def"
#undef CONVKIT_ALGORITHM
      },
      {
#define CONVKIT_ALGORITHM(name) &avx2::name##_table,
#include "algorithms/registry.def"
#undef CONVKIT_ALGORITHM
      },
      {
#define CONVKIT_ALGORITHM(name) &avx512::name##_table,
#include "algorithms/registry.def"
#undef CONVKIT_ALGORITHM
      },
  };
  std::vector<const Kernel*> list;
  for (int isa = isa_count - 1; isa >= 0; --isa) {
    if (!usable(static_cast<Isa>(isa)) || isa > static_cast<int>(active_isa())) continue;
    for (const KernelTable* table : tables[isa]) {
      if (!table) break;
      for (int i = 0; i < table->count; ++i) list.push_back(table->kernels + i);
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
  return problem.n > 0 && kernel.op == problem.op && kernel.dtype_x == problem.dtype &&
         ((kernel.layouts >> static_cast<int>(problem.layout)) & 1u) && kernel.applies(problem);
}

const Machine& machine() { return cpu().machine; }

}  // namespace convkit
