#include "microkernels/winograd_transforms_impl.hpp"

namespace convkit::CONVKIT_ISA {

template const WinogradTile<float>& winograd_tile<float, F2x3, F2x3>();
template const WinogradTile<float>& winograd_tile<float, F2x3, F4x3>();
template const WinogradTile<float>& winograd_tile<float, F4x2, F4x2>();
template const WinogradTile<float>& winograd_tile<float, F4x3, F4x3>();
template const WinogradTile<float>& winograd_tile<float, F5x3, F4x3>();
template const WinogradTile<float>& winograd_tile<float, F5x3, F5x3>();
template const WinogradTile<float>& winograd_tile<float, F6x3, F6x3>();
template const WinogradTile<float>& winograd_tile<float, F2x5, F2x5>();
template const WinogradTile<float>& winograd_tile<float, F3x5, F3x5>();
template const WinogradTile<float>& winograd_tile<float, F4x5, F4x5>();
template const WinogradTile<float>& winograd_tile<float, Identity1d, F4x3>();
template const WinogradTile<float>& winograd_tile<float, F4x3, Identity1d>();
template const WinogradTile<float>& winograd_tile<float, Identity1d, F4x7>();
template const WinogradTile<float>& winograd_tile<float, F4x7, Identity1d>();

}  // namespace convkit::CONVKIT_ISA
