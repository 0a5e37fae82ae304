#include "layer_weights.hpp"

#include <pthread.h>

#include <algorithm>
#include <cstring>
#include <iterator>

#include "../cpu/subnormals.hpp"
#include "filter_scale.hpp"
#include "gil.hpp"
#include "infinite_weights.hpp"
#include "outputs.hpp"
#include "strided_copy.hpp"

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

  void before_fork() { pthread_mutex_lock(&mutex_); }
  void after_fork() { pthread_mutex_unlock(&mutex_); }
  // The waiting threads stayed in the parent.
  void begin_child() {
    mutex_ = PTHREAD_MUTEX_INITIALIZER;
    finished_ = PTHREAD_COND_INITIALIZER;
    ++forks;
  }

 private:
  pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t finished_ = PTHREAD_COND_INITIALIZER;
};

Making& making() {
  static auto* const instance = new Making;
  return *instance;
}

const int fork_guard =
    pthread_atfork([] { making().before_fork(); }, [] { making().after_fork(); }, [] { making().begin_child(); });

void* data_of(PyObject* array) { return PyArray_DATA(reinterpret_cast<PyArrayObject*>(array)); }

// Whether kernels that take weights of any strides can read these.
bool has_whole_strides(const ArrayArgument& w) {
  for (int i = 0; i < w.ndim(); ++i) {
    if (w.shape()[i] > 1 && w.strides()[i] % element_bytes(w.dtype()) != 0) return false;
  }
  return !w.misaligned();
}

WeightView dense_weights(const ConvProblem& p, const void* data) {
  const std::int64_t taps = p.kh * p.kw, filter = p.c / p.groups * taps;
  return {data, filter, taps, p.kw, 1, p.o / p.groups * filter};
}

std::shared_ptr<const Packed> waited_for(const std::shared_ptr<Packed>& packed) {
  if (!packed->ready) {
    const ReleasedGil released;
    making().wait_for(*packed);
  }
  return packed;
}

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

LayerWeights::LayerWeights(const ArrayArgument& w, ChannelValues values, const Options& options, bool borrow)
    : values_(std::move(values)) {
  filters_.op = options.op;
  filters_.dtype = w.dtype();
  filters_.groups = options.groups;
  filters_.o = w.shape()[0];
  filters_.c = w.shape()[1] * options.groups;
  filters_.kh = w.shape()[2];
  filters_.kw = w.shape()[3];
  borrow = borrow && has_whole_strides(w);
  Reference copy;
  if (!borrow || weight_scale()) {
    copy = frozen_copy(w);
    if (weight_scale()) scale_filters(filters_, data_of(weight_scale()), data_of(copy.get()), 1);
  }
  finite_ = copy ? all_finite(ArrayArgument(copy.get(), "w")) : all_finite(w);
  // Where the padding may have to be multiplied by what is not finite, that has to be there.
  borrowed_ = borrow && (finite_ || !weight_scale());
  w_ = borrowed_ ? Reference::borrow(reinterpret_cast<PyObject*>(w.get())) : std::move(copy);
  if (!borrowed_) values_.weight_scale = Reference();
  dense_ = PyArray_IS_C_CONTIGUOUS(reinterpret_cast<PyArrayObject*>(w_.get()));
}

std::shared_ptr<Packed> LayerWeights::find(const Packing& description) {
  const Guard guard(this);
  return find_guarded(description);
}

std::shared_ptr<Packed> LayerWeights::find_guarded(const Packing& description) {
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
  if (!plan.kernel || !plan.problem.packed) return nullptr;
  const bool reads_dense = plan.packing.id[0] == 0;
  if (reads_dense && dense_ && !weight_scale()) return nullptr;
  const std::int64_t dense_bytes = PyArray_NBYTES(reinterpret_cast<PyArrayObject*>(w_.get()));
  const Packing description = reads_dense ? Packing{"", dense_bytes} : plan.packing;
  if (const auto found = find(description)) return waited_for(found);
  auto packed = std::make_shared<Packed>();
  packed->description = description;
  packed->block = Block(description.bytes);
  packed->made_in = making().forks;
  Block scaled;  // only while it is packed
  if (weight_scale() && !reads_dense) scaled = Block(dense_bytes);
  if (const auto found = add(packed)) return waited_for(found);
  {
    const ReleasedGil released(description.bytes >= least_bytes_without_gil);
    const FlushedSubnormals flushed(true);  // transforms do; where accuracy is strict, packing only moves
    if (reads_dense) {
      copy_dense(packed->block.data(), plan.threads);
    } else {
      WeightView view = plan.weights;
      view.data = data_of(w_.get());
      if (scaled.data()) {
        copy_dense(scaled.data(), plan.threads);
        view = dense_weights(filters_, scaled.data());
      }
      plan.kernel->pack(plan.problem, plan.parameters, view, packed->block.data(), plan.threads);
    }
    making().finish(*packed);
  }
  return packed;
}

void LayerWeights::copy_dense(std::byte* to, int threads) const {
  auto* const w = reinterpret_cast<PyArrayObject*>(w_.get());
  StridedCopy c{};
  c.element = element_bytes(filters_.dtype);
  c.from = PyArray_BYTES(w);
  c.to = reinterpret_cast<char*>(to);
  std::copy_n(PyArray_DIMS(w), 4, c.sizes);
  std::copy_n(PyArray_STRIDES(w), 4, c.from_strides);
  dense_strides(c.sizes, Layout::nchw, c.element, c.to_strides);
  copy(c, threads);
  if (weight_scale()) scale_filters(filters_, data_of(weight_scale()), to, threads);
}

std::shared_ptr<Packed> LayerWeights::add(const std::shared_ptr<Packed>& packed) {
  const Guard guard(this);
  auto found = find_guarded(packed->description);
  if (!found) packings_.push_back(packed);
  return found;
}

void LayerWeights::prune() {
  std::vector<std::shared_ptr<Packed>> dropped;
  const Guard guard(this);
  const auto held = [](const auto& packed) { return packed.use_count() > 1; };
  const auto first = std::stable_partition(packings_.begin(), packings_.end(), held);
  dropped.assign(std::make_move_iterator(first), std::make_move_iterator(packings_.end()));
  packings_.erase(first, packings_.end());
}

std::int64_t LayerWeights::weight_bytes() const {
  const auto bytes = [](const Reference& array) {
    return array ? static_cast<std::int64_t>(PyArray_NBYTES(reinterpret_cast<PyArrayObject*>(array.get()))) : 0;
  };
  return (borrowed_ ? 0 : bytes(w_)) + bytes(values_.bias) + bytes(values_.weight_scale) + bytes(values_.scale) +
         bytes(values_.shift);
}

std::int64_t LayerWeights::packed_bytes() const {
  const Guard guard(this);
  std::int64_t bytes = 0;
  for (const auto& packed : packings_) bytes += packed->block.bytes();
  return bytes;
}

}  // namespace convkit::bindings
