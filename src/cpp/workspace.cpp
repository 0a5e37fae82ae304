#include "workspace.hpp"

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <limits>
#include <new>

namespace convkit {
namespace {

constexpr std::int64_t page = 4096;
constexpr std::int64_t huge_page = std::int64_t{2} << 20;
constexpr std::int64_t default_limit = std::int64_t{1} << 30;
constexpr std::size_t most_outputs = 16;
constexpr std::size_t most_workspaces = 32;

std::atomic<std::int64_t> limit{default_limit};

// Blocks of nearly equal size serve each other: sizes are rounded up to an eighth of their power of two.
std::int64_t rounded(std::int64_t bytes) {
  if (bytes <= 0) return page;
  if (bytes > std::numeric_limits<std::int64_t>::max() / 4) throw std::bad_alloc();
  std::int64_t step = page;
  while (step * 16 <= bytes) step *= 2;
  return (bytes + step - 1) / step * step;
}

}  // namespace

std::int64_t checked_sum(std::int64_t a, std::int64_t b) {
  std::int64_t sum;
  if (__builtin_add_overflow(a, b, &sum)) throw std::bad_alloc();
  return sum;
}

std::int64_t checked_product(std::int64_t a, std::int64_t b) {
  std::int64_t product;
  if (__builtin_mul_overflow(a, b, &product)) throw std::bad_alloc();
  return product;
}

Block::Block(std::int64_t bytes) : bytes_(rounded(bytes)) {
  // Scattered small pages compete for sets of L2, a huge one never with itself: the last one is made whole if half is used.
  if (const std::int64_t tail = bytes_ % huge_page; tail >= huge_page / 2) bytes_ += huge_page - tail;
  const bool huge = bytes_ >= huge_page;
  // mmap aligns to a small page: take one huge page more and cut off both ends.
  const std::size_t mapped = static_cast<std::size_t>(bytes_ + (huge ? huge_page : 0));
  void* map = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (map == MAP_FAILED) throw std::bad_alloc();
  auto* start = static_cast<std::byte*>(map);
  data_ = start;
  if (huge) {
    const auto address = reinterpret_cast<std::uintptr_t>(start);
    const std::size_t head = static_cast<std::size_t>((huge_page - address % huge_page) % huge_page);
    data_ = start + head;
    if (head) munmap(start, head);
    const std::size_t tail = mapped - head - static_cast<std::size_t>(bytes_);
    if (tail) munmap(data_ + bytes_, tail);
    madvise(data_, static_cast<std::size_t>(bytes_), MADV_HUGEPAGE);
  }
}

Block& Block::operator=(Block&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

Block::~Block() {
  if (data_) munmap(data_, static_cast<std::size_t>(bytes_));
}

std::byte* Block::release() {
  bytes_ = 0;
  return std::exchange(data_, nullptr);
}

Block Block::adopt(std::byte* data, std::int64_t bytes) {
  Block block;
  block.data_ = data;
  block.bytes_ = bytes;
  return block;
}

Block BlockPool::take(std::int64_t bytes, bool* recycled) {
  if (recycled) *recycled = false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    // A block far larger than needed stays for the call that needs it.
    const std::int64_t most = bytes < least_slack_ / 2 ? least_slack_ : checked_product(bytes, 2);
    std::size_t best = free_.size();
    for (std::size_t i = free_.size(); i-- > 0;) {
      if (free_[i].bytes() < bytes || free_[i].bytes() > most) continue;
      if (best == free_.size() || free_[i].bytes() < free_[best].bytes()) best = i;
    }
    if (best != free_.size()) {
      Block block = std::move(free_[best]);
      free_[best] = std::move(free_.back());
      free_.pop_back();
      free_bytes_ -= block.bytes();
      if (recycled) *recycled = true;
      return block;
    }
  }
  return Block(bytes);
}

void BlockPool::give(Block block) noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (block.bytes() > most_bytes_) return;
  // The oldest leave first: a program that moved on to other shapes must not be served by none of the blocks kept.
  std::size_t leaving = 0;
  while (free_.size() - leaving >= most_blocks_ || free_bytes_ + block.bytes() > most_bytes_) {
    free_bytes_ -= free_[leaving++].bytes();
  }
  free_.erase(free_.begin(), free_.begin() + static_cast<std::ptrdiff_t>(leaving));
  free_bytes_ += block.bytes();
  free_.push_back(std::move(block));
}

void BlockPool::clear() {
  std::vector<Block> dropped;
  const std::lock_guard<std::mutex> lock(mutex_);
  dropped.swap(free_);
  free_bytes_ = 0;
}

void BlockPool::set_most_bytes(std::int64_t bytes) {
  clear();
  const std::lock_guard<std::mutex> lock(mutex_);
  most_bytes_ = bytes;
}

std::int64_t BlockPool::free_bytes() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return free_bytes_;
}

namespace {
// What a pool may keep: a few layers' worth, on a small machine an eighth of its memory.
std::int64_t kept_bytes(std::int64_t limit) {
  const std::int64_t memory = std::int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE);
  return memory > 0 && memory / 8 < limit ? memory / 8 : limit;
}

struct Pools {
  // A workspace goes back at the end of its call, a result may live on and hold what it does not need.
  BlockPool workspaces{most_workspaces, kept_bytes(default_limit), 2 * huge_page};
  BlockPool outputs{most_outputs, kept_bytes(default_limit), 0};
};
Pools& pools();
}  // namespace

// Holds both locks across fork, so that the child never inherits a half-changed list.
struct ForkGuard {
  static void prepare() {
    pools().workspaces.mutex_.lock();
    pools().outputs.mutex_.lock();
  }
  static void parent() {
    pools().outputs.mutex_.unlock();
    pools().workspaces.mutex_.unlock();
  }
  static void child() {
    for (BlockPool* pool : {&pools().workspaces, &pools().outputs}) {
      pool->free_.clear();
      pool->free_bytes_ = 0;
    }
    parent();
  }
};

namespace {
Pools& pools() {
  static Pools* const instance = [] {
    auto* made = new Pools;
    pthread_atfork(ForkGuard::prepare, ForkGuard::parent, ForkGuard::child);
    return made;
  }();
  return *instance;
}
}  // namespace

BlockPool& workspace_pool() { return pools().workspaces; }
BlockPool& output_pool() { return pools().outputs; }

std::int64_t workspace_limit() { return limit.load(std::memory_order_relaxed); }

void set_workspace_limit(std::int64_t bytes) {
  limit.store(bytes, std::memory_order_relaxed);
  workspace_pool().set_most_bytes(kept_bytes(bytes));
}

}  // namespace convkit
