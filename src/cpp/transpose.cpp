#include "transpose.hpp"

#include "cpu/features.hpp"

namespace convkit {

#define CONVKIT_ISA_ENTRY(isa, bytes, features, flags)                  \
  namespace isa {                                                       \
  void transpose(const PlaneTranspose& what, bool stream, int threads); \
  }
#include "isa/built.def"
#undef CONVKIT_ISA_ENTRY

namespace {

using Transpose = void (*)(const PlaneTranspose&, bool, int);

constexpr Transpose transpose_of[isa_count] = {
#define CONVKIT_ISA_ENTRY(isa, bytes, features, flags) isa::transpose,
#include "isa/built.def"
#undef CONVKIT_ISA_ENTRY
};

constexpr std::int64_t line = 64;

// A team costs more than it saves below this many bytes a member.
constexpr std::int64_t least_bytes_per_thread = std::int64_t{1} << 18;

}  // namespace

void transpose(const PlaneTranspose& t, int threads) {
  const std::int64_t bytes = t.outer[0] * t.outer[1] * t.i * t.j * t.element;
  const auto whole_lines = [&](std::int64_t stride) { return stride * t.element % line == 0; };
  const bool lines = whole_lines(t.to_row) && whole_lines(t.to_outer[0]) && whole_lines(t.to_outer[1]) &&
                     reinterpret_cast<std::uintptr_t>(t.to) % t.element == 0;
  // Source and result would push out half of what the last-level cache holds.
  const bool stream = lines && 4 * bytes > machine().l3;
  const std::int64_t members = bytes / least_bytes_per_thread;
  if (threads > members) threads = members < 1 ? 1 : static_cast<int>(members);
  transpose_of[static_cast<int>(active_isa())](t, stream, threads);
}

}  // namespace convkit
