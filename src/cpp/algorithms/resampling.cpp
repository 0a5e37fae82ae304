// Resizing of images whose channels lie side by side. Which pixels a result is made of is in tables; a pixel's channels are
// whole vectors. A row that repeats the one above it is copied from there, where it is still in the cache.
#include "algorithms/sharing.hpp"
#include "images.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

// Whole vectors of `count` elements, then what is left.
template <class T, class Each>
CONVKIT_INLINE void along(std::int64_t count, Each each) {
  using V = Vec<T>;
  std::int64_t i = 0;
  for (; i + V::lanes <= count; i += V::lanes) each(i);
  if (i < count) each(i, static_cast<int>(count - i));
}

template <class T>
CONVKIT_INLINE void copy_elements(const T* from, T* to, std::int64_t count) {
  along<T>(count, [&](std::int64_t i, auto... valid)
                      CONVKIT_LAMBDA { Vec<T>::store(to + i, Vec<T>::load(from + i, valid...), valid...); });
}

template <class T>
void nearest_rows(const Resample& r, int index, int size) {
  const std::int64_t channels = r.channels, row = r.in[1] * channels, new_row = r.out[1] * channels;
  const Share mine = share(r.images * r.out[0], index, size);
  for (std::int64_t unit = mine.begin; unit < mine.end; ++unit) {
    const std::int64_t i = unit % r.out[0];
    T* const to = static_cast<T*>(r.to) + unit * new_row;
    if (unit > mine.begin && i > 0 && r.low[0][i] == r.low[0][i - 1]) {
      copy_elements(to - new_row, to, new_row);
      continue;
    }
    const T* const from = static_cast<const T*>(r.from) + (unit / r.out[0] * r.in[0] + r.low[0][i]) * row;
    for (std::int64_t j = 0; j < r.out[1]; ++j)
      copy_elements(from + r.low[1][j] * channels, to + j * channels, channels);
  }
}

template <class T>
void linear_rows(const Resample& r, int index, int size) {
  using V = Vec<T>;
  const std::int64_t channels = r.channels, row = r.in[1] * channels;
  const Share mine = share(r.images * r.out[0], index, size);
  for (std::int64_t unit = mine.begin; unit < mine.end; ++unit) {
    const std::int64_t i = unit % r.out[0];
    const T* const image = static_cast<const T*>(r.from) + unit / r.out[0] * r.in[0] * row;
    const T* const above = image + r.low[0][i] * row;
    const T* const below = image + r.high[0][i] * row;
    const auto down = V::set1(static_cast<const T*>(r.weight[0])[i]);
    T* to = static_cast<T*>(r.to) + unit * r.out[1] * channels;
    for (std::int64_t j = 0; j < r.out[1]; ++j, to += channels) {
      const std::int64_t left = r.low[1][j] * channels, right = r.high[1][j] * channels;
      const auto across = V::set1(static_cast<const T*>(r.weight[1])[j]);
      along<T>(channels, [&](std::int64_t c, auto... valid) CONVKIT_LAMBDA {
        const auto p = V::load(above + left + c, valid...), q = V::load(below + left + c, valid...);
        const auto upper = p + across * (V::load(above + right + c, valid...) - p);
        const auto lower = q + across * (V::load(below + right + c, valid...) - q);
        V::store(to + c, upper + down * (lower - upper), valid...);
      });
    }
  }
}

}  // namespace

void resample(const Resample& what, int threads) {
  const bool linear = what.high[0] != nullptr;
  auto member = [&](int index, int size) {
    const auto rows = what.wide ? linear ? linear_rows<double> : nearest_rows<double>
                      : linear ? linear_rows<float>
                                : nearest_rows<float>;
    rows(what, index, size);
  };
  team(threads, member);
}

}  // namespace convkit::CONVKIT_ISA
