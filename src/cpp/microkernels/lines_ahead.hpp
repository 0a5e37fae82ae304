// Prefetches what comes next in the order of memory, a few lines at each step of a loop that has its own order.
#pragma once
#include "isa/vec.hpp"

namespace convkit::CONVKIT_ISA {

template <class T, int Locality>
struct LinesAhead {
  static constexpr std::int64_t line = 64 / static_cast<int>(sizeof(T));
  const T* next;
  std::int64_t lines;  // a step

  // `count` elements from p on in `steps` steps.
  CONVKIT_INLINE LinesAhead(const T* p, std::int64_t count, std::int64_t steps)
      : next(p), lines((count / line + steps) / steps) {}
  CONVKIT_INLINE void advance() {
    for (std::int64_t i = 0; i < lines; ++i, next += line) __builtin_prefetch(next, 0, Locality);
  }
};

}  // namespace convkit::CONVKIT_ISA
