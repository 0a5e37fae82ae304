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
    if (changed_) __builtin_ia32_ldmxcsr(before_ | flags);
  }
  // Whatever the kernel raised of the sticky flags is gone, as it is of the other members of a team.
  ~FlushedSubnormals() {
    if (changed_) __builtin_ia32_ldmxcsr(before_);
  }
  FlushedSubnormals(const FlushedSubnormals&) = delete;
  FlushedSubnormals& operator=(const FlushedSubnormals&) = delete;

 private:
  static constexpr std::uint32_t flags = 0x8040;  // of MXCSR: flush to zero, and denormals are zeros
  std::uint32_t before_ = 0;
  bool changed_ = false;
};

}  // namespace convkit
