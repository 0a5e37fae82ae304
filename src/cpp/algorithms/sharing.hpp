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

struct Share {
  std::int64_t begin, end;
};

// The part of `count` items for member `index` of `size`: in order, sizes differing by one at most.
CONVKIT_INLINE Share share(std::int64_t count, int index, int size) {
  return {count * index / size, count * (index + 1) / size};
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

// Cuts 64-byte aligned pieces off a workspace. With a null base it only counts, so that sizes and pointers come from one
// piece of code.
struct Carver {
  char* base;
  std::int64_t used = 0;

  template <class T>
  CONVKIT_INLINE T* take(std::int64_t count) {
    T* piece = base ? reinterpret_cast<T*>(base + used) : nullptr;
    used += round_up(count * static_cast<std::int64_t>(sizeof(T)), 64);
    return piece;
  }
};

}  // namespace convkit::CONVKIT_ISA
