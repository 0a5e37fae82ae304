// How an operand gets into the form that the kernel reads: as it is, or through a dense copy in the call's arena. Room for
// the copy is reserved when the call is planned (`arena` counts the bytes so far); the copy is made when it runs.
#pragma once
#include <cstddef>
#include <cstdint>

#include "../inventory.hpp"
#include "arrays.hpp"

namespace convkit::bindings {

struct Bring {
  bool copied = false;
  std::int64_t offset = 0;  // in the arena
  std::int64_t zeroed = 0;  // bytes of the copy, where it is larger than the tensor and holds zeros beyond it
  Geometry tensor;          // as the caller holds it, in N,C,H,W order (O,C,KH,KW; O alone for values of channels)
  std::int64_t dense[4];    // byte strides of the copy

  // `wanted`: how the kernel reads or writes it; `rows` and `columns`: how many it reads, where that is more than the array
  // has; `apart`: it may not stay where it is.
  void reserve_tensor(const ArrayArgument& array, Layout declared, Layout wanted, std::int64_t& arena,
                      std::int64_t rows = 0, std::int64_t columns = 0, bool apart = false);
  // A value for each channel: a bias, or a factor.
  void reserve_channels(const ArrayArgument& values, std::int64_t& arena);
  // The same where a number stands for all: fill() writes it.
  void reserve_number(std::int64_t channels, Dtype dtype, std::int64_t& arena);
  // Returns the strides that the kernel reads the weights by. `any_strides`: whether it takes them as they are; `apart`: they
  // may not stay where they are.
  WeightView reserve_weights(const ArrayArgument& w, bool any_strides, std::int64_t groups, bool apart,
                             std::int64_t& arena);

  // The operand where the kernel can read it.
  const char* in(const char* data, std::byte* arena, int element, int threads) const {
    return copied ? copy_in(data, arena, element, threads) : data;
  }
  const void* fill(double number, std::byte* arena, Dtype dtype) const;
  // Where the kernel writes the result; copy_out() then brings it to the caller's array.
  char* out(char* data, std::byte* arena) const { return copied ? reinterpret_cast<char*>(arena + offset) : data; }
  void copy_out(char* data, std::byte* arena, int element, int threads) const;

 private:
  const char* copy_in(const char* data, std::byte* arena, int element, int threads) const;
};

}  // namespace convkit::bindings
