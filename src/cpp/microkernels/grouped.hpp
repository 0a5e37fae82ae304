// Grouped 3x3 windows, NHWC, as many outputs as channels a group: lanes on outputs, several groups in a vector.
//
// A vector of channels serves the same lanes of outputs, but each output needs all channels of its group: permutes inside
// the vector bring channel c of every group to the lanes of that group, one permute for all taps that the vector meets.
// Otherwise as slide_columns of depthwise_columns.hpp, with one more loop.
//
// Register budget: Rows * live accumulators, the permuted input rows, one vector of weights and one of indices.
#pragma once
#include "microkernels/sliding.hpp"

namespace convkit::CONVKIT_ISA {

template <class T>
struct GroupsIn {
  const T* x;                  // first step that exists of input row 0
  std::ptrdiff_t row, column;  // from input row to input row, from step to step
  int rows_begin, rows_end;    // input rows that exist
  std::int64_t before, existing;
  const T* w;                 // [group][3][3][lanes]
  const T* bias;              // [lanes]
  std::ptrdiff_t bias_step;   // to the next block's
  int group;                  // channels of a group
  const std::int32_t* index;  // [group][lanes]: which lane of x each output meets
};

template <class T, int S, int Rows, bool Whole>
CONVKIT_INLINE void slide_group_block(const GroupsIn<T>& source, std::int64_t outputs, const SlideOut<T>& sink) {
  using V = Vec<T>;
  using Reg = typename V::Reg;
  constexpr int K = 3, live = Window<K, S>::live, rows = Rows * S + K - S;
  const Reg bias = V::load(source.bias);
  Reg a[live][Rows];
  CONVKIT_UNROLL
  for (int t = 0; t < live; ++t) {
    CONVKIT_UNROLL
    for (int r = 0; r < Rows; ++r) a[t][r] = bias;
  }
  const auto feed = [&](auto phase, std::int64_t step) CONVKIT_LAMBDA {
    const T* const p = source.x + step * source.column;
    const T* w = source.w;
    for (int c = 0; c < source.group; ++c, w += K * K * V::lanes) {
      const auto index = V::index(source.index + c * V::lanes);
      Reg x[rows];
      CONVKIT_UNROLL
      for (int i = 0; i < rows; ++i) {
        const bool exists = Whole || (i >= source.rows_begin && i < source.rows_end);
        x[i] = exists ? V::permute(V::load(p + i * source.row), index) : V::zero();
      }
      CONVKIT_UNROLL
      for (int ky = 0; ky < K; ++ky) {
        CONVKIT_UNROLL
        for (int t = 0; t < live; ++t) {
          constexpr int p_ = decltype(phase)::value;
          const int kx = tap_of<K, S>(p_, t);
          if (kx < 0) continue;
          const Reg weight = V::load(w + (ky * K + kx) * V::lanes);
          CONVKIT_UNROLL
          for (int r = 0; r < Rows; ++r) a[t][r] = x[r * S + ky] * weight + a[t][r];
        }
      }
    }
  };
  const auto emit = [&](std::int64_t o) CONVKIT_LAMBDA {
    if (o >= 0) finish<T, Rows, false>(a[0], sink, o * sink.column, sink.row);
    CONVKIT_UNROLL
    for (int r = 0; r < Rows; ++r) {
      CONVKIT_UNROLL
      for (int t = 0; t < live - 1; ++t) a[t][r] = a[t + 1][r];
      a[live - 1][r] = bias;
    }
  };
  slide<K, S>(outputs, source.before, source.existing, feed, emit);
}

template <class T, int S, int Rows, bool Whole>
void slide_groups(std::int64_t blocks, const GroupsIn<T>& in, std::int64_t outputs, const SlideOut<T>& out) {
  GroupsIn<T> source = in;
  SlideOut<T> sink = out;
  for (; blocks > 0; --blocks) {
    slide_group_block<T, S, Rows, Whole>(source, outputs, sink);
    source.x += Vec<T>::lanes;
    source.w += source.group * 9 * Vec<T>::lanes;
    source.bias += source.bias_step;
    sink.y += Vec<T>::lanes;
    if (sink.residual) sink.residual += Vec<T>::lanes;
  }
}

}  // namespace convkit::CONVKIT_ISA
