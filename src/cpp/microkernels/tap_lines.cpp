#include "microkernels/tap_lines.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

// Where line k is: in a table, or at even distances.
template <class T>
struct Listed {
  const T* const* lines;
  std::int64_t i;
  CONVKIT_INLINE const T* operator()(std::int64_t k) const { return lines[k] + i; }
};
template <class T>
struct Columns {
  const T* first;
  CONVKIT_INLINE const T* operator()(std::int64_t k) const { return first + k * Vec<T>::lanes; }
};

template <class T, bool Whole>
CONVKIT_INLINE typename Vec<T>::Reg load(const T* p, int count) {
  if constexpr (Whole) {
    return Vec<T>::load(p);
  } else {
    return Vec<T>::load(p, count);
  }
}

template <class T, Symmetry S>
CONVKIT_INLINE typename Vec<T>::Reg pair(typename Vec<T>::Reg low, typename Vec<T>::Reg high) {
  if constexpr (S == Symmetry::even) return low + high;
  if constexpr (S == Symmetry::odd) return low - high;
  return low;
}

// A vector of each of R results.
template <class T, Symmetry S, int R, bool Whole, class Lines>
CONVKIT_INLINE void sum_any(const Taps<T>& taps, const Lines& line, int count, typename Vec<T>::Reg (&a)[R]) {
  using V = Vec<T>;
  using Reg = typename V::Reg;
  constexpr bool paired = S != Symmetry::none;
  const std::int64_t n = taps.count, steps = paired ? n / 2 : n - 1;
  const Reg first = V::broadcast(taps.values + steps);
  Reg low[R], high[R];
  CONVKIT_UNROLL
  for (int r = 0; r < R; ++r) {
    a[r] = multiply<T>(load<T, Whole>(line(steps + r), count), first);
    low[r] = load<T, Whole>(line(r), count);
    if constexpr (paired) high[r] = load<T, Whole>(line(n - 1 + r), count);
  }
  for (std::int64_t k = 0; k < steps; k += R) {
    CONVKIT_UNROLL
    for (int s = 0; s < R; ++s) {
      if (k + s == steps) break;
      const Reg tap = V::broadcast(taps.values + k + s);
      CONVKIT_UNROLL
      for (int r = 0; r < R; ++r) {
        a[r] = multiply_add<T>(pair<T, S>(low[(r + s) % R], high[(r + R - s) % R]), tap, a[r]);
      }
      low[s] = load<T, Whole>(line(k + s + R), count);
      if constexpr (paired) high[R - 1 - s] = load<T, Whole>(line(n - 2 - k - s), count);
    }
  }
}

template <class T, int K, Symmetry S, int R, bool Whole, class Lines>
CONVKIT_INLINE void sum_few(const typename Vec<T>::Reg (&taps)[K / 2 + 1], const Lines& line, int count,
                            typename Vec<T>::Reg (&a)[R]) {
  typename Vec<T>::Reg x[K + R - 1];
  CONVKIT_UNROLL
  for (int k = 0; k < K + R - 1; ++k) x[k] = load<T, Whole>(line(k), count);
  CONVKIT_UNROLL
  for (int r = 0; r < R; ++r) {
    a[r] = multiply<T>(x[r + K / 2], taps[K / 2]);
    CONVKIT_UNROLL
    for (int k = 0; k < K / 2; ++k) a[r] = multiply_add<T>(pair<T, S>(x[r + k], x[r + K - 1 - k]), taps[k], a[r]);
  }
}

// Both of the above: sums(line, count, a) for a vector of each of R results.
template <class T, Symmetry S, int R>
struct AnyTaps {
  const Taps<T>& taps;
  template <bool Whole, class Lines>
  CONVKIT_INLINE void sums(const Lines& line, int count, typename Vec<T>::Reg (&a)[R]) const {
    sum_any<T, S, R, Whole>(taps, line, count, a);
  }
};
template <class T, int K, Symmetry S, int R>
struct FewTaps {
  typename Vec<T>::Reg values[K / 2 + 1];
  CONVKIT_INLINE explicit FewTaps(const Taps<T>& taps) {
    CONVKIT_UNROLL
    for (int k = 0; k <= K / 2; ++k) values[k] = Vec<T>::broadcast(taps.values + k);
  }
  template <bool Whole, class Lines>
  CONVKIT_INLINE void sums(const Lines& line, int count, typename Vec<T>::Reg (&a)[R]) const {
    sum_few<T, K, S, R, Whole>(values, line, count, a);
  }
};

