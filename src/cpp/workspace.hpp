// Memory that outlives one call: workspaces and large outputs are given back to a bounded list and handed out again,
// because a fresh page costs more than the arithmetic done on it.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <utility>
#include <vector>

namespace convkit {

// 64-bit sums and products that throw std::bad_alloc instead of wrapping: a size that does not fit cannot be had either.
std::int64_t checked_sum(std::int64_t a, std::int64_t b);
std::int64_t checked_product(std::int64_t a, std::int64_t b);

// Owns memory aligned to 4096 bytes; from 1 MiB on it is aligned to and asks for huge pages.
class Block {
 public:
  Block() = default;
  explicit Block(std::int64_t bytes);  // throws std::bad_alloc
  Block(Block&& other) noexcept : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  Block& operator=(Block&& other) noexcept;
  ~Block();

  std::byte* data() const { return data_; }
  std::int64_t bytes() const { return bytes_; }  // at least what was asked for
  // Leaves the memory to the caller, who hands it back through `adopt`.
  std::byte* release();
  static Block adopt(std::byte* data, std::int64_t bytes);

 private:
  std::byte* data_ = nullptr;
  std::int64_t bytes_ = 0;
};

// A process-wide bounded list of free blocks. Emptied in a forked child, which would otherwise pay for every page twice.
class BlockPool {
 public:
  // At most `limit` bytes are kept, and an eighth of the memory that this process may use. Blocks that are `soon_back` may
  // have four times the size that is asked for, and up to 4 MiB at least; others twice the size.
  BlockPool(std::size_t most_blocks, std::int64_t limit, bool soon_back)
      : most_blocks_(most_blocks), soon_back_(soon_back), limit_(limit) {
    free_.reserve(most_blocks);  // so that giving back never allocates
  }
  // A free block of at least, and not far above, `bytes`, or a new one. `recycled` tells which, if given.
  Block take(std::int64_t bytes, bool* recycled = nullptr);
  void give(Block block) noexcept;
  void clear() noexcept;
  void set_limit(std::int64_t bytes);
  std::int64_t free_bytes();
  std::int64_t most_bytes() noexcept;

 private:
  friend struct ForkGuard;
  Block take_oldest();               // under the lock
  Block take_at(std::size_t index);  // likewise

  std::mutex mutex_;
  std::vector<Block> free_;
  const std::size_t most_blocks_;
  const bool soon_back_;
  std::atomic<std::int64_t> limit_;
  std::int64_t free_bytes_ = 0;
};

// Pools of workspaces and of outputs; never destroyed, since arrays may outlive static destruction.
BlockPool& workspace_pool();
BlockPool& output_pool();

// An arena checked out for one call.
class Workspace {
 public:
  explicit Workspace(std::int64_t bytes) {
    if (bytes != 0) block_ = workspace_pool().take(bytes);
  }
  ~Workspace() {
    if (block_.data()) workspace_pool().give(std::move(block_));
  }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  std::byte* data() const { return block_.data(); }

 private:
  Block block_;
};

// The most a kernel may ask for where a call does not say; also bounds what the pool keeps.
std::int64_t workspace_limit();
void set_workspace_limit(std::int64_t bytes);

}  // namespace convkit
