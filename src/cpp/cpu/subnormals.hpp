// What becomes of subnormal numbers, those below the smallest normal one. Intel's CPUs compute with them in microcode, at
// more than a hundred cycles an instruction.
#pragma once
#include <cstdint>

namespace convkit {

// While it lives, this thread takes and gives subnormals as zeros, and so do the teams that it starts.
class FlushedSubnormals {
 public:
  explicit FlushedSubnormals(bool flush) {
    if (!flush) return;
    before_ = __builtin_ia32_stmxcsr();
    changed_ = (before_ & flags) != flags;
    if (!changed_) return;
    // Mostly a constant, so that the kernel need not wait for what was read.
    if (__builtin_expect((before_ & ~sticky) == usual, 1)) {
      __builtin_ia32_ldmxcsr(usual | flags);
    } else {
      __builtin_ia32_ldmxcsr(before_ | flags);
    }
  }
  // Whatever the kernel raised of the sticky flags is gone, as it is of the other members of a team.
  ~FlushedSubnormals() {
    if (changed_) __builtin_ia32_ldmxcsr(before_);
  }
  FlushedSubnormals(const FlushedSubnormals&) = delete;
  FlushedSubnormals& operator=(const FlushedSubnormals&) = delete;

 private:
  // Of MXCSR: flush to zero, and denormals are zeros; what exceptions leave behind; the state of a new thread without that.
  static constexpr std::uint32_t flags = 0x8040, sticky = 0x003F, usual = 0x1F80;
  std::uint32_t before_ = 0;
  bool changed_ = false;
};

}  // namespace convkit
