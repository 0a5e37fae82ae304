// What of an epilogue is not fused into a store: activations other than the clamp, and what follows the activation, over
// values that were stored a moment ago and are still in L1. NaN stays NaN; silu, hardswish and gelu of -Inf are NaN, as
// x * 0 is.
#pragma once
#include "inventory.hpp"
#include "isa/vec.hpp"

namespace convkit::CONVKIT_ISA {

// Whether anything is left to do once y is stored, with bias, residual and clamp.
CONVKIT_INLINE bool outlasts_store(const Epilogue& epilogue) {
  return epilogue.following || (epilogue.activation != Activation::none && epilogue.activation != Activation::clamp);
}

// Does it in place, on `rows` runs of `count` values of y, `row_stride` apart. Activations are accurate to a few units in
// the last place; gelu_tanh far below 0, where it vanishes, only as its formula is.
template <class T>
void activate_rows(T* y, std::int64_t rows, std::ptrdiff_t row_stride, std::int64_t count, const Epilogue& epilogue);
template <>
void activate_rows<float>(float* y, std::int64_t rows, std::ptrdiff_t row_stride, std::int64_t count,
                          const Epilogue& epilogue);
template <>
void activate_rows<double>(double* y, std::int64_t rows, std::ptrdiff_t row_stride, std::int64_t count,
                           const Epilogue& epilogue);

}  // namespace convkit::CONVKIT_ISA
