// Images side by side along their channels, where channels lie side by side: each pixel of the result is one run from each
// part. Runs are short, so they are copied vector by vector and not by calls.
#include "algorithms/sharing.hpp"
#include "images.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

constexpr std::int64_t strip = 64;  // pixels of one part before the next part has its turn: all of it stays in L1

template <class T>
CONVKIT_INLINE void copy_run(const T* from, T* to, std::int64_t count) {
  using V = Vec<T>;
  std::int64_t i = 0;
  for (; i + V::lanes <= count; i += V::lanes) V::store(to + i, V::load(from + i));
  if (i < count) {
    const int left = static_cast<int>(count - i);
    V::store(to + i, V::load(from + i, left), left);
  }
}

// Runs of NV whole vectors, or of any length if NV is 0.
template <class T, int NV>
void copy_runs(const Parts::Part& p, const T* from, T* to, std::ptrdiff_t to_stride, std::int64_t count) {
  using V = Vec<T>;
  for (std::int64_t i = 0; i < count; ++i, from += p.stride, to += to_stride) {
    if constexpr (NV == 0) {
      copy_run(from, to, p.channels);
    } else {
      CONVKIT_UNROLL
      for (int v = 0; v < NV; ++v) V::store(to + v * V::lanes, V::load(from + v * V::lanes));
    }
  }
}

template <class T>
CONVKIT_INLINE auto runs_of(std::int64_t channels) {
  switch (channels % Vec<T>::lanes ? 0 : channels / Vec<T>::lanes) {
    case 1: return copy_runs<T, 1>;
    case 2: return copy_runs<T, 2>;
    case 4: return copy_runs<T, 4>;
    default: return copy_runs<T, 0>;
  }
}

template <class T>
void join_pixels(const Join& j, int index, int size) {
  const Share mine = share(j.pixels, index, size);
  for (std::int64_t begin = mine.begin; begin < mine.end; begin += strip) {
    const std::int64_t end = smaller(begin + strip, mine.end);
    T* to = static_cast<T*>(j.to) + begin * j.channels;
    for (int part = 0; part < j.from.count; ++part) {
      const Parts::Part& p = j.from.part[part];
      runs_of<T>(p.channels)(p, static_cast<const T*>(p.from) + begin * p.stride, to, j.channels, end - begin);
      to += p.channels;
    }
  }
}

}  // namespace

void join(const Join& what, int threads) {
  auto member = [&](int index, int size) {
    what.wide ? join_pixels<double>(what, index, size) : join_pixels<float>(what, index, size);
  };
  team(threads, member);
}

}  // namespace convkit::CONVKIT_ISA
