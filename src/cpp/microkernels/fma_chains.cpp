// What the arithmetic units can do at most: independent chains of multiply-adds in registers and nothing else. It is the
// ruler that speeds are held against, not a kernel.
//
// Register budget: 12 chains and two constants, 14 of the 16 that the smaller instruction sets have. Twelve chains cover
// the latency of two units.
#include "isa/vec.hpp"
#include "problem.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

template <class T>
double run_chains(std::int64_t steps) {
  using V = Vec<T>;
  constexpr int count = 12;
  // x = x / 2 + 1 converges to 2: no overflow, no denormals, whatever the number of steps.
  const auto half = V::set1(static_cast<T>(0.5)), one = V::set1(static_cast<T>(1));
  typename V::Reg x[count];
  CONVKIT_UNROLL
  for (int i = 0; i < count; ++i) x[i] = V::set1(static_cast<T>(i));
  for (std::int64_t step = 0; step < steps; ++step) {
    CONVKIT_UNROLL
    for (int i = 0; i < count; ++i) {
      x[i] = x[i] * half + one;
      asm volatile("" : "+x"(x[i]));  // the value counts as used, and stays in its register
    }
  }
  return static_cast<double>(steps) * count * V::lanes;
}

}  // namespace

// Runs that many steps of every chain; returns the number of multiply-adds done.
double fma_chains(Dtype dtype, std::int64_t steps) {
  return dtype == Dtype::f32 ? run_chains<float>(steps) : run_chains<double>(steps);
}

}  // namespace convkit::CONVKIT_ISA
