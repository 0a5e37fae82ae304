// Sums of taps over lines: lines of results from neighbouring rows of an image, or from its columns if it lies transposed.
//
// A few lines of results are under way at once, in registers: lines are loaded for all of them. Symmetric taps are taken
// in pairs, which needs two windows of lines that move towards each other; what enters one of them takes the register of
// what leaves it. Windows of up to nine lines lie in registers as a whole if there are 32.
//
// The order of the sums is SciPy's: the middle of symmetric taps, then pairs from the ends; the last of other taps, then all
// from the first. In double products are rounded before they are added. So results are SciPy's bit for bit: an integer that
// a sum just reaches or misses is cut to another one.
#pragma once
#include "isa/apart.hpp"

namespace convkit::CONVKIT_ISA {

enum class Symmetry : std::int32_t { none, even, odd };

// Taps of one axis in the computing type.
template <class T>
struct Taps {
  Symmetry symmetry;
  std::int64_t count;
  const T* values;
};

template <class T>
CONVKIT_INLINE typename Vec<T>::Reg multiply(typename Vec<T>::Reg a, typename Vec<T>::Reg b) {
  return sizeof(T) == 8 ? apart(a * b) : a * b;
}
template <class T>
CONVKIT_INLINE typename Vec<T>::Reg multiply_add(typename Vec<T>::Reg a, typename Vec<T>::Reg b,
                                                 typename Vec<T>::Reg sum) {
  return multiply<T>(a, b) + sum;
}

// Lines of results under way at once.
template <class T>
inline constexpr int lines_at_once = many_registers<T> ? 8 : 4;

// Lines of results: `count` <= lines_at_once of `width` elements, `pitch` apart.
template <class T>
struct ResultLines {
  T* first;
  std::ptrdiff_t pitch;
  int count;
  std::int64_t width;
  bool stream;  // past the caches
};

// Result r begins with lines[r]. What is `ahead` elements of the lines that only the last results meet is fetched into L2 (0:
// nothing).
template <class T>
void sum_lines(const Taps<T>& taps, const T* const* lines, const ResultLines<T>& out, std::ptrdiff_t ahead);

// One line of results for each of Vec<T>::lanes lines that lie transposed: `columns` holds a vector for each of their
// places. `count` results of line q go to out[q].
template <class T>
void sum_columns(const Taps<T>& taps, const T* columns, std::int64_t count, T* const* out, bool stream);

// One line of results from one line.
template <class T>
void sum_along(const Taps<T>& taps, const T* line, std::int64_t count, T* out, bool stream);

// Sums in order over any lines.
template <class T>
void sum_list(const Taps<T>& taps, const T* const* lines, std::int64_t width, T* out);

// As many lines as a vector has lanes, `pitch` apart, to columns.
template <class T>
void lines_to_columns(const T* lines, std::ptrdiff_t pitch, std::int64_t width, T* columns);

}  // namespace convkit::CONVKIT_ISA
