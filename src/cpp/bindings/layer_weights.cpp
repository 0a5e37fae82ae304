#include "layer_weights.hpp"

#include <pthread.h>

#include <algorithm>
#include <cstring>

#include "../cpu/subnormals.hpp"
#include "gil.hpp"
#include "infinite_weights.hpp"
#include "outputs.hpp"

namespace convkit::bindings {
namespace {

constexpr std::int64_t least_bytes_without_gil = std::int64_t{1} << 17;  // as long as giving it up and taking it back

// Who waits for packings that other threads make. One for the process: it is seldom used, and a fork has one lock to hold.
class Making {
 public:
  long forks = 0;  // between this process and the one that loaded the module

  void wait_for(const Packed& packed) {
    pthread_mutex_lock(&mutex_);
    while (!packed.ready) pthread_cond_wait(&finished_, &mutex_);
    pthread_mutex_unlock(&mutex_);
  }
  void finish(Packed& packed) {
    pthread_mutex_lock(&mutex_);
    packed.ready = true;
    pthread_cond_broadcast(&finished_);
    pthread_mutex_unlock(&mutex_);
  }

  static Making& instance() {
    static Making* const made = [] {
      pthread_atfork([] { pthread_mutex_lock(&instance().mutex_); }, [] { pthread_mutex_unlock(&instance().mutex_); },
                     [] { instance().begin_child(); });
      return new Making;
    }();
    return *made;
  }

 private:
  // The waiting threads stayed in the parent.
  void begin_child() {
    mutex_ = PTHREAD_MUTEX_INITIALIZER;
    finished_ = PTHREAD_COND_INITIALIZER;
    ++forks;
  }

  pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t finished_ = PTHREAD_COND_INITIALIZER;
};

Making& making() { return Making::instance(); }

}  // namespace

Reference frozen_copy(const ArrayArgument& array) {
  if (!array) return Reference();
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

Reference frozen_values(const Factor& factor, const ArrayArgument& array, Dtype dtype, npy_intp channels) {
  if (factor.kind != Factor::number) return frozen_copy(array);
  const npy_intp stride = element_bytes(dtype);
  Reference values(new_output(dtype, 1, &channels, &stride, channels * stride));
  auto* target = reinterpret_cast<PyArrayObject*>(values.get());
  const Reference number(checked(PyFloat_FromDouble(factor.value)));
  if (PyArray_FillWithScalar(target, number.get()) < 0) throw PythonError{};
  PyArray_CLEARFLAGS(target, NPY_ARRAY_WRITEABLE);
  return values;
}

LayerWeights::LayerWeights(Reference w, Reference bias, Reference scale, Reference shift)
    : w_(std::move(w)),
      bias_(std::move(bias)),
      scale_(std::move(scale)),
      shift_(std::move(shift)),
      finite_(all_finite(ArrayArgument(w_.get(), "w"))) {}

std::shared_ptr<Packed> LayerWeights::find(const Packing& description) {
  for (auto made = packings_.begin(); made != packings_.end(); ++made) {
    const Packing& its = (*made)->description;
    if (its.bytes != description.bytes || std::strncmp(its.id, description.id, sizeof its.id) != 0) continue;
    if ((*made)->ready || (*made)->made_in == making().forks) return *made;
    packings_.erase(made);  // its maker was a thread of the parent process
    break;
  }
  return nullptr;
}

std::shared_ptr<const Packed> LayerWeights::packed_for(const Plan& plan) {
  if (!plan.kernel || plan.packing.id[0] == 0) return nullptr;
  if (const auto found = find(plan.packing)) {
    if (!found->ready) {
      const ReleasedGil released;
      making().wait_for(*found);
    }
    return found;
  }
  auto packed = std::make_shared<Packed>();
  packed->description = plan.packing;
  packed->block = Block(plan.packing.bytes);
  packed->made_in = making().forks;
  packings_.push_back(packed);
  WeightView view = plan.weights;
  view.data = PyArray_DATA(reinterpret_cast<PyArrayObject*>(w_.get()));
  {
    const ReleasedGil released(plan.packing.bytes >= least_bytes_without_gil);
    const FlushedSubnormals flushed(true);  // transforms do; where accuracy is strict, packing only moves
    plan.kernel->pack(plan.problem, plan.parameters, view, packed->block.data(), plan.threads);
    making().finish(*packed);
  }
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
  return bytes(w_) + bytes(bias_) + bytes(scale_) + bytes(shift_);
}

std::int64_t LayerWeights::packed_bytes() const {
  std::int64_t bytes = 0;
  for (const auto& packed : packings_) bytes += packed->block.bytes();
  return bytes;
}

}  // namespace convkit::bindings
