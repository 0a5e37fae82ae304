#include "workspace.hpp"

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <exception>
#include <limits>
#include <new>

#include "cpu/limits.hpp"

namespace convkit {
namespace {

constexpr std::int64_t page = 4096;
constexpr std::int64_t huge_page = std::int64_t{2} << 20;
constexpr std::int64_t default_limit = std::int64_t{1} << 30;
constexpr std::size_t most_outputs = 32;
constexpr std::size_t most_workspaces = 32;

std::atomic<std::int64_t> limit{default_limit};
std::atomic<std::int64_t> memory_bytes{0};  // 0: not read yet

// Bytes of the machine or, if that is less, of the control group; read once, and again after fork.
std::int64_t available_memory() noexcept {
  std::int64_t bytes = memory_bytes.load(std::memory_order_relaxed);
  if (bytes == 0) {
    bytes = std::int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE);
    if (bytes <= 0) bytes = std::numeric_limits<std::int64_t>::max();
    try {
      bytes = std::max(page, std::min(bytes, group_limits().memory));
    } catch (const std::exception&) {
      return bytes;  // of the machine; the next call asks again
    }
    memory_bytes.store(bytes, std::memory_order_relaxed);
  }
  return bytes;
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

#if defined(__SANITIZE_ADDRESS__)

// Of exactly the size that was asked for, so that the sanitizer sees the first byte behind it.
Block::Block(std::int64_t bytes) : bytes_(std::max<std::int64_t>(bytes, 1)) {
  void* data = nullptr;
  if (bytes < 0 || posix_memalign(&data, page, static_cast<std::size_t>(bytes_))) throw std::bad_alloc();
  data_ = static_cast<std::byte*>(data);
}

Block::~Block() { std::free(data_); }

#else

namespace {

// Blocks of nearly equal size serve each other: sizes are rounded up to an eighth of their power of two.
std::int64_t rounded(std::int64_t bytes) {
  if (bytes == 0) return page;
  if (bytes < 0 || bytes > std::numeric_limits<std::int64_t>::max() / 4) throw std::bad_alloc();
  std::int64_t step = page;
  while (step * 16 <= bytes) step *= 2;
  return (bytes + step - 1) / step * step;
}

}  // namespace

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

Block::~Block() {
  if (data_) munmap(data_, static_cast<std::size_t>(bytes_));
}

#endif

Block& Block::operator=(Block&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
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
  if (bytes < 0) throw std::bad_alloc();
  const std::int64_t slack = soon_back_ ? 4 : 2;
  // A block far larger than needed stays for the call that needs it.
  const std::int64_t most = std::max(checked_product(bytes, slack), soon_back_ ? 2 * huge_page : 0);
  Block outgrown;  // unmapped after the lock
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::size_t best = free_.size(), less = free_.size();
    for (std::size_t i = free_.size(); i-- > 0;) {
      const std::int64_t size = free_[i].bytes();
      if (size < bytes) {
        if (size >= bytes / slack && (less == free_.size() || size > free_[less].bytes())) less = i;
      } else if (size <= most && (best == free_.size() || size < free_[best].bytes())) {
        best = i;
      }
    }
    if (best != free_.size()) {
      if (recycled) *recycled = true;
      return take_at(best);
    }
    // The new block will serve the calls that the next smaller one served.
    if (soon_back_ && less != free_.size()) outgrown = take_at(less);
  }
  return Block(bytes);
}

Block BlockPool::take_at(std::size_t index) {
  Block block = std::move(free_[index]);
  free_[index] = std::move(free_.back());
  free_.pop_back();
  free_bytes_ -= block.bytes();
  return block;
}

// Blocks are unmapped outside of the lock, one at a time and so without a list of them: that takes milliseconds for large
// ones, while other calls, and a fork, wait for the lock.
void BlockPool::give(Block block) noexcept {
  const std::int64_t most = most_bytes();
  for (;;) {
    Block oldest;
    const std::lock_guard<std::mutex> lock(mutex_);
    if (block.bytes() > most) return;
    if (free_.size() < most_blocks_ && free_bytes_ + block.bytes() <= most) {
      free_bytes_ += block.bytes();
      free_.push_back(std::move(block));
      return;
    }
    // The oldest leave first: a program that moved on to other shapes must not be served by none of the blocks kept.
    oldest = take_oldest();
  }
}

Block BlockPool::take_oldest() {
  Block oldest = std::move(free_.front());
  free_.erase(free_.begin());
  free_bytes_ -= oldest.bytes();
  return oldest;
}

void BlockPool::clear() noexcept {
  for (std::size_t i = 0; i < most_blocks_; ++i) {
    Block oldest;
    const std::lock_guard<std::mutex> lock(mutex_);
    if (free_.empty()) return;
    oldest = take_oldest();
  }
}

void BlockPool::set_limit(std::int64_t bytes) {
  limit_.store(bytes, std::memory_order_relaxed);
  clear();
}

// A few layers' worth, in a small machine or control group an eighth of its memory.
std::int64_t BlockPool::most_bytes() noexcept {
  return std::min(limit_.load(std::memory_order_relaxed), available_memory() / 8);
}

std::int64_t BlockPool::free_bytes() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return free_bytes_;
}

namespace {
struct Pools {
  // A workspace goes back at the end of its call, a result may live on and hold what it does not need.
  BlockPool workspaces{most_workspaces, default_limit, true};
  BlockPool outputs{most_outputs, default_limit, false};
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
    parent();
    memory_bytes.store(0);
    pools().workspaces.clear();
    pools().outputs.clear();
  }
};

namespace {
Pools& pools() {
  static auto* const instance = new Pools;
  return *instance;
}

// Registered when the library is loaded: so a fork waits for a thread that is just making the pools.
const int fork_guard = pthread_atfork(ForkGuard::prepare, ForkGuard::parent, ForkGuard::child);
}  // namespace

BlockPool& workspace_pool() { return pools().workspaces; }
BlockPool& output_pool() { return pools().outputs; }

std::int64_t workspace_limit() { return limit.load(std::memory_order_relaxed); }

void set_workspace_limit(std::int64_t bytes) {
  limit.store(bytes, std::memory_order_relaxed);
  workspace_pool().set_limit(bytes);
}

}  // namespace convkit
