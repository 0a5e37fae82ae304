#include "microkernels/winograd_adjoint_impl.hpp"

namespace convkit::CONVKIT_ISA {

template const WinogradAdjoint<float>& winograd_adjoint<float, F2x3, F2x3>();
template const WinogradAdjoint<float>& winograd_adjoint<float, F4x3, F4x3>();
template const WinogradAdjoint<float>& winograd_adjoint<float, F5x3, F5x3>();
template const WinogradAdjoint<float>& winograd_adjoint<float, F6x3, F6x3>();
template const WinogradAdjoint<float>& winograd_adjoint<float, F4x5, F4x5>();
template const WinogradAdjoint<double>& winograd_adjoint<double, F4x3, F4x3>();
template const WinogradAdjoint<double>& winograd_adjoint<double, F4x5, F4x5>();

}  // namespace convkit::CONVKIT_ISA
