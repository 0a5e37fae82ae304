// Activations that are not fused into a store: silu, hardswish, sigmoid, tanh and leaky_relu over values that were stored
// a moment ago and are still in L1. NaN stays NaN; silu and hardswish of -Inf are NaN, as x * 0 is.
#pragma once
#include "inventory.hpp"
#include "isa/vec.hpp"

namespace convkit::CONVKIT_ISA {

// Applies epilogue.activation in place to `rows` runs of `count` values, `row_stride` apart. `none` and `clamp` belong to
// the store: for them nothing is done. Accurate to a few units in the last place.
template <class T>
void activate_rows(T* y, std::int64_t rows, std::ptrdiff_t row_stride, std::int64_t count, const Epilogue& epilogue);
template <>
void activate_rows<float>(float* y, std::int64_t rows, std::ptrdiff_t row_stride, std::int64_t count,
                          const Epilogue& epilogue);
template <>
void activate_rows<double>(double* y, std::int64_t rows, std::ptrdiff_t row_stride, std::int64_t count,
                           const Epilogue& epilogue);

}  // namespace convkit::CONVKIT_ISA
