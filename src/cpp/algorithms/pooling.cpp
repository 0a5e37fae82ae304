// Pools of images whose channels lie side by side: the channels of a pixel are lanes, so that every window, stride and
// dilation is the same loop of whole vectors. A few vectors of one pixel's channels stay in registers over all taps.
#include "algorithms/sharing.hpp"
#include "images.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

constexpr int most_vectors = 4;

// A window along one axis: the taps that meet the image, and where the first of them is.
struct Window {
  std::int64_t begin, end, first;
};

CONVKIT_INLINE Window window(const Pool& p, int axis, std::int64_t at) {
  const std::int64_t origin = at * p.stride[axis] - p.before[axis], d = p.dilation[axis], last = p.in[axis] - 1;
  const std::int64_t begin = origin < 0 ? ceil_div(-origin, d) : 0;
  const std::int64_t end = origin > last ? 0 : smaller(p.kernel[axis], (last - origin) / d + 1);
  return {begin, larger(begin, end), origin + begin * d};
}

template <class T, bool Mean>
CONVKIT_INLINE typename Vec<T>::Reg combined(typename Vec<T>::Reg a, typename Vec<T>::Reg b) {
  if constexpr (Mean) {
    return a + b;
  } else {
    return a != a ? a : Vec<T>::max(a, b);  // max carries NaN from b alone
  }
}

// NV vectors of one pixel, the last one with `tail` lanes if `Part`.
template <class T, bool Mean, int NV, bool Part>
CONVKIT_INLINE void pixel(const T* from, T* to, const Window& rows, const Window& columns, std::ptrdiff_t row_step,
                          std::ptrdiff_t column_step, T factor, int tail) {
  using V = Vec<T>;
  typename V::Reg sum[NV];
  CONVKIT_UNROLL
  for (int v = 0; v < NV; ++v) sum[v] = V::set1(Mean ? T(0) : -static_cast<T>(__builtin_inf()));
  for (std::int64_t i = rows.begin; i < rows.end; ++i, from += row_step) {
    const T* at = from;
    for (std::int64_t j = columns.begin; j < columns.end; ++j, at += column_step) {
      CONVKIT_UNROLL
      for (int v = 0; v < NV; ++v) {
        sum[v] = combined<T, Mean>(sum[v], Part ? V::load(at + v * V::lanes, tail) : V::load(at + v * V::lanes));
      }
    }
  }
  CONVKIT_UNROLL
  for (int v = 0; v < NV; ++v) {
    if constexpr (Mean) sum[v] = sum[v] * V::set1(factor);
    if constexpr (Part) {
      V::store(to + v * V::lanes, sum[v], tail);
    } else {
      V::store(to + v * V::lanes, sum[v]);
    }
  }
}

template <class T, bool Mean>
void pool_rows(const Pool& p, int index, int size) {
  using V = Vec<T>;
  const std::int64_t channels = p.channels, row = p.in[1] * channels;
  const std::ptrdiff_t row_step = p.dilation[0] * row, column_step = p.dilation[1] * channels;
  const Share mine = share(p.images * p.out[0], index, size);
  for (std::int64_t unit = mine.begin; unit < mine.end; ++unit) {
    const std::int64_t i = unit % p.out[0];
    const Window rows = window(p, 0, i);
    const T* const image = static_cast<const T*>(p.from) + unit / p.out[0] * p.in[0] * row;
    T* to = static_cast<T*>(p.to) + unit * p.out[1] * channels;
    for (std::int64_t j = 0; j < p.out[1]; ++j, to += channels) {
      const Window columns = window(p, 1, j);
      T factor = 1;
      if constexpr (Mean) factor = static_cast<const T*>(p.factor[0])[i] * static_cast<const T*>(p.factor[1])[j];
      const bool any = rows.begin < rows.end && columns.begin < columns.end;
      const T* const from = any ? image + rows.first * row + columns.first * channels : image;
      std::int64_t c = 0;
      for (; c + most_vectors * V::lanes <= channels; c += most_vectors * V::lanes) {
        pixel<T, Mean, most_vectors, false>(from + c, to + c, rows, columns, row_step, column_step, factor, 0);
      }
      for (; c + V::lanes <= channels; c += V::lanes) {
        pixel<T, Mean, 1, false>(from + c, to + c, rows, columns, row_step, column_step, factor, 0);
      }
      if (c < channels) {
        pixel<T, Mean, 1, true>(from + c, to + c, rows, columns, row_step, column_step, factor,
                                static_cast<int>(channels - c));
      }
    }
  }
}

