// Means and variances, softmax and normalized rows. Sums are taken in pieces, so that their errors grow with the number of
// pieces and not of elements; variances in a second pass over differences from the mean, as one pass cancels.
#include "algorithms/sharing.hpp"
#include "images.hpp"
#include "microkernels/exponential.hpp"
#include "microkernels/lane_total.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

constexpr std::int64_t piece = 128;  // vectors that are added up before they join the sum
constexpr int most_vectors = 4;

// Sum of function(row[i]); `function` gives 0 for lanes that a part of a vector lacks, whose mask it is told.
template <class T, class Function>
CONVKIT_INLINE double row_sum(const T* row, std::int64_t length, Function function) {
  using V = Vec<T>;
  double sum = 0;
  std::int64_t i = 0;
  while (i + V::lanes <= length) {
    const std::int64_t end = smaller(length, i + piece * V::lanes);
    typename V::Reg a = V::zero(), b = V::zero();
    for (; i + 2 * V::lanes <= end; i += 2 * V::lanes) {
      a += function(V::load(row + i));
      b += function(V::load(row + i + V::lanes));
    }
    for (; i + V::lanes <= end; i += V::lanes) a += function(V::load(row + i));
    sum += static_cast<double>(lane_total<T>(a + b));
  }
  for (; i < length; ++i) sum += static_cast<double>(function(V::set1(row[i]))[0]);
  return sum;
}

template <class T>
struct RowMoments {
  T mean, variance;
};

template <class T>
CONVKIT_INLINE RowMoments<T> row_moments(const T* row, std::int64_t length, bool with_variance) {
  using V = Vec<T>;
  const double count = static_cast<double>(length);
  const T mean = static_cast<T>(row_sum(row, length, [](typename V::Reg v) CONVKIT_LAMBDA { return v; }) / count);
  if (!with_variance) return {mean, 0};
  const auto centre = V::set1(mean);
  const auto squared = [&](typename V::Reg v) CONVKIT_LAMBDA { return (v - centre) * (v - centre); };
  return {mean, static_cast<T>(row_sum(row, length, squared) / count)};
}

// Sums of `count` rows `stride` apart, of their values or of squared differences from `centre`; NV vectors of columns.
template <class T, int NV, class... Valid>
CONVKIT_INLINE void column_sums(const T* from, std::int64_t count, std::ptrdiff_t stride, const T* centre, T* to,
                                Valid... valid) {
  using V = Vec<T>;
  typename V::Reg sum[NV], middle[NV];
  CONVKIT_UNROLL
  for (int v = 0; v < NV; ++v) {
    sum[v] = V::zero();
    middle[v] = centre ? V::load(centre + v * V::lanes, valid...) : V::zero();
  }
  for (std::int64_t begin = 0; begin < count; begin += piece) {
    const std::int64_t end = smaller(count, begin + piece);
    typename V::Reg part[NV];
    CONVKIT_UNROLL
    for (int v = 0; v < NV; ++v) part[v] = V::zero();
    for (std::int64_t i = begin; i < end; ++i) {
      CONVKIT_UNROLL
      for (int v = 0; v < NV; ++v) {
        const auto x = V::load(from + i * stride + v * V::lanes, valid...);
        part[v] += centre ? (x - middle[v]) * (x - middle[v]) : x;
      }
    }
    CONVKIT_UNROLL
    for (int v = 0; v < NV; ++v) sum[v] += part[v];
  }
  CONVKIT_UNROLL
  for (int v = 0; v < NV; ++v) V::store(to + v * V::lanes, sum[v], valid...);
}

// Calls function(column, number of vectors, valid lanes if they are part of one) for the columns of units of NV vectors.
template <class T, int NV, class Function>
CONVKIT_INLINE void over_columns(const Share& units, std::int64_t inner, Function function) {
  using V = Vec<T>;
  const std::int64_t end = smaller(units.end * NV * V::lanes, inner);
  for (std::int64_t column = units.begin * NV * V::lanes; column < end;) {
    if (column + NV * V::lanes <= end) {
      function(column, Vectors<NV>());
      column += NV * V::lanes;
    } else if (column + V::lanes <= end) {
      function(column, Vectors<1>());
      column += V::lanes;
    } else {
      function(column, Vectors<1>(), static_cast<int>(end - column));
      column = end;
    }
  }
}

// Members share rows, as those do who made an image and who read it next: its lines stay in their caches. Sums of blocks of
// rows, whose number says nothing of the team, are added up in order.
template <class T>
void column_moments(const Moments& m, int index, int size) {
  using V = Vec<T>;
  const T* const from = static_cast<const T*>(m.from);
  T* const sums = static_cast<T*>(m.sums);
  const std::int64_t blocks = m.blocks, units = ceil_div(m.inner, most_vectors * V::lanes);
  const Grid grid = make_grid(m.outer * blocks, units, size);
  const Share items = share(m.outer * blocks, index / grid.columns, grid.rows);
  const Share columns = share(units, index % grid.columns, grid.columns),
              finished = share(m.outer * units, index, size);
  const auto factor = V::set1(static_cast<T>(1 / static_cast<double>(m.count)));
  const auto pass = [&](const T* centre, T* to) CONVKIT_LAMBDA {
    for (std::int64_t item = items.begin; item < items.end; ++item) {
      const std::int64_t outer = item / blocks;
      const Share rows = share(m.count, item % blocks, blocks);
      const T* const at = from + (outer * m.count + rows.begin) * m.inner;
      const T* const middle = centre ? centre + outer * m.inner : nullptr;
      T* const sum = sums + item * m.inner;
      over_columns<T, most_vectors>(columns, m.inner, [&](std::int64_t i, auto nv, auto... valid) CONVKIT_LAMBDA {
        column_sums<T, nv.count>(at + i, rows.end - rows.begin, m.inner, middle ? middle + i : nullptr, sum + i,
                                 valid...);
      });
    }
    if (size > 1) team_barrier();
    for (std::int64_t unit = finished.begin; unit < finished.end; ++unit) {
      const std::int64_t outer = unit / units, column = unit % units;
      const T* const sum = sums + outer * blocks * m.inner;
      over_columns<T, 1>({column * most_vectors, (column + 1) * most_vectors}, m.inner,
                         [&](std::int64_t i, auto, auto... valid) CONVKIT_LAMBDA {
                           auto total = V::zero();
                           for (std::int64_t b = 0; b < blocks; ++b) total += V::load(sum + b * m.inner + i, valid...);
                           V::store(to + outer * m.inner + i, total * factor, valid...);
                         });
    }
  };
  pass(nullptr, static_cast<T*>(m.mean));
  if (!m.variance) return;
  if (size > 1) team_barrier();
  pass(static_cast<T*>(m.mean), static_cast<T*>(m.variance));
}

