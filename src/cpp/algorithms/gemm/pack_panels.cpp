// Packing of panels, in the ways that weights lie in memory: all kernels with panels call it, so it is compiled once.
#include "algorithms/gemm/panels.hpp"
#include "microkernels/transpose_block.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

// Packs a panel of `outputs` outputs where only the taps of a filter lie together, as in the views of input gradients: there
// the last tap lies first. `from` points at what lies first in memory of the panel's first filter.
template <class T>
void pack_taps(const T* from, const WeightView& view, std::int64_t taps, bool rotated, std::int64_t channels,
               int outputs, T* out) {
  using V = Vec<T>;
  constexpr int line = 64 / static_cast<int>(sizeof(T));
  constexpr std::int64_t ahead = 6;  // channels, whose filters lie too far apart for the hardware to fetch
  const std::int64_t width = round_up(outputs, V::lanes), together = view.stride_o == taps ? outputs * taps : 0;
  for (std::int64_t c = 0; c < channels; ++c, from += view.stride_c) {
    for (std::int64_t at = 0; at < together; at += line) __builtin_prefetch(from + ahead * view.stride_c + at, 0, 3);
    for (std::int64_t o = 0; o < outputs; o += V::lanes) {
      const int valid = static_cast<int>(smaller<std::int64_t>(outputs - o, V::lanes));
      for (std::int64_t t = 0; t < taps; t += V::lanes) {
        const int count = static_cast<int>(smaller<std::int64_t>(taps - t, V::lanes));
        typename V::Reg r[V::lanes];
        CONVKIT_UNROLL
        for (int i = 0; i < V::lanes; ++i) {
          r[i] = i < valid ? V::load(from + (o + i) * view.stride_o + t, count) : V::zero();
        }
        V::transpose(r);
        CONVKIT_UNROLL
        for (int i = 0; i < V::lanes; ++i) {
          if (i < count) V::store(out + ((rotated ? taps - 1 - t - i : t + i) * channels + c) * width + o, r[i]);
        }
      }
    }
  }
}

// Packs one panel of one group. `w` points at the group's first weight.
template <class T>
void pack_panel(const ConvProblem& p, const T* w, const WeightView& view, std::int64_t panel, T* out) {
  using V = Vec<T>;
  const Panels<T> panels{p.o / p.groups};
  const std::int64_t channels = p.c / p.groups, taps = p.kh * p.kw, k = channels * taps;
  const int vectors = panels.vectors(panel), width = vectors * V::lanes;
  const bool dense = view.stride_kw == 1 && view.stride_kh == p.kw && view.stride_c == taps;
  if (view.stride_o == 1) {
    // A row of the panel lies together, as in views of HWIO arrays: rows outermost, so that reads run along memory.
    const int last = panels.tail(panel);
    for (std::int64_t kh = 0; kh < p.kh; ++kh) {
      for (std::int64_t kw = 0; kw < p.kw; ++kw) {
        const T* from = w + panel * Panels<T>::width + kh * view.stride_kh + kw * view.stride_kw;
        T* to = out + (kh * p.kw + kw) * channels * width;
        for (std::int64_t c = 0; c < channels; ++c, from += view.stride_c, to += width) {
          for (int j = 0; j < vectors - 1; ++j) V::store(to + j * V::lanes, V::load(from + j * V::lanes));
          const T* end = from + (vectors - 1) * V::lanes;
          V::store(to + (vectors - 1) * V::lanes, last == V::lanes ? V::load(end) : V::load(end, last));
        }
      }
    }
    return;
  }
  const bool rotated = view.stride_kw == -1 && view.stride_kh == -p.kw;
  if (taps > 1 && !dense && (rotated || (view.stride_kw == 1 && view.stride_kh == p.kw))) {
    pack_taps(w + panel * Panels<T>::width * view.stride_o - (rotated ? taps - 1 : 0), view, taps, rotated, channels,
              panels.valid(panel), out);
    return;
  }
  for (int j = 0; j < vectors; ++j) {
    const int valid = smaller(panels.valid(panel) - j * V::lanes, V::lanes);
    const T* first = w + (panel * Panels<T>::width + j * V::lanes) * view.stride_o;
    T* column = out + j * V::lanes;
    if (dense) {
      // Square blocks of outputs x (channel, tap), transposed in registers.
      for (std::int64_t q = 0; q < k; q += V::lanes) {
        const int count = static_cast<int>(smaller<std::int64_t>(k - q, V::lanes));
        typename V::Reg r[V::lanes];
        CONVKIT_UNROLL
        for (int i = 0; i < V::lanes; ++i) {
          r[i] = i >= valid          ? V::zero()
                 : count == V::lanes ? V::load(first + i * view.stride_o + q)
                                     : V::load(first + i * view.stride_o + q, count);
        }
        V::transpose(r);
        alignas(64) T block[V::lanes * V::lanes];
        CONVKIT_UNROLL
        for (int i = 0; i < V::lanes; ++i) V::store(block + i * V::lanes, r[i]);
        std::int64_t c = q / taps, t = q % taps;
        for (int i = 0; i < count; ++i) {
          V::store(column + (t * channels + c) * width, V::load(block + i * V::lanes));
          if (++t == taps) t = 0, ++c;
        }
      }
      continue;
    }
    for (std::int64_t kh = 0; kh < p.kh; ++kh) {
      for (std::int64_t kw = 0; kw < p.kw; ++kw) {
        for (std::int64_t c = 0; c < channels; ++c) {
          const T* from = first + kh * view.stride_kh + kw * view.stride_kw + c * view.stride_c;
          T* to = column + ((kh * p.kw + kw) * channels + c) * width;
          for (int i = 0; i < V::lanes; ++i) to[i] = i < valid ? from[i * view.stride_o] : T(0);
        }
      }
    }
  }
}

}  // namespace

template <class T>
void pack_panels(const ConvProblem& p, const Parameters&, const WeightView& view, void* out, int threads) {
  const Panels<T> panels{p.o / p.groups};
  const std::int64_t k = (p.c / p.groups) * p.kh * p.kw, count = panels.count();
  auto member = [&](int index, int size) {
    const Share mine = share(p.groups * count, index, size);
    for (std::int64_t item = mine.begin; item < mine.end; ++item) {
      const std::int64_t group = item / count, panel = item % count;
      pack_panel<T>(p, static_cast<const T*>(view.data) + group * view.stride_group, view, panel,
                    static_cast<T*>(out) + group * panels.padded() * k + panels.offset(panel, k));
    }
  };
  team(smaller<std::int64_t>(threads, larger<std::int64_t>(panels_bytes<T>(p) >> 16, 1)), member);
}

template void pack_panels<float>(const ConvProblem&, const Parameters&, const WeightView&, void*, int);
template void pack_panels<double>(const ConvProblem&, const Parameters&, const WeightView&, void*, int);

}  // namespace convkit::CONVKIT_ISA
