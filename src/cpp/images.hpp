// What stands between convolutions: pools, resizing, concatenation, moments, scaling, normalized rows. Not convolutions, so not in the
// inventory: one function each, with the instruction set in force, by a team of at most `threads`.
//
// All arrays are dense and aligned to their elements, double where `wide` says so, else float. Images lie as N, H, W, C.
// Results overlap nothing that is read, but `to` of ScaleShift may be its `from` or its `residual`.
#pragma once
#include "inventory.hpp"

namespace convkit {

// to[n][i][j][c]: the largest value under a window, NaN if there is one; or the sum times factor[0][i] * factor[1][j].
// What lies outside of the image does not count; a window without pixels has -Inf, or 0.
struct Pool {
  void* to;
  const void* from;
  bool wide;
  std::int64_t images, channels;
  std::int64_t in[2], out[2], kernel[2], stride[2], dilation[2], before[2];
  const void* factor[2];  // null: maxima
};

// The way back through the maxima of a pool: to, of the shape of pool.from, gets from each window `given` at the first
// pixel (row by row) that is not below the largest value, pool.to.
struct PoolGradient {
  Pool pool;
  const void* given;
  void* to;
};

// to[n][i][j][c] from rows low[0][i] and high[0][i] and columns low[1][j] and high[1][j], the higher one by `weight`;
// or from the lower ones alone.
struct Resample {
  void* to;
  const void* from;
  bool wide;
  std::int64_t images, channels;
  std::int64_t in[2], out[2];
  const std::int64_t* low[2];
  const std::int64_t* high[2];  // null: nearest
  const void* weight[2];
};

// Of from[outer][count][inner]: mean[outer][inner] over `count`, and the mean of squared differences from it if asked for.
struct Moments {
  void* mean;
  void* variance;  // or null
  const void* from;
  bool wide;
  std::int64_t outer, count, inner;
  // Rows are added up in `blocks`, whose sums are kept in sums[outer][blocks][inner]. `run` brings both along.
  std::int64_t blocks;
  void* sums;
};

// to = activation(from * scale + shift + residual): [outer][count][inner], factors [outer][inner].
struct ScaleShift {
  void* to;
  const void* from;
  bool wide;
  std::int64_t outer, count, inner;
  const void *scale, *shift, *residual;  // each may be null
  Activation activation;
  double lo, hi;
};

// The way back through ScaleShift with a clamp. g is `given`, the gradient of its result, and 0 where from * scale + shift
// is at or beyond `lo` or `hi`. Arrays and factors as there; `to` may be `given`. It makes either
//   total[outer][inner], the sums of g over `count`, and along, those of g * (from - centre), or
//   to = g * given_factor + from * from_factor + summand.
struct ScaleGradient {
  const void *given, *from;
  bool wide;
  std::int64_t outer, count, inner;
  const void *scale, *shift;  // each may be null
  double lo, hi;
  void *total, *along;  // null: the combination is asked for
  const void* centre;
  void* to;
  const void *given_factor, *from_factor, *summand;  // each may be null
};

// Each row of from[rows][length]: softmax, or (row - mean) / sqrt(variance + epsilon) * weight + bias.
struct Rows {
  void* to;
  const void* from;
  bool wide;
  std::int64_t rows, length;
  bool softmax;
  const void *weight, *bias;  // `length` values, or null
  double epsilon;
};

// to[pixel] is one run of channels after the other.
struct Join {
  void* to;
  bool wide;
  std::int64_t pixels, channels;  // of the result
  Parts from;
};

void run(const Join& what, int threads);
void run(const Pool& what, int threads);
void run(const PoolGradient& what, int threads);
void run(const Resample& what, int threads);
void run(const Moments& what, int threads);
void run(const ScaleShift& what, int threads);
void run(const ScaleGradient& what, int threads);
void run(const Rows& what, int threads);

}  // namespace convkit