template <class T, int R, class Sums>
CONVKIT_INLINE void lines_by(const Sums& sums, const T* const* lines, const T* const* newest, const ResultLines<T>& out,
                             std::ptrdiff_t ahead) {
  using V = Vec<T>;
  typename V::Reg a[R];
  T* const to = out.first;
  const std::ptrdiff_t pitch = out.pitch;
  const std::int64_t width = out.width;
  const bool stream = out.stream;
  std::int64_t i = 0;
  for (; i + V::lanes <= width; i += V::lanes) {
    if (ahead) {
      CONVKIT_UNROLL
      for (int r = 0; r < R; ++r) __builtin_prefetch(newest[r] + ahead + i, 0, 2);
    }
    sums.template sums<true>(Listed<T>{lines, i}, V::lanes, a);
    if (stream) {
      CONVKIT_UNROLL
      for (int r = 0; r < R; ++r) V::stream(to + r * pitch + i, a[r]);
    } else {
      CONVKIT_UNROLL
      for (int r = 0; r < R; ++r) V::store(to + r * pitch + i, a[r]);
    }
  }
  if (i < width) {
    const int count = static_cast<int>(width - i);
    sums.template sums<false>(Listed<T>{lines, i}, count, a);
    CONVKIT_UNROLL
    for (int r = 0; r < R; ++r) V::store(to + r * pitch + i, a[r], count);
  }
}

template <class T, Symmetry S, int R>
void lines_of(const Taps<T>& taps, const T* const* lines, const ResultLines<T>& out, std::ptrdiff_t ahead) {
  const T* const* newest = lines + taps.count - 1;
  if constexpr (S != Symmetry::none && R > 1 && many_registers<T>) {
    switch (taps.count) {
      case 3: return lines_by<T, R>(FewTaps<T, 3, S, R>(taps), lines, newest, out, ahead);
      case 5: return lines_by<T, R>(FewTaps<T, 5, S, R>(taps), lines, newest, out, ahead);
      case 7: return lines_by<T, R>(FewTaps<T, 7, S, R>(taps), lines, newest, out, ahead);
      case 9: return lines_by<T, R>(FewTaps<T, 9, S, R>(taps), lines, newest, out, ahead);
      default: break;
    }
  }
  lines_by<T, R>(AnyTaps<T, S, R>{taps}, lines, newest, out, ahead);
}

template <class T, Symmetry S>
void lines_under_way(const Taps<T>& taps, const T* const* lines, const ResultLines<T>& out, std::ptrdiff_t ahead) {
  constexpr int R = lines_at_once<T>;
  if (out.count == R) return lines_of<T, S, R>(taps, lines, out, ahead);
  for (int r = 0; r < out.count; ++r) {
    lines_of<T, S, 1>(taps, lines + r, {out.first + r * out.pitch, out.pitch, 1, out.width, out.stream}, ahead);
  }
}

// --- columns ------------------------------------------------------------------------------------------------------------

template <class T, Symmetry S>
void columns_of(const Taps<T>& taps, const T* columns, std::int64_t count, T* const* out, bool stream) {
  using V = Vec<T>;
  constexpr int n = V::lanes, R = smaller<int>(lines_at_once<T>, n);
  alignas(64) T square[n * n];
  for (std::int64_t i = 0; i < count; i += n) {
    const int wide = static_cast<int>(smaller<std::int64_t>(count - i, n));
    for (int j = 0; j < n; j += R) {
      typename V::Reg a[R];
      sum_any<T, S, R, true>(taps, Columns<T>{columns + (i + j) * n}, n, a);
      CONVKIT_UNROLL
      for (int r = 0; r < R; ++r) V::store(square + (j + r) * n, a[r]);
    }
    typename V::Reg a[n];
    CONVKIT_UNROLL
    for (int q = 0; q < n; ++q) a[q] = V::load(square + q * n);
    V::transpose(a);
    if (wide == n && stream) {
      CONVKIT_UNROLL
      for (int q = 0; q < n; ++q) V::stream(out[q] + i, a[q]);
    } else if (wide == n) {
      CONVKIT_UNROLL
      for (int q = 0; q < n; ++q) V::store(out[q] + i, a[q]);
    } else {
      CONVKIT_UNROLL
      for (int q = 0; q < n; ++q) V::store(out[q] + i, a[q], wide);
    }
  }
}

