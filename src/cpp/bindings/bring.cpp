#include "bring.hpp"

#include <algorithm>
#include <cstring>

#include "../workspace.hpp"
#include "strided_copy.hpp"

namespace convkit::bindings {
namespace {

// Room in the arena, 64-byte aligned; returns its offset.
std::int64_t reserve(std::int64_t& arena, std::int64_t bytes) {
  const std::int64_t offset = arena;
  arena = checked_sum(arena, checked_sum(bytes, 63) / 64 * 64);
  return offset;
}

StridedCopy between(const Geometry& tensor, int element) {
  StridedCopy c{};
  c.element = element;
  std::copy_n(tensor.sizes, 4, c.sizes);
  return c;
}

}  // namespace

void Bring::reserve_tensor(const ArrayArgument& array, Layout declared, Layout wanted, std::int64_t& arena,
                           std::int64_t rows, std::int64_t columns, bool apart) {
  const int element = element_bytes(array.dtype());
  tensor = geometry(array, declared);
  const std::int64_t* own = tensor.sizes;
  const std::int64_t sizes[4] = {own[0], own[1], std::max(own[2], rows), std::max(own[3], columns)};
  const bool extended = sizes[2] != own[2] || sizes[3] != own[3];
  copied = extended || apart || array.misaligned() || !is_dense(tensor, wanted, element);
  if (!copied) return;
  std::int64_t bytes = element;
  for (const std::int64_t size : sizes) bytes = checked_product(bytes, size);
  dense_strides(sizes, wanted, element, dense);
  zeroed = extended ? bytes : 0;
  offset = reserve(arena, bytes);
}

void Bring::reserve_channels(const ArrayArgument& values, std::int64_t& arena) {
  const int element = element_bytes(values.dtype());
  const std::int64_t channels = values.shape()[0], stride = values.strides()[0];
  tensor = {{1, 1, 1, channels}, {0, 0, 0, stride}};
  copied = values.misaligned() || (channels > 1 && stride != element);
  if (!copied) return;
  dense_strides(tensor.sizes, Layout::nchw, element, dense);
  offset = reserve(arena, element * channels);
}

void Bring::reserve_number(std::int64_t channels, Dtype dtype, std::int64_t& arena) {
  tensor = {{1, 1, 1, channels}, {0, 0, 0, 0}};
  offset = reserve(arena, element_bytes(dtype) * channels);
}

const void* Bring::fill(double number, std::byte* arena, Dtype dtype) const {
  std::byte* const to = arena + offset;
  if (dtype == Dtype::f32) {
    std::fill_n(reinterpret_cast<float*>(to), tensor.sizes[3], static_cast<float>(number));
  } else {
    std::fill_n(reinterpret_cast<double*>(to), tensor.sizes[3], number);
  }
  return to;
}

WeightView Bring::reserve_weights(const ArrayArgument& w, bool any_strides, std::int64_t groups, bool apart,
                                  std::int64_t& arena) {
  const int element = element_bytes(w.dtype());
  bool whole_elements = true;
  for (int i = 0; i < 4; ++i) {
    tensor.sizes[i] = w.shape()[i];
    tensor.strides[i] = w.strides()[i];
    if (w.shape()[i] > 1 && w.strides()[i] % element != 0) whole_elements = false;
  }
  dense_strides(tensor.sizes, Layout::nchw, element, dense);
  copied = apart || w.misaligned() || !whole_elements || (!any_strides && !is_dense(tensor, Layout::nchw, element));
  // A stride that is never taken may be any number: the dense one keeps it a multiple of the element.
  std::int64_t strides[4];
  for (int i = 0; i < 4; ++i) {
    const bool taken = tensor.sizes[i] > 1 && !copied;
    strides[i] = (taken ? tensor.strides[i] : dense[i]) / element;
  }
  if (copied) offset = reserve(arena, dense[0] * tensor.sizes[0]);
  return {nullptr, strides[0], strides[1], strides[2], strides[3], tensor.sizes[0] / groups * strides[0]};
}

const char* Bring::copy_in(const char* data, std::byte* arena, int element, int threads) const {
  if (zeroed) std::memset(arena + offset, 0, static_cast<std::size_t>(zeroed));
  StridedCopy c = between(tensor, element);
  c.from = data;
  c.to = reinterpret_cast<char*>(arena + offset);
  std::copy_n(tensor.strides, 4, c.from_strides);
  std::copy_n(dense, 4, c.to_strides);
  copy(c, threads);
  return c.to;
}

void Bring::copy_out(char* data, std::byte* arena, int element, int threads) const {
  if (!copied) return;
  StridedCopy c = between(tensor, element);
  c.from = reinterpret_cast<const char*>(arena + offset);
  c.to = data;
  std::copy_n(dense, 4, c.from_strides);
  std::copy_n(tensor.strides, 4, c.to_strides);
  copy(c, threads);
}

}  // namespace convkit::bindings
