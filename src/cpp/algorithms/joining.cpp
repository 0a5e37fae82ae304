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
  for (; i + 2 * V::lanes <= count; i += 2 * V::lanes) {
    const auto a = V::load(from + i), b = V::load(from + i + V::lanes);
    V::store(to + i, a);
    V::store(to + i + V::lanes, b);
  }
  for (; i + V::lanes <= count; i += V::lanes) V::store(to + i, V::load(from + i));
  if (i < count) {
    const int left = static_cast<int>(count - i);
    V::store(to + i, V::load(from + i, left), left);
  }
}

template <class T>
void join_pixels(const Join& j, int index, int size) {
  const Share mine = share(j.pixels, index, size);
  for (std::int64_t begin = mine.begin; begin < mine.end; begin += strip) {
    const std::int64_t end = smaller(begin + strip, mine.end);
    T* to = static_cast<T*>(j.to) + begin * j.channels;
    for (int part = 0; part < j.parts; ++part) {
      const Join::Part& p = j.part[part];
      const T* from = static_cast<const T*>(p.from) + begin * p.stride;
      T* at = to;
      for (std::int64_t i = begin; i < end; ++i, from += p.stride, at += j.channels) copy_run(from, at, p.channels);
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
