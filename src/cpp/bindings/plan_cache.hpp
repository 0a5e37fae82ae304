// Plans are found again by a key of raw shapes, strides and options. All functions here need the GIL, which also serves as
// the lock of every cache; a free-threaded interpreter has guards instead.
#pragma once
#include <cstdint>
#include <cstring>
#include <unordered_map>
#include <utility>

#include "arrays.hpp"
#include "held.hpp"
#include "options.hpp"

namespace convkit::bindings {

struct Plan;

class Key {
 public:
  void add(std::int64_t word) { words_[used_++] = word; }
  // One word tells which of the arrays are there, and of each its dtype, its alignment and how many dimensions follow.
  template <class... Arrays>
  void add_arrays(const Arrays&... arrays) {
    static_assert(sizeof...(arrays) * array_bits <= 63);
    const std::size_t first = used_++;
    std::int64_t kinds = 0;
    (..., add_array(arrays, kinds));
    words_[first] = kinds;
  }
  void add(const Operands& operands);
  void add(const Options& options);
  std::size_t hash() const;
  bool operator==(const Key& other) const {
    if (used_ != other.used_) return false;
    std::int64_t different = 0;  // without a call, and without a branch for each word
    for (std::size_t i = 0; i < used_; ++i) different |= words_[i] ^ other.words_[i];
    return different == 0;
  }
  Key() = default;
  Key(const Key& other) : used_(other.used_) { std::memcpy(words_, other.words_, sizeof(words_[0]) * used_); }
  Key& operator=(const Key& other) {
    used_ = other.used_;
    std::memcpy(words_, other.words_, sizeof(words_[0]) * used_);
    return *this;
  }

 private:
  static constexpr int array_bits = 6;
  static constexpr std::size_t most_words = 80;

  void add_array(const ArrayArgument& array, std::int64_t& kinds) {
    kinds <<= array_bits;
    if (!array) return;
    const int ndim = array.ndim();
    kinds |= 1 | static_cast<int>(array.dtype()) << 1 | static_cast<int>(array.misaligned()) << 2 | (ndim & 7) << 3;
    if (ndim > 4) return;  // refused on a miss, hence in no key that was kept
    if (ndim == 4) return add_dimensions<4>(array);
    for (int i = 0; i < ndim; ++i) add(array.shape()[i]);
    for (int i = 0; i < ndim; ++i) add(array.strides()[i]);
  }
  template <int ndim>
  void add_dimensions(const ArrayArgument& array) {
    std::memcpy(words_ + used_, array.shape(), sizeof(npy_intp) * ndim);
    std::memcpy(words_ + used_ + ndim, array.strides(), sizeof(npy_intp) * ndim);
    used_ += 2 * ndim;
  }

  std::size_t used_ = 0;
  std::int64_t words_[most_words];
};

// Plans by key, bounded: when full it starts anew, which costs each shape still in use one miss. Whoever calls holds its
// guard. What leaves the cache is handed out, to die after that: it owns Python objects, whose last breath may come back
// here.
template <class Value>
class PlanCache {
  struct Hash {
    std::size_t operator()(const Key& key) const { return key.hash(); }
  };

 public:
  using Entries = std::unordered_map<Key, Value, Hash>;
  explicit PlanCache(std::size_t most) : most_(most) {}
  // Null if absent. The value found last answers without hashing.
  Value* find(const Key& key) {
    if (last_ && last_->first == key) return &last_->second;
    if (entries_.empty()) return nullptr;
    const auto found = entries_.find(key);
    if (found == entries_.end()) return nullptr;
    last_ = &*found;
    return &found->second;
  }
  [[nodiscard]] Entries insert(const Key& key, const Value& value) {
    Entries dropped;
    if (entries_.size() >= most_) dropped = take_all();
    const auto [entry, fresh] = entries_.try_emplace(key, value);
    if (!fresh) dropped.emplace(key, std::exchange(entry->second, value));
    last_ = &*entry;
    return dropped;
  }
  [[nodiscard]] Entries take_all() {
    last_ = nullptr;
    return std::exchange(entries_, {});
  }
  std::size_t size() const { return entries_.size(); }
  template <class Function>
  void each(Function function) {
    for (auto& entry : entries_) function(entry.second);
  }

 private:
  std::size_t most_;
  Entries entries_;
  typename Entries::value_type* last_ = nullptr;
};

using PlanPointer = Held<const Plan>;
// Of the calls that bring their own weights: null if absent.
PlanPointer kept_plan(const Key& key);
// Keeps a plan that was made in this generation, unless it has passed.
void keep_plan(const Key& key, const PlanPointer& plan, std::uint64_t generation);
std::size_t plan_count();
// Raised by clear_plans, so that layers know to drop theirs.
std::uint64_t plan_generation();
void clear_plans();

template <class Number>
struct CountersOf {
  Number calls, plan_hits, plan_misses, outputs_recycled;
};
using Counters = CountersOf<Shared<std::uint64_t>>;
// Where this thread counts.
Counters& counters();
// Of all threads.
CountersOf<std::uint64_t> total_counts();

}  // namespace convkit::bindings
