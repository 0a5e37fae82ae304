#include "images.hpp"

#include <algorithm>

#include "cpu/features.hpp"
#include "workspace.hpp"

namespace convkit {

#define CONVKIT_ISA_ENTRY(isa, bytes, features, flags)         \
  namespace isa {                                              \
  void join(const Join& what, int threads);                    \
  void pool(const Pool& what, int threads);                    \
  void pool_gradient(const PoolGradient& what, int threads);   \
  void resample(const Resample& what, int threads);            \
  void moments(const Moments& what, int threads);              \
  void scale_shift(const ScaleShift& what, int threads);       \
  void scale_gradient(const ScaleGradient& what, int threads); \
  void normalize_rows(const Rows& what, int threads);          \
  }
#include "isa/built.def"
#undef CONVKIT_ISA_ENTRY

namespace {

struct Functions {
  void (*join)(const Join&, int);
  void (*pool)(const Pool&, int);
  void (*pool_gradient)(const PoolGradient&, int);
  void (*resample)(const Resample&, int);
  void (*moments)(const Moments&, int);
  void (*scale_shift)(const ScaleShift&, int);
  void (*scale_gradient)(const ScaleGradient&, int);
  void (*normalize_rows)(const Rows&, int);
};

constexpr Functions functions_of[isa_count] = {
#define CONVKIT_ISA_ENTRY(isa, bytes, features, flags)                 \
  {isa::join,    isa::pool,        isa::pool_gradient,  isa::resample, \
   isa::moments, isa::scale_shift, isa::scale_gradient, isa::normalize_rows},
#include "isa/built.def"
#undef CONVKIT_ISA_ENTRY
};

// A team costs more than it saves below this many elements a member.
constexpr std::int64_t least_per_thread = std::int64_t{1} << 14;

// Of rows whose moments are added up. Their number may not follow the team: its sums would, too.
constexpr std::int64_t least_block = 12, most_blocks = 64;

int members(std::int64_t elements, int threads) {
  const std::int64_t most = elements / least_per_thread;
  return threads <= most ? threads : most < 1 ? 1 : static_cast<int>(most);
}

std::int64_t larger(std::int64_t a, std::int64_t b) { return a > b ? a : b; }

// A team for a pool, or for the way back.
int members_of(const Pool& p, int threads) {
  return members(p.images * p.channels * larger(p.in[0] * p.in[1], p.out[0] * p.out[1]), threads);
}

const Functions& functions() { return functions_of[static_cast<int>(active_isa())]; }

}  // namespace

void run(const Join& j, int threads) { functions().join(j, members(j.pixels * j.channels, threads)); }

void run(const Pool& p, int threads) { functions().pool(p, members_of(p, threads)); }

void run(const PoolGradient& p, int threads) { functions().pool_gradient(p, members_of(p.pool, threads)); }

void run(const Resample& r, int threads) {
  functions().resample(r, members(r.images * r.channels * r.out[0] * r.out[1], threads));
}

void run(const Moments& m, int threads) {
  Moments what = m;
  what.blocks = std::clamp<std::int64_t>(m.count / least_block, 1, most_blocks);
  const Workspace sums(
      m.inner == 1 ? 0 : checked_product(checked_product(m.outer, what.blocks), m.inner * (m.wide ? 8 : 4)));
  what.sums = sums.data();
  functions().moments(what, members(m.outer * m.count * m.inner, threads));
}

void run(const ScaleShift& s, int threads) {
  functions().scale_shift(s, members(s.outer * s.count * s.inner, threads));
}

void run(const ScaleGradient& s, int threads) {
  functions().scale_gradient(s, members(s.outer * s.count * s.inner, threads));
}

void run(const Rows& r, int threads) { functions().normalize_rows(r, members(r.rows * r.length, threads)); }

}  // namespace convkit
