// What a Winograd run would cost, and which parameters are worth trying.
#pragma once
#include "algorithms/winograd/schedule.hpp"

namespace convkit::CONVKIT_ISA {

template <class T>
std::int64_t winograd_packed_elements(const ConvProblem& p, const WinogradTile<T>& tile) {
  return p.c * tile.ny * tile.nx * round_up(p.o / p.groups, Vec<T>::lanes);
}

template <class T>
void winograd_pack(const ConvProblem& p, const WeightView& w, T* out, int threads, const WinogradTile<T>& tile) {
  const Sizes<T> s(p, Parameters{{0, 1, 1, 0}}, tile);
  auto member = [&](int index, int size) {
    // The largest filter is 5x5: a vector of outputs by a vector of channels by its taps.
    alignas(64) T scratch[25 * Vec<T>::lanes * Vec<T>::lanes];
    pack_filters(s, tile, w, out, scratch, index, size);
  };
  team(threads, member);
}

template <class T>
void winograd_cost(const ConvProblem& p, const Parameters& parameters, const Machine&, int, const WinogradTile<T>& tile,
                   Cost* out) {
  const Sizes<T> s(p, parameters, tile);
  *out = {};
  out->fmas = static_cast<double>(s.points * s.g.tiles) * static_cast<double>(p.c) *
              static_cast<double>(round_up(s.g.o, s.lanes));
  out->efficiency = 0.97;
  out->imbalance = 1;
}

template <class T>
int winograd_candidates(const ConvProblem&, const Machine&, int, const WinogradTile<T>&, Parameters* out, int) {
  out[0] = {{0, 24, 1, 0}};
  return 1;
}

}  // namespace convkit::CONVKIT_ISA
