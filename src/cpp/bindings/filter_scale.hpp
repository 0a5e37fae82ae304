// A factor for each channel of the result, as a folded batch norm has it, applied to dense filters.
#pragma once
#include "../problem.hpp"

namespace convkit::bindings {

// Multiplies the problem's filters, dense as the caller holds them, by `scale`, a value of the problem's dtype for each
// channel of its result.
void scale_filters(const ConvProblem& problem, const void* scale, void* filters, int threads);

}  // namespace convkit::bindings
