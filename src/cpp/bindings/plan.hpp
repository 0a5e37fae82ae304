// A plan is everything about a call that does not depend on the data: the problem, the kernel chosen, and how the caller's
// arrays get to it. Plans are found again by a key of raw shapes, strides and options. All functions here need the GIL,
// which also serves as the lock of every cache.
#pragma once
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <unordered_map>

#include "../inventory.hpp"
#include "arrays.hpp"
#include "options.hpp"

namespace convkit::bindings {

// The arrays of one call; w may be a layer's own.
struct Operands {
  ArrayArgument x, w, bias, residual, out;
};

class Key {
 public:
  void add(std::int64_t word) { words_[used_++] = word; }
  void add(const ArrayArgument& array);
  void add(const Operands& operands);
  void add(const Options& options);
  std::size_t hash() const;
  bool operator==(const Key& other) const {
    return used_ == other.used_ && std::memcmp(words_, other.words_, sizeof(words_[0]) * used_) == 0;
  }
  Key() = default;
  Key(const Key& other) : used_(other.used_) { std::memcpy(words_, other.words_, sizeof(words_[0]) * used_); }
  Key& operator=(const Key& other) {
    used_ = other.used_;
    std::memcpy(words_, other.words_, sizeof(words_[0]) * used_);
    return *this;
  }

 private:
  static constexpr std::size_t most_words = 64;
  std::size_t used_ = 0;
  std::int64_t words_[most_words];
};

// How one operand gets into the form that the kernel reads: as it is, or through a dense copy in the call's arena.
struct Bring {
  bool copied = false;
  std::int64_t offset = 0;  // in the arena
  std::int64_t zeroed = 0;  // bytes of the copy, where it is larger than the tensor and holds zeros beyond it
  Geometry tensor;          // as the caller holds it, in N,C,H,W order (O,C,KH,KW; O alone for a bias)
  std::int64_t dense[4];    // byte strides of the copy
};

struct Plan {
  const Kernel* kernel = nullptr;  // null: the batch is empty, the result is empty or zeros
  ConvProblem problem;
  Parameters parameters;
  Packing packing;
  int threads = 1;

  Bring x, w, bias, residual, out;  // out: computed in the arena and copied out
  WeightView weights;               // strides only
  std::int64_t arena_bytes = 0, workspace_offset = 0;

  int y_ndim = 4;
  npy_intp y_shape[4], y_strides[4];
  std::int64_t y_bytes = 0;
  bool releases_gil = false;
  bool flushes_subnormals = false;
  bool asks_finite = false;  // weights that are not finite are to meet the padding: see infinite_weights.hpp

  Reference settle;    // called with the seconds of the run, where the chooser wants to learn; such a plan is not kept
  Reference owned[3];  // the opaque values of the key
};

// The team of a call that does not say: CONVKIT_NUM_THREADS, or what default_threads() allows. Raises ValueError.
int default_team();
// The threads that a call with these options gets.
int resolve_threads(const Options& options);

// Checks the operands against each other, asks the chooser for a kernel. `packed`: the weights are a layer's.
std::shared_ptr<const Plan> make_plan(const Operands& operands, const Options& options, int threads, bool packed);

// The problem alone; raises ValueError for an empty batch, of which there is nothing to choose.
ConvProblem describe_problem(const Operands& operands, const Options& options, bool packed);

// Channels of a problem's result.
inline std::int64_t result_channels(const ConvProblem& p) { return p.op == Op::input_grad ? p.c : p.o; }

// Plans by key, bounded: when full it starts anew, which costs each shape still in use one miss.
template <class Value>
class PlanCache {
 public:
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
  void insert(const Key& key, const Value& value) {
    if (entries_.size() >= most_) clear();
    last_ = &*entries_.insert_or_assign(key, value).first;
  }
  void clear() {
    last_ = nullptr;
    Entries dropped;  // plans own Python objects, whose last breath may come back here
    dropped.swap(entries_);
  }
  std::size_t size() const { return entries_.size(); }
  template <class Function>
  void each(Function function) {
    for (auto& entry : entries_) function(entry.second);
  }

 private:
  struct Hash {
    std::size_t operator()(const Key& key) const { return key.hash(); }
  };
  using Entries = std::unordered_map<Key, Value, Hash>;
  std::size_t most_;
  Entries entries_;
  typename Entries::value_type* last_ = nullptr;
};

using PlanPointer = std::shared_ptr<const Plan>;
PlanCache<PlanPointer>& plan_cache();
// Raised by clear_plans, so that layers know to drop theirs.
std::uint64_t plan_generation();
void clear_plans();

struct Counters {
  std::uint64_t calls, plan_hits, plan_misses, outputs_recycled;
};
Counters& counters();

}  // namespace convkit::bindings
