// What a call is about, from its operands and options: the problem and the result, without any kernel.
#pragma once
#include <cstdint>

#include "../problem.hpp"
#include "arrays.hpp"
#include "options.hpp"

namespace convkit::bindings {

struct Description {
  ConvProblem problem{};
  bool x_dense = false;  // whether the kernel can read x as it is
  bool follows = false;  // something follows the activation
  int y_ndim = 4;
  npy_intp y_shape[4], y_strides[4];
  bool y_in_c_order = true;  // of its own dimensions
  std::int64_t y_bytes = 0;
};

// Checks the operands against each other; raises TypeError or ValueError. `packed`: the weights are a layer's.
Description describe(const Operands& operands, const Options& options, bool packed);

// The problem alone; raises ValueError for an empty batch, of which there is nothing to choose.
ConvProblem describe_problem(const Operands& operands, const Options& options, bool packed);

// Channels of a problem's result.
inline std::int64_t result_channels(const ConvProblem& p) { return p.op == Op::input_grad ? p.c : p.o; }

}  // namespace convkit::bindings
