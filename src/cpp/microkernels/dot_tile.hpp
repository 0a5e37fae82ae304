// Products of rows with rows, lanes on the reduction: y[i][j] = sum over k of a[i][k] * b[j][k]. For the few pixels of a
// plane that fill no vector: the weights' rows are read as they are, and the pixels' channels lie together in a scratch.
//
// Register budget: at most `lanes` accumulators, which one square transpose turns into a vector of sums.
#pragma once
#include "microkernels/gemm_tile.hpp"

namespace convkit::CONVKIT_ISA {

// `rows` x `columns` sums of k products. `out.bias` is one value a row, `out.stride` leads from row to row; tail and
// accumulate are not read.
template <class T>
void dot_rows(std::int64_t rows, std::int64_t columns, std::int64_t k, const T* a, std::ptrdiff_t lda, const T* b,
              std::ptrdiff_t ldb, const TileOut<T>& out);
template <>
void dot_rows<float>(std::int64_t rows, std::int64_t columns, std::int64_t k, const float* a, std::ptrdiff_t lda,
                     const float* b, std::ptrdiff_t ldb, const TileOut<float>& out);
template <>
void dot_rows<double>(std::int64_t rows, std::int64_t columns, std::int64_t k, const double* a, std::ptrdiff_t lda,
                      const double* b, std::ptrdiff_t ldb, const TileOut<double>& out);

}  // namespace convkit::CONVKIT_ISA
