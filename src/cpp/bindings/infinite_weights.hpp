// Weights that are infinite or NaN, under accuracy "strict". Padding is zeros, and zero times infinity is NaN; but kernels
// may skip what they know to be padding, some for a whole row of pixels and not for others. So there is one convention:
// padding multiplies like any other zero. Here the products that a kernel left out are found and their sums made NaN.
#pragma once
#include "../inventory.hpp"
#include "arrays.hpp"

namespace convkit::bindings {

// Whether a product of the problem may have padding for a factor. None of a weight gradient has.
bool multiplies_padding(const ConvProblem& problem);

// Whether all elements are finite. Reads each once.
bool all_finite(const ArrayArgument& array);

// Makes the elements of y NaN to which a weight that is not finite contributes by way of padding. `y` is dense in the
// problem's layout; `weights` are as a kernel gets them.
void multiply_padding(const ConvProblem& problem, const WeightView& weights, void* y);

}  // namespace convkit::bindings
