// A layer's weights and what it holds for each channel: dense copies, and the packings made of the weights so far. Shared by the layer and the calls that run on them;
// replaced as a whole by update(). Needs the GIL, which is the lock of the list. Large packings are made without it, each
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

class LayerWeights {
 public:
  // All are dense and nobody else's; all but w may be null.
  LayerWeights(Reference w, Reference bias, Reference scale, Reference shift);

  PyObject* w() const { return w_.get(); }
  PyObject* bias() const { return bias_.get(); }
  PyObject* scale() const { return scale_.get(); }
  PyObject* shift() const { return shift_.get(); }
  bool finite() const { return finite_; }  // no weight is infinite or NaN
  // The packing that the plan's kernel reads, made if need be; null where it reads the weights as they are. May give up
  // the GIL.
  std::shared_ptr<const Packed> packed_for(const Plan& plan);
  // Drops packings that no plan holds: those of kernels that lost.
  void prune();
  std::int64_t weight_bytes() const;
  std::int64_t packed_bytes() const;

 private:
  // The packing of this description that is made, or being made in this process; null if there is none.
  std::shared_ptr<Packed> find(const Packing& description);

  Reference w_, bias_, scale_, shift_;
  bool finite_;
  std::vector<std::shared_ptr<Packed>> packings_;
};

// A dense, aligned, read-only copy; null of nothing.
Reference frozen_copy(const ArrayArgument& array);
// The values of a layer's factor, a number repeated; null if there is none.
Reference frozen_values(const Factor& factor, const ArrayArgument& array, Dtype dtype, npy_intp channels);

}  // namespace convkit::bindings
