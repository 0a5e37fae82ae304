// Filters whose weights are of no simpler form.
#pragma once
#include "algorithms/filters/strips.hpp"

namespace convkit::CONVKIT_ISA {

// The weights of one filter that count, as SciPy finds them, and where their lines begin in the strip.
template <class T>
Taps<T> weights_of(const Member<T>& member, std::int64_t filter) {
  constexpr double epsilon = 2.220446049250313e-16;
  const FilterJob& job = member.job;
  const Area<T>& area = member.area;
  const std::int64_t window = job.down.size * job.along.size;
  const double* const weights = job.weights + filter * window;
  std::int64_t count = 0;
  for (std::int64_t i = 0; i < window; ++i) {
    if (weights[i] <= epsilon && weights[i] >= -epsilon) continue;
    area.down[count] = static_cast<T>(weights[i]);
    area.lines[count++] = area.strip + i / job.along.size * member.blocks.pitch + i % job.along.size;
  }
  return {Symmetry::none, count, area.down};
}

template <class T>
void dense(const Member<T>& member, const Piece& piece) {
  const FilterJob& job = member.job;
  const Area<T>& area = member.area;
  const Blocks<T>& blocks = member.blocks;
  member.each_block([&](const ImageRows<T>& rows, std::int64_t column, std::int64_t count) {
    for (std::int64_t row = piece.begin; row < piece.end; row += blocks.group) {
      const std::int64_t high = smaller(blocks.group, piece.end - row);
      for (std::int64_t i = 0; i < high + job.down.size - 1; ++i) {
        rows.fetch(piece.from, row - job.down.before + i, area.strip + i * blocks.pitch);
      }
      for (std::int64_t filter = 0; filter < job.filters; ++filter) {
        const Taps<T> taps = weights_of(member, filter);
        for (std::int64_t r = 0; r < high; ++r) {
          char* const target = member.target(piece, row + r, column) + filter * job.to_filter;
          T* const out = member.result(target, r);
          if (taps.count > 0) {
            sum_list(taps, area.lines, count, out);
          } else {
            for (std::int64_t i = 0; i < count; ++i) out[i] = 0;
          }
          member.finish(target, r, count);
          for (std::int64_t k = 0; k < taps.count; ++k) area.lines[k] += blocks.pitch;
        }
      }
    }
  });
}

}  // namespace convkit::CONVKIT_ISA
