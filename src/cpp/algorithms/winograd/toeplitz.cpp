// 3x3 filters over images of 2 x 2 pixels with a pad of one, as deep networks end in on small pictures: the schedule of
// Winograd convolution with 9 multiplications an image instead of 16 (microkernels/toeplitz_transforms.hpp).
#include "algorithms/winograd/toeplitz.hpp"

#include "algorithms/adjoint.hpp"
#include "algorithms/winograd/entry.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

template <class T, const char* Name>
struct Entry {
  static const WinogradTile<T>& tile() { return winograd_tile<T, Toeplitz2, Toeplitz2>(); }

  static bool applies(const ConvProblem& p) {
    return p.kh == 3 && p.kw == 3 && p.stride_h == 1 && p.stride_w == 1 && suits<Toeplitz2>(p);
  }
  static int candidates(const ConvProblem& p, const Machine& machine, int threads, Parameters* out, int capacity) {
    return winograd_candidates(p, machine, threads, tile(), out, capacity);
  }
  static void cost(const ConvProblem& p, const Parameters& parameters, const Machine& machine, int threads, Cost* out) {
    winograd_cost(p, parameters, machine, threads, tile(), out);
  }
  static void packing(const ConvProblem& p, const Parameters&, Packing* out) {
    describe_packing(Name, winograd_packed_elements(p, tile()) * static_cast<std::int64_t>(sizeof(T)), out);
  }
  static void pack(const ConvProblem& p, const Parameters&, const WeightView& w, void* out, int threads) {
    winograd_pack(p, w, static_cast<T*>(out), threads, tile());
  }
  static std::int64_t workspace_bytes(const ConvProblem& p, const Parameters& parameters, const Machine&, int threads) {
    return winograd_workspace(p, parameters, threads, tile());
  }
  static void run(const Arguments& args) { winograd_run(args, tile()); }
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
