// Weights packed for tiles with lanes on outputs: for each group, panels of TileShape<T>::panel outputs, each panel a
// [KH][KW][C/groups][width] array; the last panel is as many vectors wide as it needs, padded with zeros.
#pragma once
#include "algorithms/sharing.hpp"
#include "microkernels/gemm_tile.hpp"

namespace convkit::CONVKIT_ISA {

// How the outputs of one group fall into panels.
template <class T>
struct Panels {
  std::int64_t outputs;
  static constexpr int lanes = Vec<T>::lanes;
  static constexpr int width = TileShape<T>::panel;

  CONVKIT_INLINE std::int64_t count() const { return ceil_div(outputs, width); }
  CONVKIT_INLINE std::int64_t padded() const { return round_up(outputs, lanes); }
  CONVKIT_INLINE int valid(std::int64_t panel) const {
    return static_cast<int>(smaller<std::int64_t>(outputs - panel * width, width));
  }
  CONVKIT_INLINE int vectors(std::int64_t panel) const { return static_cast<int>(ceil_div(valid(panel), lanes)); }
  // Lanes of the panel's last vector that are outputs.
  CONVKIT_INLINE int tail(std::int64_t panel) const { return valid(panel) - (vectors(panel) - 1) * lanes; }
  // By how much the last panels of so many groups are narrower than whole ones, in panels.
  CONVKIT_INLINE double missing(std::int64_t groups) const {
    return static_cast<double>(groups * (count() * width - padded())) / static_cast<double>(width);
  }
  // Where panel begins, in elements, when each output has k weights.
  CONVKIT_INLINE std::int64_t offset(std::int64_t panel, std::int64_t k) const { return panel * width * k; }
};

template <class T>
CONVKIT_INLINE std::int64_t panels_bytes(const ConvProblem& p) {
  return p.groups * Panels<T>{p.o / p.groups}.padded() * (p.c / p.groups) * p.kh * p.kw *
         static_cast<std::int64_t>(sizeof(T));
}

// Packs the weights of all groups; for as many threads as there is work for.
template <class T>
void pack_panels(const ConvProblem& p, const Parameters& parameters, const WeightView& view, void* out, int threads);

}  // namespace convkit::CONVKIT_ISA
