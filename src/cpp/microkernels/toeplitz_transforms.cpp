#include "microkernels/toeplitz_transforms.hpp"

#include "microkernels/winograd_adjoint_impl.hpp"
#include "microkernels/winograd_transforms_impl.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

template <class T>
struct Transform1d<T, Toeplitz2> {
  using Reg = typename Vec<T>::Reg;
  static CONVKIT_INLINE void input(const Reg (&d)[3], Reg (&o)[3]) {
    o[0] = d[1] + d[2];
    o[1] = d[2];
    o[2] = d[1];
  }
  static CONVKIT_INLINE void output(const Reg (&q)[3], Reg (&o)[2]) {
    o[0] = q[0] + q[1];
    o[1] = q[0] + q[2];
  }
  static CONVKIT_INLINE void filter(const Reg (&g)[3], Reg (&o)[3]) {
    o[0] = g[1];
    o[1] = g[2] - g[1];
    o[2] = g[0] - g[1];
  }
  static constexpr int input_ops = 1, output_ops = 2;
};

template <class T>
struct Adjoint1d<T, Toeplitz2> {
  using Reg = typename Vec<T>::Reg;
  static CONVKIT_INLINE void gradient(const Reg (&y)[2], Reg (&o)[3]) {
    o[0] = y[0] + y[1];
    o[1] = y[0];
    o[2] = y[1];
  }
  static CONVKIT_INLINE void weights(const Reg (&q)[3], Reg (&o)[3]) {
    o[0] = q[2];
    o[1] = q[0] - q[1] - q[2];
    o[2] = q[1];
  }
  static constexpr int gradient_ops = 1, weights_ops = 2;
};

}  // namespace

template const WinogradTile<float>& winograd_tile<float, Toeplitz2, Toeplitz2>();
template const WinogradTile<double>& winograd_tile<double, Toeplitz2, Toeplitz2>();
template const WinogradAdjoint<float>& winograd_adjoint<float, Toeplitz2, Toeplitz2>();
template const WinogradAdjoint<double>& winograd_adjoint<double, Toeplitz2, Toeplitz2>();

}  // namespace convkit::CONVKIT_ISA
