#include "layer_weights.hpp"

#include <algorithm>
#include <cstring>

#include "outputs.hpp"

namespace convkit::bindings {
namespace {

// A dense, aligned, read-only copy.
Reference frozen_copy(const ArrayArgument& array) {
  npy_intp strides[4];
  std::int64_t bytes = element_bytes(array.dtype());
  for (int i = array.ndim() - 1; i >= 0; --i) {
    strides[i] = bytes;
    bytes = checked_product(bytes, array.shape()[i]);
  }
  Reference copy(new_output(array.dtype(), array.ndim(), array.shape(), strides, bytes));
  auto* target = reinterpret_cast<PyArrayObject*>(copy.get());
  if (PyArray_CopyInto(target, array.get()) < 0) throw PythonError{};
  PyArray_CLEARFLAGS(target, NPY_ARRAY_WRITEABLE);
  return copy;
}

}  // namespace

LayerWeights::LayerWeights(const ArrayArgument& w, const ArrayArgument& bias) : w_(frozen_copy(w)) {
  if (bias) bias_ = frozen_copy(bias);
}

std::shared_ptr<const Packed> LayerWeights::packed_for(const Plan& plan) {
  if (!plan.kernel || plan.packing.id[0] == 0) return nullptr;
  for (const auto& made : packings_) {
    if (made->description.bytes == plan.packing.bytes &&
        std::strncmp(made->description.id, plan.packing.id, sizeof plan.packing.id) == 0) {
      return made;
    }
  }
  auto packed = std::make_shared<Packed>();
  packed->description = plan.packing;
  packed->block = Block(plan.packing.bytes);
  WeightView view = plan.weights;
  view.data = PyArray_DATA(reinterpret_cast<PyArrayObject*>(w_.get()));
  plan.kernel->pack(plan.problem, plan.parameters, view, packed->block.data(), plan.threads);
  packings_.push_back(packed);
  return packed;
}

void LayerWeights::prune() {
  packings_.erase(
      std::remove_if(packings_.begin(), packings_.end(), [](const auto& packed) { return packed.use_count() == 1; }),
      packings_.end());
}

std::int64_t LayerWeights::weight_bytes() const {
  const auto bytes = [](const Reference& array) {
    return array ? static_cast<std::int64_t>(PyArray_NBYTES(reinterpret_cast<PyArrayObject*>(array.get()))) : 0;
  };
  return bytes(w_) + bytes(bias_);
}

std::int64_t LayerWeights::packed_bytes() const {
  std::int64_t bytes = 0;
  for (const auto& packed : packings_) bytes += packed->block.bytes();
  return bytes;
}

}  // namespace convkit::bindings
