// A layer's weights and what it holds for each channel: dense copies, and the packings made of the weights so far. Shared by the layer and the calls that run on them;
// replaced as a whole by update(). Needs the GIL, which is the lock of the list (a guard where there is none). Large packings are made without it, each
// once: whoever needs one that is being made waits.
#pragma once
#include <atomic>
#include <memory>
#include <vector>

#include "../workspace.hpp"
#include "plan.hpp"

namespace convkit::bindings {

struct Packed {
  Packing description;
  Block block;
  long made_in = 0;  // the process, counted in forks: a child cannot wait for a thread of its parent
  std::atomic<bool> ready{false};
};

// What a layer holds for each channel of its result: dense, read-only, nobody else's; or null.
struct ChannelValues {
  Reference bias, weight_scale, scale, shift;
};

class LayerWeights {
 public:
  // Copies w, scaled, or, to `borrow`, keeps a reference, if kernels can read it at all; what is borrowed is scaled when it is
  // packed.
  LayerWeights(const ArrayArgument& w, ChannelValues values, const Options& options, bool borrow);

  PyObject* w() const { return w_.get(); }
  // Null if w is as the layer uses it.
  PyObject* weight_scale() const { return values_.weight_scale.get(); }
  PyObject* bias() const { return values_.bias.get(); }
  PyObject* scale() const { return values_.scale.get(); }
  PyObject* shift() const { return values_.shift.get(); }
  bool finite() const { return finite_; }  // no weight is infinite or NaN
  // The packing that the plan's kernel reads, made if need be; null where it reads the weights as they are. A kernel without
  // a packing reads a dense copy, if they are not dense, or not scaled. May give up the GIL.
  std::shared_ptr<const Packed> packed_for(const Plan& plan);
  // Drops packings that no plan holds: those of kernels that lost.
  void prune();
  std::int64_t weight_bytes() const;  // of what is not borrowed
  std::int64_t packed_bytes() const;

 private:
  // The packing of this description that is made, or being made in this process; null if there is none.
  std::shared_ptr<Packed> find(const Packing& description);
  std::shared_ptr<Packed> find_guarded(const Packing& description);
  // Adds what is to be made; unless another thread came first: then what it makes.
  std::shared_ptr<Packed> add(const std::shared_ptr<Packed>& packed);
  // Writes w to `to`: dense, scaled.
  void copy_dense(std::byte* to, int threads) const;

  Reference w_;
  ChannelValues values_;
  ConvProblem filters_{};  // what a problem says of them
  bool borrowed_, dense_, finite_;
  std::vector<std::shared_ptr<Packed>> packings_;
};

// A dense, aligned, read-only copy; null of nothing.
Reference frozen_copy(const ArrayArgument& array);
// The values of a layer's factor, a number repeated for each channel; null if there is none.
Reference frozen_values(const Factor& factor, const ArrayArgument& array, Dtype dtype, npy_intp channels);

}  // namespace convkit::bindings
