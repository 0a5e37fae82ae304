// A layer's weights: a dense copy, and the packings made of it so far. Shared by the layer and the calls that run on them;
// replaced as a whole by update(). Needs the GIL, which is also the lock under which a packing is made: a lock of its own
// could be held by another thread at the moment of a fork.
#pragma once
#include <memory>
#include <vector>

#include "../workspace.hpp"
#include "plan.hpp"

namespace convkit::bindings {

struct Packed {
  Packing description;
  Block block;
};

class LayerWeights {
 public:
  // Copies w, and bias if there is one.
  LayerWeights(const ArrayArgument& w, const ArrayArgument& bias);

  PyObject* w() const { return w_.get(); }
  PyObject* bias() const { return bias_.get(); }  // null if there is none
  // The packing that the plan's kernel reads, made if need be; null where it reads the weights as they are.
  std::shared_ptr<const Packed> packed_for(const Plan& plan);
  // Drops packings that no plan holds: those of kernels that lost.
  void prune();
  std::int64_t weight_bytes() const;
  std::int64_t packed_bytes() const;

 private:
  Reference w_, bias_;
  std::vector<std::shared_ptr<const Packed>> packings_;
};

}  // namespace convkit::bindings
