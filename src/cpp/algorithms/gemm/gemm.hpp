// The two products that convolution as GEMM comes down to, over the register tiles of microkernels/gemm_tile.hpp.
#pragma once
#include "algorithms/gemm/panels.hpp"
#include "microkernels/activation.hpp"
#include "microkernels/transpose_block.hpp"

namespace convkit::CONVKIT_ISA {

// An epilogue in the element type. Clamping is done in the tiles' stores, other activations on rows just stored.
template <class T>
struct Finish {
  const T* bias;
  const T* residual;
  T lo, hi;
  bool clamp;
  const Epilogue* after;  // null if nothing is left to do once the tile has stored, else what activate_rows does

  CONVKIT_INLINE explicit Finish(const Epilogue& e)
      : bias(static_cast<const T*>(e.bias)),
        residual(static_cast<const T*>(e.residual)),
        lo(static_cast<T>(e.lo)),
        hi(static_cast<T>(e.hi)),
        clamp(e.activation == Activation::clamp),
        after(outlasts_store(e) ? &e : nullptr) {}
};

// Which part of the reduction a product adds: the first starts from the bias and adds the residual (which may be y, so it is
// read before y is written), the last clamps.
struct ReductionPart {
  std::int64_t begin, k;  // of `total` weights an output
  std::int64_t total;
  CONVKIT_INLINE bool first() const { return begin == 0; }
  CONVKIT_INLINE bool last() const { return begin + k == total; }
};

// Calls tile(height, tiles, first row) for an even split of `rows`.
template <class Call>
CONVKIT_INLINE void for_row_tiles(std::int64_t rows, int most, const Call& call) {
  const RowSplit split = split_rows(rows, most);
  if (split.big) call(split.rows + 1, split.big, std::int64_t{0});
  if (split.small) call(split.rows, split.small, split.big * (split.rows + 1));
}

// y[r][o] (+)= sum_k a[r][k] * packed[o][k] for `rows` rows and the panels [first, last) of one group's outputs.
// y, bias and residual point at the group's first output; a at the part's first k.
template <class T>
void rows_product(std::int64_t rows, const ReductionPart& part, const T* a, std::ptrdiff_t lda, const T* packed,
                  const Panels<T>& panels, const Share& which, const Finish<T>& finish, T* y, const T* bias,
                  const T* residual, std::ptrdiff_t stride) {
  for (std::int64_t panel = which.begin; panel < which.end; ++panel) {
    const int nv = panels.vectors(panel);
    const std::int64_t o = panel * Panels<T>::width;
    const T* b = packed + panels.offset(panel, part.total) + part.begin * nv * Vec<T>::lanes;
    for_row_tiles(rows, TileShape<T>::rows(nv), [&](int height, std::int64_t count, std::int64_t row) CONVKIT_LAMBDA {
      const TileOut<T> out{y + row * stride + o,
                           stride,
                           bias ? bias + o : nullptr,
                           residual && part.first() ? residual + row * stride + o : nullptr,
                           finish.lo,
                           finish.hi,
                           panels.tail(panel),
                           !part.first(),
                           finish.clamp && part.last()};
      strided_tiles<T>(nv, height, count, part.k, a + row * lda, lda, 1, b, out);
    });
    if (finish.after && part.last()) activate_rows(y + o, rows, stride, panels.valid(panel), *finish.after);
  }
}

// y[o][p] (+)= sum_k a[o][k] * b[k][p] for outputs [first, last) and one panel of `pixels` pixels, at most
// TileShape<T>::panel. Rows of b are read no further than the last pixel.
template <class T>
void spread_product(const Share& outputs, const ReductionPart& part, const T* a, std::ptrdiff_t lda, const T* b,
                    std::ptrdiff_t ldb, bool padded, int pixels, const Finish<T>& finish, T* y, const T* bias,
                    const T* residual, std::ptrdiff_t stride) {
  using V = Vec<T>;
  const int nv = static_cast<int>(ceil_div(pixels, V::lanes)), tail = pixels - (nv - 1) * V::lanes;
  const bool whole = padded || tail == V::lanes;
  for_row_tiles(outputs.end - outputs.begin, TileShape<T>::rows(nv),
                [&](int height, std::int64_t count, std::int64_t row) CONVKIT_LAMBDA {
                  const std::int64_t o = outputs.begin + row;
                  const TileOut<T> out{y + o * stride,
                                       stride,
                                       bias ? bias + o : nullptr,
                                       residual && part.first() ? residual + o * stride : nullptr,
                                       finish.lo,
                                       finish.hi,
                                       tail,
                                       !part.first(),
                                       finish.clamp && part.last()};
                  spread_tiles<T>(nv, height, !whole, count, part.k, a + o * lda + part.begin, lda, b, ldb, out);
                });
  if (finish.after && part.last()) {
    activate_rows(y + outputs.begin * stride, outputs.end - outputs.begin, stride, pixels, *finish.after);
  }
}

// Transposes a scratch panel of `pixels` x `outputs` (rows `width` apart) to y (rows `stride` apart), adds the residual and
// applies what the tiles left of the epilogue: the clamp, if there is a residual, and activations.
template <class T>
void store_panel(const Finish<T>& finish, const T* scratch, int width, std::int64_t pixels, std::int64_t outputs, T* y,
                 const T* residual, std::ptrdiff_t stride) {
  if (!residual) {
    transpose_block(scratch, width, pixels, outputs, y, stride);
  } else {
    using V = Vec<T>;
    alignas(64) T block[V::lanes * V::lanes];
    const auto lo = V::set1(finish.lo), hi = V::set1(finish.hi);
    for (std::int64_t o = 0; o < outputs; o += V::lanes) {
      const std::int64_t columns = smaller<std::int64_t>(outputs - o, V::lanes);
      for (std::int64_t i = 0; i < pixels; i += V::lanes) {
        const int rows = static_cast<int>(smaller<std::int64_t>(pixels - i, V::lanes));
        transpose_block(scratch + i * width + o, width, rows, columns, block, V::lanes);
        for (std::int64_t j = 0; j < columns; ++j) {
          const std::ptrdiff_t at = (o + j) * stride + i;
          auto v = V::load(block + j * V::lanes, rows) + V::load(residual + at, rows);
          if (finish.clamp) v = V::min(hi, V::max(lo, v));
          V::store(y + at, v, rows);
        }
      }
    }
  }
  if (finish.after) activate_rows(y, outputs, stride, pixels, *finish.after);
}

// Pixels of one image as panels of at most TileShape::vectors vectors, as even as possible.
template <class T>
struct PixelPanels {
  std::int64_t pixels;
  RowSplit split;
  CONVKIT_INLINE explicit PixelPanels(std::int64_t pixels_)
      : pixels(pixels_), split(split_rows(ceil_div(pixels_, Vec<T>::lanes), TileShape<T>::vectors)) {}
  CONVKIT_INLINE std::int64_t count() const { return split.big + split.small; }
  CONVKIT_INLINE std::int64_t begin(std::int64_t panel) const {
    const std::int64_t vectors = panel * split.rows + smaller(panel, split.big);
    return smaller<std::int64_t>(vectors * Vec<T>::lanes, pixels);
  }
};

// Share of the FMA peak that a tile nv vectors wide reaches, for cost functions.
template <class T>
CONVKIT_INLINE double tile_efficiency(int nv) {
  constexpr double by_width[5] = {0, 0.60, 0.85, 0.94, 0.98};
  return by_width[nv + 4 - TileShape<T>::vectors];
}

}  // namespace convkit::CONVKIT_ISA
