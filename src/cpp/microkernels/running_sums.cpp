#include "microkernels/running_sums.hpp"

namespace convkit::CONVKIT_ISA {

namespace {
using V = Vec<double>;
}

void begin_sums(const double* const* lines, std::int64_t size, std::int64_t width, double* sums) {
  for (std::int64_t i = 0; i < width; i += V::lanes) {
    const int count = static_cast<int>(smaller<std::int64_t>(width - i, V::lanes));
    V::Reg sum = V::zero();
    for (std::int64_t k = 0; k < size; ++k) sum += V::load(lines[k] + i, count);
    V::store(sums + i, sum, count);
  }
}

void mean_lines(const double* const* lines, std::int64_t size, double* sums, const ResultLines<double>& out) {
  const V::Reg divisor = V::set1(static_cast<double>(size));
  double* const to = out.first;
  const std::ptrdiff_t pitch = out.pitch;
  std::int64_t i = 0;
  for (; i + V::lanes <= out.width; i += V::lanes) {
    V::Reg sum = V::load(sums + i);
    for (int r = 0; r < out.count; ++r) {
      const V::Reg mean = sum / divisor;
      if (out.stream) {
        V::stream(to + r * pitch + i, mean);
      } else {
        V::store(to + r * pitch + i, mean);
      }
      sum += V::load(lines[size + r] + i) - V::load(lines[r] + i);
    }
    V::store(sums + i, sum);
  }
  if (i < out.width) {
    const int count = static_cast<int>(out.width - i);
    V::Reg sum = V::load(sums + i, count);
    for (int r = 0; r < out.count; ++r) {
      V::store(to + r * pitch + i, sum / divisor, count);
      sum += V::load(lines[size + r] + i, count) - V::load(lines[r] + i, count);
    }
    V::store(sums + i, sum, count);
  }
}

void mean_columns(const double* columns, std::int64_t size, std::int64_t count, double* const* out, bool stream) {
  constexpr int n = V::lanes;
  const V::Reg divisor = V::set1(static_cast<double>(size));
  const double* const entering = columns + size * n;
  V::Reg sum = V::zero();
  for (std::int64_t k = 0; k < size; ++k) sum += V::load(columns + k * n);
  for (std::int64_t i = 0; i < count; i += n) {
    const int wide = static_cast<int>(smaller<std::int64_t>(count - i, n));
    V::Reg a[n];
    CONVKIT_UNROLL
    for (int q = 0; q < n; ++q) {
      a[q] = sum / divisor;
      if (q < wide) sum += V::load(entering + (i + q) * n) - V::load(columns + (i + q) * n);
    }
    V::transpose(a);
    CONVKIT_UNROLL
    for (int q = 0; q < n; ++q) {
      if (wide < n) {
        V::store(out[q] + i, a[q], wide);
      } else if (stream) {
        V::stream(out[q] + i, a[q]);
      } else {
        V::store(out[q] + i, a[q]);
      }
    }
  }
}

void mean_along(const double* line, std::int64_t size, std::int64_t count, double* out) {
  const double divisor = static_cast<double>(size);
  double sum = 0;
  for (std::int64_t k = 0; k < size; ++k) sum += line[k];
  for (std::int64_t i = 0; i < count; ++i) {
    out[i] = sum / divisor;
    sum += line[i + size] - line[i];
  }
}

}  // namespace convkit::CONVKIT_ISA