// --- along a line -------------------------------------------------------------------------------------------------------

// Element k further on than v[0], where v are neighbouring vectors.
template <class T, int K>
CONVKIT_INLINE typename Vec<T>::Reg further(const typename Vec<T>::Reg* v, const T* p) {
  using V = Vec<T>;
  constexpr int whole = K / V::lanes, rest = K % V::lanes;
  if constexpr (rest == 0) {
    return v[whole];
  } else if constexpr (V::masks) {
    return V::template after<rest>(v[whole], v[whole + 1]);
  } else {
    return V::load(p + K);
  }
}

template <class T, int K, Symmetry S, int k>
CONVKIT_INLINE void add_pairs(const typename Vec<T>::Reg* v, const T* p, const typename Vec<T>::Reg* taps,
                              typename Vec<T>::Reg& a) {
  if constexpr (k < K / 2) {
    a = multiply_add<T>(pair<T, S>(further<T, k>(v, p), further<T, K - 1 - k>(v, p)), taps[k], a);
    add_pairs<T, K, S, k + 1>(v, p, taps, a);
  }
}

template <class T, int K, Symmetry S, bool Stream>
CONVKIT_INLINE void few_along(const Taps<T>& taps, const T* line, std::int64_t count, T* out) {
  using V = Vec<T>;
  constexpr int vectors = (K - 1) / V::lanes + 2;
  const FewTaps<T, K, S, 1> few(taps);
  typename V::Reg v[vectors];
  CONVKIT_UNROLL
  for (int q = 0; q < vectors - 1; ++q) v[q] = V::load(line + q * V::lanes);
  for (std::int64_t i = 0; i < count; i += V::lanes) {
    v[vectors - 1] = V::load(line + i + (vectors - 1) * V::lanes);
    typename V::Reg a = multiply<T>(further<T, K / 2>(v, line + i), few.values[K / 2]);
    add_pairs<T, K, S, 0>(v, line + i, few.values, a);
    if (i + V::lanes > count) {
      V::store(out + i, a, static_cast<int>(count - i));
    } else if constexpr (Stream) {
      V::stream(out + i, a);
    } else {
      V::store(out + i, a);
    }
    CONVKIT_UNROLL
    for (int q = 0; q < vectors - 1; ++q) v[q] = v[q + 1];
  }
}

template <class T, int K, Symmetry S>
void few_along(const Taps<T>& taps, const T* line, std::int64_t count, T* out, bool stream) {
  if (stream) return few_along<T, K, S, true>(taps, line, count, out);
  few_along<T, K, S, false>(taps, line, count, out);
}

template <class T>
struct Along {
  const T* line;
  CONVKIT_INLINE const T* operator()(std::int64_t k) const { return line + k; }
};

template <class T, Symmetry S>
void along_of(const Taps<T>& taps, const T* line, std::int64_t count, T* out, bool stream) {
  using V = Vec<T>;
  if constexpr (S != Symmetry::none) {
    switch (taps.count) {
      case 3: return few_along<T, 3, S>(taps, line, count, out, stream);
      case 5: return few_along<T, 5, S>(taps, line, count, out, stream);
      case 7: return few_along<T, 7, S>(taps, line, count, out, stream);
      case 9: return few_along<T, 9, S>(taps, line, count, out, stream);
      default: break;
    }
  }
  for (std::int64_t i = 0; i < count; i += V::lanes) {
    typename V::Reg a[1];
    sum_any<T, S, 1, true>(taps, Along<T>{line + i}, V::lanes, a);
    V::store(out + i, a[0], static_cast<int>(smaller<std::int64_t>(count - i, V::lanes)));
  }
}

// --- lists --------------------------------------------------------------------------------------------------------------