// Adds a pixel's gradient, NV vectors, to the first of the largest taps under the window.
template <class T, int NV, class... Valid>
CONVKIT_INLINE void pixel_gradient(const T* from, const T* largest, const T* given, T* to, const Window& rows,
                                   const Window& columns, std::ptrdiff_t row_step, std::ptrdiff_t column_step,
                                   Valid... valid) {
  using V = Vec<T>;
  typename V::Reg most[NV], left[NV];
  CONVKIT_UNROLL
  for (int v = 0; v < NV; ++v) {
    most[v] = V::load(largest + v * V::lanes, valid...);
    left[v] = V::load(given + v * V::lanes, valid...);
  }
  for (std::int64_t i = rows.begin; i < rows.end; ++i, from += row_step, to += row_step) {
    for (std::int64_t j = columns.begin, at = 0; j < columns.end; ++j, at += column_step) {
      CONVKIT_UNROLL
      for (int v = 0; v < NV; ++v) {
        const std::int64_t lane = at + v * V::lanes;
        const auto x = V::load(from + lane, valid...);
        const auto theirs = x < most[v] ? V::zero() : left[v];
        V::store(to + lane, V::load(to + lane, valid...) + theirs, valid...);
        left[v] = x < most[v] ? left[v] : V::zero();
      }
    }
  }
}

// Windows overlap, so a member has all windows of an image: in all channels, or in some if there are fewer images than
// members.
template <class T>
void pool_gradient_of(const PoolGradient& g, int index, int size) {
  using V = Vec<T>;
  constexpr std::int64_t block = most_vectors * V::lanes;
  const Pool& p = g.pool;
  const std::int64_t channels = p.channels, row = p.in[1] * channels;
  const std::int64_t most = p.images < size ? block : channels, parts = ceil_div(channels, most);
  const std::ptrdiff_t row_step = p.dilation[0] * row, column_step = p.dilation[1] * channels;
  const Share mine = share(p.images * parts, index, size);
  for (std::int64_t unit = mine.begin; unit < mine.end; ++unit) {
    const std::int64_t image = unit / parts, first = unit % parts * most, width = smaller(most, channels - first);
    const T* const from = static_cast<const T*>(p.from) + image * p.in[0] * row + first;
    T* const to = static_cast<T*>(g.to) + image * p.in[0] * row + first;
    std::int64_t out = image * p.out[0] * p.out[1] * channels + first, cleared = 0;
    const std::int64_t run = width == channels ? row : width, step = width == channels ? row : channels;
    const auto clear_up_to = [&](std::int64_t end) CONVKIT_LAMBDA {
      for (; cleared < end; ++cleared) {
        for (std::int64_t at = 0; at < row; at += step) {
          __builtin_memset(to + cleared * row + at, 0, static_cast<std::size_t>(run) * sizeof(T));
        }
      }
    };
    for (std::int64_t i = 0; i < p.out[0]; ++i) {
      const Window rows = window(p, 0, i);
      clear_up_to(smaller(p.in[0], i * p.stride[0] - p.before[0] + p.dilation[0] * (p.kernel[0] - 1) + 1));
      for (std::int64_t j = 0; j < p.out[1]; ++j, out += channels) {
        const Window columns = window(p, 1, j);
        if (rows.begin >= rows.end || columns.begin >= columns.end) continue;
        const std::int64_t corner = rows.first * row + columns.first * channels;
        const auto add = [&](auto vectors, std::int64_t c, auto... valid) CONVKIT_LAMBDA {
          pixel_gradient<T, decltype(vectors)::count>(from + corner + c, static_cast<const T*>(p.to) + out + c,
                                                      static_cast<const T*>(g.given) + out + c, to + corner + c, rows,
                                                      columns, row_step, column_step, valid...);
        };
        std::int64_t c = 0;
        for (; c + block <= width; c += block) add(Vectors<most_vectors>{}, c);
        for (; c + V::lanes <= width; c += V::lanes) add(Vectors<1>{}, c);
        if (c < width) add(Vectors<1>{}, c, static_cast<int>(width - c));
      }
    }
    clear_up_to(p.in[0]);
  }
}

}  // namespace

void pool(const Pool& what, int threads) {
  const bool mean = what.factor[0] != nullptr;
  auto member = [&](int index, int size) {
    const auto rows = what.wide ? mean ? pool_rows<double, true> : pool_rows<double, false>
                      : mean ? pool_rows<float, true>
                                : pool_rows<float, false>;
    rows(what, index, size);
  };
  team(threads, member);
}

void pool_gradient(const PoolGradient& what, int threads) {
  auto member = [&](int index, int size) {
    what.pool.wide ? pool_gradient_of<double>(what, index, size) : pool_gradient_of<float>(what, index, size);
  };
  team(threads, member);
}

}  // namespace convkit::CONVKIT_ISA
