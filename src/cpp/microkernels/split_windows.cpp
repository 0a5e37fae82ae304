#include "microkernels/split_windows.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

using V = Vec<float>;

// The even rows of weights, the odd ones, their sums.
struct Halves {
  WindowWeights<float> even, odd, sum;

  Halves(const WindowWeights<float>& weights, float* to) {
    const std::int64_t width = weights.width, odd_rows = weights.height / 2, even_rows = weights.height - odd_rows;
    float *const first = to, *const second = first + even_rows * width, *const third = second + odd_rows * width;
    for (std::int64_t i = 0; i < even_rows; ++i) {
      for (std::int64_t k = 0; k < width; ++k) {
        const float a = weights.values[2 * i * width + k];
        const float b = i < odd_rows ? weights.values[(2 * i + 1) * width + k] : 0.0f;
        first[i * width + k] = a;
        if (i < odd_rows) second[i * width + k] = b;
        third[i * width + k] = a + b;
      }
    }
    even = {first, even_rows, width};
    odd = {second, odd_rows, width};
    sum = {third, even_rows, width};
  }
};

void add_lines(const float* a, const float* b, std::int64_t width, float* to) {
  for (std::int64_t i = 0; i < width; i += V::lanes) V::store(to + i, V::load(a + i) + V::load(b + i));
}

// Even and odd results from products of the even, the odd and the summed rows.
void merge(const float* even, const float* next, const float* odd, const float* both, std::int64_t width, float* first,
           float* second, bool stream) {
  for (std::int64_t i = 0; i < width; i += V::lanes) {
    const int count = static_cast<int>(smaller<std::int64_t>(width - i, V::lanes));
    const V::Reg u = V::load(odd + i), a = V::load(even + i) + u, b = V::load(both + i) - V::load(next + i) - u;
    if (count < V::lanes) {
      V::store(first + i, a, count);
      V::store(second + i, b, count);
    } else if (stream) {
      V::stream(first + i, a);
      V::stream(second + i, b);
    } else {
      V::store(first + i, a);
      V::store(second + i, b);
    }
  }
}

}  // namespace

void split_windows(const WindowWeights<float>& weights, const float* image, std::ptrdiff_t row,
                   const ResultLines<float>& out, float* halves, float* lines) {
  const Halves half(weights, halves);
  // A pair more would meet a row more than its results do.
  const int pairs = (out.count - 1) / 2;
  const std::int64_t pitch = split_pitch<float>(weights.width), summed = pairs + half.sum.height - 1;
  float *const sums = lines, *const even = sums + summed * pitch, *const odd = even + (pairs + 1) * pitch,
               *const both = odd + pairs * pitch;
  for (std::int64_t i = 0; pairs > 0 && i < out.width; i += split_columns) {
    const std::int64_t width = smaller(split_columns, out.width - i);
    const float* const x = image + i;
    for (std::int64_t r = 0; r < summed; ++r) {
      add_lines(x + (2 * r + 1) * row, x + (2 * r + 2) * row, width + weights.width - 1, sums + r * pitch);
    }
    sum_windows(half.even, x, 2 * row, {even, pitch, pairs + 1, width, false}, false);
    sum_windows(half.odd, x + row, 2 * row, {odd, pitch, pairs, width, false}, false);
    sum_windows(half.sum, sums, pitch, {both, pitch, pairs, width, false}, false);
    for (std::int64_t r = 0; r < pairs; ++r) {
      float* const to = out.first + 2 * r * out.pitch + i;
      merge(even + r * pitch, even + (r + 1) * pitch, odd + r * pitch, both + r * pitch, width, to, to + out.pitch,
            out.stream);
    }
  }
  const int done = 2 * pairs;
  sum_windows(weights, image + done * row, row,
              {out.first + done * out.pitch, out.pitch, out.count - done, out.width, out.stream}, false);
}

}  // namespace convkit::CONVKIT_ISA