template <class T, int NV, bool Whole>
CONVKIT_INLINE void list_vectors(const Taps<T>& taps, const T* const* lines, std::int64_t i, int last, T* out) {
  using V = Vec<T>;
  typename V::Reg a[NV];
  CONVKIT_UNROLL
  for (int v = 0; v < NV; ++v) a[v] = V::zero();
  for (std::int64_t k = 0; k < taps.count; ++k) {
    const auto tap = V::broadcast(taps.values + k);
    CONVKIT_UNROLL
    for (int v = 0; v < NV; ++v) {
      a[v] = multiply_add<T>(load<T, Whole>(lines[k] + i + v * V::lanes, last), tap, a[v]);
    }
  }
  CONVKIT_UNROLL
  for (int v = 0; v < NV; ++v) V::store(out + i + v * V::lanes, a[v], last);
}

}  // namespace

template <class T>
void sum_lines(const Taps<T>& taps, const T* const* lines, const ResultLines<T>& out, std::ptrdiff_t ahead) {
  switch (taps.symmetry) {
    case Symmetry::none: return lines_under_way<T, Symmetry::none>(taps, lines, out, ahead);
    case Symmetry::even: return lines_under_way<T, Symmetry::even>(taps, lines, out, ahead);
    case Symmetry::odd: return lines_under_way<T, Symmetry::odd>(taps, lines, out, ahead);
  }
}

template <class T>
void sum_columns(const Taps<T>& taps, const T* columns, std::int64_t count, T* const* out, bool stream) {
  switch (taps.symmetry) {
    case Symmetry::none: return columns_of<T, Symmetry::none>(taps, columns, count, out, stream);
    case Symmetry::even: return columns_of<T, Symmetry::even>(taps, columns, count, out, stream);
    case Symmetry::odd: return columns_of<T, Symmetry::odd>(taps, columns, count, out, stream);
  }
}

template <class T>
void sum_along(const Taps<T>& taps, const T* line, std::int64_t count, T* out, bool stream) {
  switch (taps.symmetry) {
    case Symmetry::none: return along_of<T, Symmetry::none>(taps, line, count, out, stream);
    case Symmetry::even: return along_of<T, Symmetry::even>(taps, line, count, out, stream);
    case Symmetry::odd: return along_of<T, Symmetry::odd>(taps, line, count, out, stream);
  }
}

template <class T>
void sum_list(const Taps<T>& taps, const T* const* lines, std::int64_t width, T* out) {
  constexpr int lanes = Vec<T>::lanes;
  std::int64_t i = 0;
  for (; i + 4 * lanes <= width; i += 4 * lanes) list_vectors<T, 4, true>(taps, lines, i, lanes, out);
  for (; i + lanes <= width; i += lanes) list_vectors<T, 1, true>(taps, lines, i, lanes, out);
  if (i < width) list_vectors<T, 1, false>(taps, lines, i, static_cast<int>(width - i), out);
}

template <class T>
void lines_to_columns(const T* lines, std::ptrdiff_t pitch, std::int64_t width, T* columns) {
  using V = Vec<T>;
  for (std::int64_t i = 0; i < width; i += V::lanes) {
    typename V::Reg a[V::lanes];
    CONVKIT_UNROLL
    for (int q = 0; q < V::lanes; ++q) a[q] = V::load(lines + q * pitch + i);
    V::transpose(a);
    CONVKIT_UNROLL
    for (int q = 0; q < V::lanes; ++q) V::store(columns + (i + q) * V::lanes, a[q]);
  }
}

#define CONVKIT_TAP_LINES(T)                                                                       \
  template void sum_lines(const Taps<T>&, const T* const*, const ResultLines<T>&, std::ptrdiff_t); \
  template void sum_columns(const Taps<T>&, const T*, std::int64_t, T* const*, bool);              \
  template void sum_along(const Taps<T>&, const T*, std::int64_t, T*, bool);                       \
  template void sum_list(const Taps<T>&, const T* const*, std::int64_t, T*);                       \
  template void lines_to_columns(const T*, std::ptrdiff_t, std::int64_t, T*);
CONVKIT_TAP_LINES(float)
CONVKIT_TAP_LINES(double)
#undef CONVKIT_TAP_LINES

}  // namespace convkit::CONVKIT_ISA
