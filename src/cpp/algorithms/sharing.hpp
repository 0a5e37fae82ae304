// How algorithms share work: teams from lambdas, even shares, aligned pieces of a workspace. Everything lives in the ISA's
// namespace, so that no inline function is shared between instruction sets.
#pragma once
#include "inventory.hpp"
#include "isa/vec.hpp"
#include "parallel.hpp"

namespace convkit::CONVKIT_ISA {

// Runs member(index, size) on a team of at most `threads`.
template <class Member>
CONVKIT_INLINE void team(int threads, Member& member) {
  struct Call {
    static void run(void* context, int index, int size) { (*static_cast<Member*>(context))(index, size); }
  };
  run_team(threads, Call::run, &member);
}

// A number of vectors, as a type.
template <int N>
struct Vectors {
  static constexpr int count = N;
};

struct Share {
  std::int64_t begin, end;
};

// count * index / parts, whose product may not fit; index <= parts.
CONVKIT_INLINE std::int64_t portion(std::int64_t count, std::int64_t index, std::int64_t parts) {
  std::int64_t product;
  if (__builtin_expect(!__builtin_mul_overflow(count, index, &product), 1)) return product / parts;
  return static_cast<std::int64_t>(static_cast<__int128>(count) * index / parts);
}

// Part `index` of `parts` of `count` items: in order, sizes differing by one at most.
CONVKIT_INLINE Share share(std::int64_t count, std::int64_t index, std::int64_t parts) {
  if (parts == 1) return {0, count};  // without the divisions, which a short call on one thread would feel
  return {portion(count, index, parts), portion(count, index + 1, parts)};
}

// A team as a grid of rows x columns; member i is at (i / columns, i % columns).
struct Grid {
  int rows, columns;
};

CONVKIT_INLINE std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
CONVKIT_INLINE std::int64_t round_up(std::int64_t a, std::int64_t b) { return ceil_div(a, b) * b; }

// The grid for `size` members over row_items x column_items whose busiest member has least to do; among equals the one
// with most rows, since members of one row read the same input. Column items are `missing` fewer than they count for: the
// last of a group may be narrow.
CONVKIT_INLINE Grid make_grid(std::int64_t row_items, std::int64_t column_items, int size, double missing = 0) {
  Grid best{1, size};
  if (size == 1) return best;
  double least = 1e300;
  for (int columns = 1; columns <= size; ++columns) {
    if (size % columns) continue;
    const int rows = size / columns;
    const double busiest = static_cast<double>(ceil_div(row_items, rows)) *
                           (static_cast<double>(ceil_div(column_items, columns)) - (columns == 1 ? missing : 0));
    if (busiest < least * 0.999) {
      least = busiest;
      best = {rows, columns};
    }
  }
  return best;
}

// Parameters may ask for more memory than 64 bits count: sizes end here instead of wrapping, and nobody can have that much.
inline constexpr std::int64_t boundless = std::int64_t{1} << 61;

// Of sizes, none of which is negative.
CONVKIT_INLINE std::int64_t bounded_product(std::int64_t a, std::int64_t b) {
  std::int64_t product;
  return __builtin_mul_overflow(a, b, &product) || product > boundless ? boundless : product;
}
template <class... Sizes>
CONVKIT_INLINE std::int64_t bounded_product(std::int64_t a, std::int64_t b, Sizes... more) {
  return bounded_product(bounded_product(a, b), static_cast<std::int64_t>(more)...);
}
CONVKIT_INLINE std::int64_t bounded_sum(std::int64_t a, std::int64_t b) {
  return a < boundless && b < boundless - a ? a + b : boundless;
}

// Cuts 64-byte aligned pieces off a workspace, each as many elements as the product of the counts. With a null base it only
// counts.
struct Carver {
  char* base;
  std::int64_t used = 0;

  CONVKIT_INLINE char* here() const { return base ? base + used : nullptr; }
  CONVKIT_INLINE void skip(std::int64_t bytes) { used += round_up(bytes, 64); }
  CONVKIT_INLINE void align(std::int64_t bytes) { used = round_up(used, bytes); }
  template <class T, class... Counts>
  CONVKIT_INLINE T* take(Counts... counts) {
    T* piece = reinterpret_cast<T*>(here());
    skip((static_cast<std::int64_t>(sizeof(T)) * ... * static_cast<std::int64_t>(counts)));
    return piece;
  }
};

// What a carver would use of a workspace that nobody has yet, and perhaps nobody can have: so that the size and the
// pieces come from one piece of code.
struct Tally {
  std::int64_t used = 0;

  CONVKIT_INLINE char* here() const { return nullptr; }
  CONVKIT_INLINE void skip(std::int64_t bytes) { used = bounded_sum(used, round_up(bytes, 64)); }
  CONVKIT_INLINE void align(std::int64_t bytes) { used = round_up(used, bytes); }
  template <class T, class... Counts>
  CONVKIT_INLINE T* take(Counts... counts) {
    skip(bounded_product(static_cast<std::int64_t>(sizeof(T)), counts...));
    return nullptr;
  }
};

// Bytes of the members' areas, `one` each, and of what they share.
CONVKIT_INLINE std::int64_t team_bytes(std::int64_t one, int threads, std::int64_t shared) {
  return bounded_sum(bounded_product(one, threads), round_up(shared, 64));
}

// What candidates may put in for a parameter: the value as far as its schema goes.
CONVKIT_INLINE std::int32_t within(const ParameterSpec& spec, std::int64_t value) {
  return static_cast<std::int32_t>(smaller<std::int64_t>(larger<std::int64_t>(value, spec.least), spec.most));
}

}  // namespace convkit::CONVKIT_ISA
