#include "microkernels/winograd_transforms_impl.hpp"

namespace convkit::CONVKIT_ISA {

template const WinogradTile<double>& winograd_tile<double, F2x3, F2x3>();
template const WinogradTile<double>& winograd_tile<double, F4x2, F4x2>();
template const WinogradTile<double>& winograd_tile<double, F4x3, F4x3>();
template const WinogradTile<double>& winograd_tile<double, F6x3, F6x3>();
template const WinogradTile<double>& winograd_tile<double, F4x5, F4x5>();

}  // namespace convkit::CONVKIT_ISA
