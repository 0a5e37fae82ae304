// What inventory entries over the Winograd schedule share.
#pragma once
#include "algorithms/entries.hpp"
#include "algorithms/winograd/predict.hpp"

namespace convkit::CONVKIT_ISA {

// What every file of such entries calls is compiled once, in winograd.cpp.
#define CONVKIT_WINOGRAD_FUNCTIONS(linkage, T)                                                                 \
  linkage template int winograd_candidates(const ConvProblem&, const Machine&, int, const WinogradTile<T>&,    \
                                           Parameters*, int);                                                  \
  linkage template void winograd_cost(const ConvProblem&, const Parameters&, const Machine&, int,              \
                                      const WinogradTile<T>&, Cost*);                                          \
  linkage template void winograd_pack(const ConvProblem&, const WeightView&, T*, int, const WinogradTile<T>&); \
  linkage template std::int64_t winograd_workspace(const ConvProblem&, const Parameters&, int,                 \
                                                   const WinogradTile<T>&);                                    \
  linkage template void winograd_run(const Arguments&, const WinogradTile<T>&, const Sizes<T>&, bool)

CONVKIT_WINOGRAD_FUNCTIONS(extern, float);
CONVKIT_WINOGRAD_FUNCTIONS(extern, double);

// The functions of a kernel that does a problem as it is; which problems those are is its own to say.
template <class T, class FY, class FX, const char* Name>
struct WinogradEntry {
  static const WinogradTile<T>& tile() { return winograd_tile<T, FY, FX>(); }

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

// The kernel whose functions are E's; `rms_ratio` as in docs/accuracy.md.
template <class T, class E>
constexpr Kernel winograd_kernel(const char* family, const char* name, Op op, std::int32_t revision, float rms_ratio) {
  return kernel_of<T>(family, name, op, layout_nchw | layout_nhwc, revision,
                      {winograd_schema, E::applies, E::candidates, E::cost, E::workspace_bytes, E::run},
                      {E::packing, E::pack}, ErrorClass{false, rms_ratio});
}

}  // namespace convkit::CONVKIT_ISA
