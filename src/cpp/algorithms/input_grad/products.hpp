// Input gradients by products of rows of dy and a tap's weights: what they work with, how they run, and what they do to
// pixels of dx, channels last, beside the products that reach them.
#pragma once
#include "algorithms/adjoint.hpp"
#include "algorithms/gemm/gemm.hpp"
#include "algorithms/input_grad/axis.hpp"

namespace convkit::CONVKIT_ISA {

template <class T>
struct ProductContext {
  const Arguments& args;
  const ConvProblem& p;
  Axis down, across;
  std::int64_t inputs;
  Panels<T> panels;
  Finish<T> finish;
  const T* packed;

  ProductContext(const Arguments& a, const T* packed_)
      : args(a),
        p(*a.problem),
        down(rows_axis(p)),
        across(columns_axis(p)),
        inputs(p.o / p.groups),
        panels{p.c / p.groups},
        finish(a.epilogue),
        packed(packed_) {}
};

// The kernels that work with it: compute(context, scratch, index, size) on a team.
template <class T, class Carve, class Work>
CONVKIT_INLINE void run_products(const Arguments& args, const Carve& carve, const Work& compute) {
  run_members<T>(
      args, worthwhile_threads(*args.problem, args.threads), pack_adjoint_panels<T>, carve,
      [&](const T* packed) { return ProductContext<T>(args, packed); }, compute);
}

template <class T, class Carve>
CONVKIT_INLINE std::int64_t products_workspace(const ConvProblem& p, const Carve& carve, int threads) {
  return members_workspace(carve, threads, p.packed ? 0 : panels_bytes<T>(adjoint_filter(p)));
}

// Bias and residual, as where nothing is added, or nothing yet: the residual may be the pixels themselves.
template <class T>
void fill_pixels(std::int64_t pixels, const T* bias, const T* residual, int valid, T* to, std::ptrdiff_t stride) {
  using V = Vec<T>;
  for (int j = 0; j < valid; j += V::lanes) {
    const int n = smaller(valid - j, V::lanes);
    const auto value = bias ? V::load(bias + j, n) : V::zero();
    for (std::int64_t i = 0; i < pixels; ++i) {
      V::store(to + i * stride + j, residual ? value + V::load(residual + i * stride + j, n) : value, n);
    }
  }
}

template <class T>
void clamp_rows(const Finish<T>& finish, std::int64_t rows, std::int64_t columns, T* y, std::ptrdiff_t stride) {
  using V = Vec<T>;
  if (!finish.clamp) return;
  const auto lo = V::set1(finish.lo), hi = V::set1(finish.hi);
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t i = 0; i < columns; i += V::lanes) {
      const int n = static_cast<int>(smaller<std::int64_t>(columns - i, V::lanes));
      V::store(y + r * stride + i, V::min(hi, V::max(lo, V::load(y + r * stride + i, n))), n);
    }
  }
}

// The activation and what follows it, on `rows` runs of `columns` values of dx.
template <class T>
void finish_rows(const Finish<T>& finish, std::int64_t rows, std::int64_t columns, T* y, std::ptrdiff_t stride) {
  clamp_rows(finish, rows, columns, y, stride);
  if (finish.after) activate_rows(y, rows, stride, columns, *finish.after);
}

}  // namespace convkit::CONVKIT_ISA
