#include "microkernels/dot_tile.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

// Rows and columns below the tile's are made up for by the last one that exists; what comes of it is not stored.
template <class T, int Rows, int Columns>
void dot_tile(int rows, int columns, std::int64_t k, const T* a, std::ptrdiff_t lda, const T* b, std::ptrdiff_t ldb,
              const TileOut<T>& out, std::int64_t row, std::int64_t column) {
  using V = Vec<T>;
  static_assert(Rows * Columns <= V::lanes);
  const T *from[Rows], *with[Columns];
  CONVKIT_UNROLL
  for (int i = 0; i < Rows; ++i) from[i] = a + smaller(i, rows - 1) * lda;
  CONVKIT_UNROLL
  for (int j = 0; j < Columns; ++j) with[j] = b + smaller(j, columns - 1) * ldb;
  typename V::Reg c[V::lanes];
  CONVKIT_UNROLL
  for (int i = 0; i < V::lanes; ++i) c[i] = V::zero();
  std::int64_t step = 0;
  for (; step + V::lanes <= k; step += V::lanes) {
    typename V::Reg bv[Columns];
    CONVKIT_UNROLL
    for (int j = 0; j < Columns; ++j) bv[j] = V::load(with[j] + step);
    CONVKIT_UNROLL
    for (int i = 0; i < Rows; ++i) {
      const auto av = V::load(from[i] + step);
      CONVKIT_UNROLL
      for (int j = 0; j < Columns; ++j) c[i * Columns + j] = av * bv[j] + c[i * Columns + j];
    }
  }
  if (step < k) {
    const int left = static_cast<int>(k - step);
    CONVKIT_UNROLL
    for (int i = 0; i < Rows; ++i) {
      const auto av = V::load(from[i] + step, left);
      CONVKIT_UNROLL
      for (int j = 0; j < Columns; ++j) {
        c[i * Columns + j] = av * V::load(with[j] + step, left) + c[i * Columns + j];
      }
    }
  }
  V::transpose(c);
  CONVKIT_UNROLL
  for (int half = V::lanes / 2; half > 0; half /= 2) {
    CONVKIT_UNROLL
    for (int i = 0; i < half; ++i) c[i] += c[i + half];
  }
  alignas(64) T sums[V::lanes];
  V::store(sums, c[0]);
  for (int i = 0; i < rows; ++i) {
    const T bias = out.bias ? out.bias[row + i] : T(0);
    for (int j = 0; j < columns; ++j) {
      const std::ptrdiff_t at = (row + i) * out.stride + column + j;
      T value = sums[i * Columns + j] + bias;
      if (out.residual) value += out.residual[at];
      if (out.clamp) {
        value = value < out.lo ? out.lo : value;
        value = value > out.hi ? out.hi : value;
      }
      out.y[at] = value;
    }
  }
}

template <class T, int Columns>
CONVKIT_INLINE void dot_columns(std::int64_t rows, int columns, std::int64_t k, const T* a, std::ptrdiff_t lda,
                                const T* b, std::ptrdiff_t ldb, const TileOut<T>& out, std::int64_t column) {
  // More rows than eight would push their pointers to the stack.
  constexpr int most = Vec<T>::lanes / Columns < 8 ? Vec<T>::lanes / Columns : 8;
  for (std::int64_t row = 0; row < rows; row += most) {
    dot_tile<T, most, Columns>(static_cast<int>(smaller<std::int64_t>(rows - row, most)), columns, k, a + row * lda,
                               lda, b, ldb, out, row, column);
  }
}

template <class T>
CONVKIT_INLINE void all_columns(std::int64_t rows, std::int64_t columns, std::int64_t k, const T* a, std::ptrdiff_t lda,
                                const T* b, std::ptrdiff_t ldb, const TileOut<T>& out) {
  constexpr int most = Vec<T>::lanes >= 16 ? 4 : Vec<T>::lanes >= 4 ? 2 : 1;
  for (std::int64_t column = 0; column < columns;) {
    const int left = static_cast<int>(smaller<std::int64_t>(columns - column, most));
    const T* const with = b + column * ldb;
    if (left == 1) {
      dot_columns<T, 1>(rows, 1, k, a, lda, with, ldb, out, column);
    } else if (left == 2) {
      dot_columns < T, most<2 ? 1 : 2>(rows, 2, k, a, lda, with, ldb, out, column);
    } else {
      dot_columns<T, most>(rows, left, k, a, lda, with, ldb, out, column);
    }
    column += left;
  }
}

}  // namespace

template <>
void dot_rows<float>(std::int64_t rows, std::int64_t columns, std::int64_t k, const float* a, std::ptrdiff_t lda,
                     const float* b, std::ptrdiff_t ldb, const TileOut<float>& out) {
  all_columns(rows, columns, k, a, lda, b, ldb, out);
}
template <>
void dot_rows<double>(std::int64_t rows, std::int64_t columns, std::int64_t k, const double* a, std::ptrdiff_t lda,
                      const double* b, std::ptrdiff_t ldb, const TileOut<double>& out) {
  all_columns(rows, columns, k, a, lda, b, ldb, out);
}

}  // namespace convkit::CONVKIT_ISA