template <class T>
void moments_of(const Moments& m, int index, int size) {
  if (m.inner > 1) return column_moments<T>(m, index, size);
  const T* const from = static_cast<const T*>(m.from);
  T *const mean = static_cast<T*>(m.mean), *const variance = static_cast<T*>(m.variance);
  const Share mine = share(m.outer, index, size);
  for (std::int64_t row = mine.begin; row < mine.end; ++row) {
    const auto found = row_moments(from + row * m.count, m.count, variance != nullptr);
    mean[row] = found.mean;
    if (variance) variance[row] = found.variance;
  }
}

template <class T>
void softmax_row(const T* from, T* to, std::int64_t length) {
  using V = Vec<T>;
  auto largest = V::set1(from[0]);
  std::int64_t i = 0;
  for (; i + V::lanes <= length; i += V::lanes) largest = V::max(largest, V::load(from + i));
  T lanes[V::lanes], most = from[0];
  V::store(lanes, largest);
  for (int l = 0; l < V::lanes; ++l) most = lanes[l] > most ? lanes[l] : most;
  for (; i < length; ++i) most = from[i] > most ? from[i] : most;
  const auto top = V::set1(most);
  // A NaN makes the sum NaN, and with it the whole row; so does a row whose largest value is infinite.
  const auto power = [&](typename V::Reg v) CONVKIT_LAMBDA { return Exponential<T>::of(v - top).value(); };
  double sum = 0;
  for (i = 0; i + V::lanes <= length;) {
    const std::int64_t end = smaller(length, i + piece * V::lanes);
    auto part = V::zero();
    for (; i + V::lanes <= end; i += V::lanes) {
      const auto e = power(V::load(from + i));
      V::store(to + i, e);
      part += e;
    }
    sum += static_cast<double>(lane_total<T>(part));
  }
  if (i < length) {
    const int valid = static_cast<int>(length - i);
    const auto e = power(V::load(from + i, valid));
    V::store(lanes, e);
    for (int l = 0; l < valid; ++l) sum += static_cast<double>(lanes[l]);
    V::store(to + i, e, valid);
  }
  const auto factor = V::set1(static_cast<T>(1 / sum));
  for (i = 0; i + V::lanes <= length; i += V::lanes) V::store(to + i, V::load(to + i) * factor);
  if (i < length) {
    const int valid = static_cast<int>(length - i);
    V::store(to + i, V::load(to + i, valid) * factor, valid);
  }
}

template <class T>
void normalized_row(const Rows& r, const T* from, T* to) {
  using V = Vec<T>;
  const auto found = row_moments(from, r.length, true);
  const T *const weight = static_cast<const T*>(r.weight), *const bias = static_cast<const T*>(r.bias);
  const double root = __builtin_sqrt(static_cast<double>(found.variance) + r.epsilon);
  const auto mean = V::set1(found.mean), factor = V::set1(static_cast<T>(1 / root));
  const auto one = [&](std::int64_t i, auto... valid) CONVKIT_LAMBDA {
    auto v = (V::load(from + i, valid...) - mean) * factor;
    if (weight) v = v * V::load(weight + i, valid...);
    if (bias) v += V::load(bias + i, valid...);
    V::store(to + i, v, valid...);
  };
  std::int64_t i = 0;
  for (; i + V::lanes <= r.length; i += V::lanes) one(i);
  if (i < r.length) one(i, static_cast<int>(r.length - i));
}

template <class T>
void rows_of(const Rows& r, int index, int size) {
  const Share mine = share(r.rows, index, size);
  for (std::int64_t row = mine.begin; row < mine.end; ++row) {
    const T* const from = static_cast<const T*>(r.from) + row * r.length;
    T* const to = static_cast<T*>(r.to) + row * r.length;
    r.softmax ? softmax_row(from, to, r.length) : normalized_row(r, from, to);
  }
}

}  // namespace

void moments(const Moments& what, int threads) {
  auto member = [&](int index, int size) {
    what.wide ? moments_of<double>(what, index, size) : moments_of<float>(what, index, size);
  };
  team(threads, member);
}

void normalize_rows(const Rows& what, int threads) {
  auto member = [&](int index, int size) {
    what.wide ? rows_of<double>(what, index, size) : rows_of<float>(what, index, size);
  };
  team(threads, member);
}

}  // namespace convkit::CONVKIT_ISA
