// The kernel tables of one instruction set, in the order of registry.def.
#include "inventory.hpp"

namespace convkit::CONVKIT_ISA {

#define CONVKIT_ALGORITHM(name) extern const KernelTable name##_table;
#include "algorithms/registry.def"
#undef CONVKIT_ALGORITHM

extern const KernelTable* const kernel_tables[];
const KernelTable* const kernel_tables[] = {
#define CONVKIT_ALGORITHM(name) &name##_table,
#include "algorithms/registry.def"
#undef CONVKIT_ALGORITHM
    nullptr,
};

}  // namespace convkit::CONVKIT_ISA
