// 3x3 filters over images of 2 x 2 pixels with a pad of one, as deep networks end in on small pictures: the schedule of
// Winograd convolution with 9 multiplications an image instead of 16 (microkernels/toeplitz_transforms.hpp).
#include "algorithms/winograd/toeplitz.hpp"

#include "algorithms/adjoint.hpp"
#include "algorithms/winograd/entry.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

template <class T, const char* Name>
struct Entry : WinogradEntry<T, Toeplitz2, Toeplitz2, Name> {
  static bool applies(const ConvProblem& p) {
    return p.kh == 3 && p.kw == 3 && p.stride_h == 1 && p.stride_w == 1 && suits<Toeplitz2>(p);
  }
};

template <class T, const char* Name>
constexpr Kernel kernel() {
  return winograd_kernel<T, Entry<T, Name>>("toeplitz", Name, Op::forward, 2, 0.8f);
}

constexpr char f32_name[] = "f32_toeplitz_2x2_3x3__" CONVKIT_ISA_NAME;
constexpr char f64_name[] = "f64_toeplitz_2x2_3x3__" CONVKIT_ISA_NAME;

constexpr Kernel kernels[] = {kernel<float, f32_name>(), kernel<double, f64_name>()};

}  // namespace

extern const KernelTable toeplitz_table;
constexpr KernelTable toeplitz_table = WithAdjoints<kernels>::table;

}  // namespace convkit::CONVKIT_ISA
