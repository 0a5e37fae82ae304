// Images whose channels lie side by side in one: what `join` and a layer's `joined` take.
#pragma once
#include "../inventory.hpp"
#include "arrays.hpp"

namespace convkit::bindings {

class PartsArgument {
 public:
  // From a sequence of arrays (N, H, W, C) that differ in C only, each with the channels of a pixel side by side and its pixels
  // at even places.
  explicit PartsArgument(PyObject* sequence);

  // What kernels read. Valid as long as this is.
  const Parts& parts() const { return parts_; }
  Dtype dtype() const { return arrays_[0].dtype(); }

  // A new array of all of them.
  Reference joined(int threads) const;
  // An array that has the shape, strides and dtype of all of them, and no memory of its own: not to be read.
  Reference frame() const;

 private:
  Reference items_;
  ArrayArgument arrays_[Parts::most];
  Parts parts_;
  npy_intp shape_[4];
};

}  // namespace convkit::bindings
