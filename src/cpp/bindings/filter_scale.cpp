#include "filter_scale.hpp"

#include <algorithm>

#include "../parallel.hpp"

namespace convkit::bindings {
namespace {

constexpr std::int64_t least_per_thread = std::int64_t{1} << 16;  // elements; less is sooner done than a team started

template <class T>
void scale_all(const ConvProblem& p, const T* scale, T* filters, int threads) {
  struct Work {
    const ConvProblem& p;
    const T* scale;
    T* filters;
  } work{p, scale, filters};
  const auto member = [](void* context, int index, int size) {
    const Work& w = *static_cast<const Work*>(context);
    const std::int64_t inner = w.p.c / w.p.groups, outer_of_group = w.p.o / w.p.groups, taps = w.p.kh * w.p.kw;
    const std::int64_t begin = w.p.o * index / size, end = w.p.o * (index + 1) / size;
    for (std::int64_t i = begin; i < end; ++i) {
      for (std::int64_t j = 0; j < inner; ++j) {
        // The filters of a transposed convolution have its outputs inside.
        const T factor = w.scale[w.p.op == Op::forward ? i : i / outer_of_group * inner + j];
        T* const filter = w.filters + (i * inner + j) * taps;
        for (std::int64_t tap = 0; tap < taps; ++tap) filter[tap] *= factor;
      }
    }
  };
  const std::int64_t elements = p.o * (p.c / p.groups) * p.kh * p.kw;
  run_team(static_cast<int>(std::clamp<std::int64_t>(elements / least_per_thread, 1, threads)), member, &work);
}

}  // namespace

void scale_filters(const ConvProblem& problem, const void* scale, void* filters, int threads) {
  if (problem.dtype == Dtype::f32) {
    scale_all(problem, static_cast<const float*>(scale), static_cast<float*>(filters), threads);
  } else {
    scale_all(problem, static_cast<const double*>(scale), static_cast<double*>(filters), threads);
  }
}

}  // namespace convkit::bindings
