// Winograd convolution: the entries. How it works is in schedule.hpp, which tiles there are is in the list below.
#include "algorithms/adjoint.hpp"
#include "algorithms/winograd/entry.hpp"

namespace convkit::CONVKIT_ISA {

CONVKIT_WINOGRAD_FUNCTIONS(, float);
CONVKIT_WINOGRAD_FUNCTIONS(, double);

namespace {

template <class T, class FY, class FX, const char* Name>
struct Entry : WinogradEntry<T, FY, FX, Name> {
  static bool applies(const ConvProblem& p) {
    return p.kh == FY::r && p.kw == FX::r && p.stride_h == 1 && p.stride_w == 1 && p.c >= p.groups && p.o >= p.groups;
  }
};

template <class T, class FY, class FX, const char* Name>
constexpr Kernel kernel(const char* family, float rms_ratio) {
  return winograd_kernel<T, Entry<T, FY, FX, Name>>(family, Name, Op::forward, 3, rms_ratio);
}

#define CONVKIT_NAME(symbol, text) constexpr char symbol[] = text "__" CONVKIT_ISA_NAME
CONVKIT_NAME(f32_2x2_3x3, "f32_winograd_2x2_3x3");
CONVKIT_NAME(f32_2x4_3x3, "f32_winograd_2x4_3x3");
CONVKIT_NAME(f32_4x4_3x3, "f32_winograd_4x4_3x3");
CONVKIT_NAME(f32_5x4_3x3, "f32_winograd_5x4_3x3");
CONVKIT_NAME(f32_5x5_3x3, "f32_winograd_5x5_3x3");
CONVKIT_NAME(f32_6x6_3x3, "f32_winograd_6x6_3x3");
CONVKIT_NAME(f32_2x2_5x5, "f32_winograd_2x2_5x5");
CONVKIT_NAME(f32_3x3_5x5, "f32_winograd_3x3_5x5");
CONVKIT_NAME(f32_4x4_5x5, "f32_winograd_4x4_5x5");
CONVKIT_NAME(f32_1x4_1x3, "f32_winograd_1x4_1x3");
CONVKIT_NAME(f32_4x1_3x1, "f32_winograd_4x1_3x1");
CONVKIT_NAME(f32_1x4_1x7, "f32_winograd_1x4_1x7");
CONVKIT_NAME(f32_4x1_7x1, "f32_winograd_4x1_7x1");
CONVKIT_NAME(f64_2x2_3x3, "f64_winograd_2x2_3x3");
CONVKIT_NAME(f64_4x4_3x3, "f64_winograd_4x4_3x3");
CONVKIT_NAME(f64_6x6_3x3, "f64_winograd_6x6_3x3");
CONVKIT_NAME(f64_4x4_5x5, "f64_winograd_4x4_5x5");
#undef CONVKIT_NAME

// Error ratios: the largest for normal data and 64 channels or more, from docs/accuracy.md.
constexpr Kernel kernels[] = {
    kernel<float, F4x3, F4x3, f32_4x4_3x3>("winograd4", 2.0f),
    kernel<float, F5x3, F5x3, f32_5x5_3x3>("winograd5", 3.7f),
    kernel<float, F2x3, F2x3, f32_2x2_3x3>("winograd2", 0.65f),
    kernel<float, F2x3, F4x3, f32_2x4_3x3>("winograd2x4", 1.1f),
    kernel<float, F5x3, F4x3, f32_5x4_3x3>("winograd5x4", 2.7f),
    kernel<float, F6x3, F6x3, f32_6x6_3x3>("winograd6", 8.0f),
    kernel<float, F4x5, F4x5, f32_4x4_5x5>("winograd4", 3.6f),
    kernel<float, F3x5, F3x5, f32_3x3_5x5>("winograd3", 2.35f),
    kernel<float, F2x5, F2x5, f32_2x2_5x5>("winograd2", 1.3f),
    kernel<float, Identity1d, F4x3, f32_1x4_1x3>("winograd4", 1.5f),
    kernel<float, F4x3, Identity1d, f32_4x1_3x1>("winograd4", 1.5f),
    kernel<float, Identity1d, F4x7, f32_1x4_1x7>("winograd4", 3.6f),
    kernel<float, F4x7, Identity1d, f32_4x1_7x1>("winograd4", 3.6f),
    kernel<double, F4x3, F4x3, f64_4x4_3x3>("winograd4", 2.0f),
    kernel<double, F2x3, F2x3, f64_2x2_3x3>("winograd2", 0.65f),
    kernel<double, F6x3, F6x3, f64_6x6_3x3>("winograd6", 8.0f),
    kernel<double, F4x5, F4x5, f64_4x4_5x5>("winograd4", 3.6f),
};

}  // namespace

extern const KernelTable winograd_table;
constexpr KernelTable winograd_table = WithAdjoints<kernels>::table;

}  // namespace convkit::CONVKIT_ISA
