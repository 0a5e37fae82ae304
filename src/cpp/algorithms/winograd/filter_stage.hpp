// From w to U: one panel of outputs and a range of channels, for weights with any strides.
//
//   U  [point][channels][panel]
//
// A vector of outputs is gathered as [channel][tap][lanes] in L1, by register transposes where each output's taps lie
// together (OIHW) and by plain loads where outputs do (HWIO).
#pragma once
#include "algorithms/sharing.hpp"
#include "microkernels/winograd_transforms.hpp"

namespace convkit::CONVKIT_ISA {

template <class T>
struct FilterStage {
  using V = Vec<T>;
  static constexpr int lanes = V::lanes;

  const WinogradTile<T>& tile;
  WeightView w;       // at the first output of the group
  std::int64_t o, c;  // of one group
  T* scratch;
  std::int64_t rows = tile.ry, columns = tile.rx;  // of taps that w has; those missing are zeros

  static std::int64_t scratch_elements(const WinogradTile<T>& tile) {
    return static_cast<std::int64_t>(tile.ry) * tile.rx * lanes * lanes;
  }

  // Channels [c_begin, c_end) of the panel that starts at output `o_begin`.
  void run(std::int64_t o_begin, int vectors, std::int64_t c_begin, std::int64_t c_end, T* u,
           std::ptrdiff_t point_stride) const {
    const std::int64_t taps = tile.ry * tile.rx;
    const int panel = vectors * lanes;
    for (std::int64_t channel = c_begin; channel < c_end; channel += lanes) {
      const std::int64_t channels = smaller<std::int64_t>(lanes, c_end - channel);
      for (int v = 0; v < vectors; ++v) {
        gather(o_begin + v * lanes, channel, channels);
        const bool last = v + 1 == vectors;
        const Ahead ahead(*this, o_begin + (last ? 0 : v + 1) * lanes, last ? channel + lanes : channel, c_end);
        T* const to = u + (channel - c_begin) * panel + v * lanes;
        for (std::int64_t k = 0; k < channels; k += piece) {
          ahead.fetch(k);
          tile.filter({scratch + k * taps * lanes, taps * lanes, to + k * panel, point_stride, panel,
                       smaller<std::int64_t>(piece, channels - k)});
        }
      }
    }
  }

 private:
  // As in the views of input gradients: the last tap lies first.
  CONVKIT_INLINE bool rotated() const { return w.stride_kw == -1 && w.stride_kh == -tile.rx; }

  static constexpr std::int64_t piece = 4;  // filters between two fetches

  // The weights of the block that is gathered next, where each output's or each channel's lie together: rows too far apart
  // and too short for the hardware to fetch in time. A piece of the rows at a time, between transforms.
  struct Ahead {
    const char* from = nullptr;
    std::ptrdiff_t row;
    std::int64_t rows, bytes;

    CONVKIT_INLINE Ahead(const FilterStage& s, std::int64_t output, std::int64_t channel, std::int64_t c_end) {
      const std::int64_t taps = s.tile.ry * s.tile.rx;
      if (channel >= c_end || output >= s.o || (s.w.stride_c != taps && s.w.stride_o != taps)) return;
      constexpr std::int64_t element = sizeof(T);
      const std::int64_t outputs = smaller<std::int64_t>(lanes, s.o - output),
                         channels = smaller<std::int64_t>(lanes, c_end - channel);
      const bool by_output = s.w.stride_c == taps;
      from = static_cast<const char*>(s.w.data) +
             (output * s.w.stride_o + channel * s.w.stride_c - (s.rotated() ? taps - 1 : 0)) * element;
      row = (by_output ? s.w.stride_o : s.w.stride_c) * element;
      rows = by_output ? outputs : channels;
      bytes = (by_output ? channels : outputs) * taps * element;
    }
    CONVKIT_INLINE void fetch(std::int64_t first) const {
      if (!from) return;
      for (std::int64_t i = first; i < smaller(first + piece, rows); ++i) {
        for (std::int64_t at = 0; at < bytes + 64; at += 64) __builtin_prefetch(from + i * row + at, 0, 2);
      }
    }
  };

  void gather(std::int64_t output, std::int64_t channel, std::int64_t channels) const {
    const int outputs = static_cast<int>(smaller<std::int64_t>(lanes, o - output));
    const std::int64_t taps = tile.ry * tile.rx;
    const T* const from = static_cast<const T*>(w.data) + output * w.stride_o + channel * w.stride_c;
    const bool whole = rows == tile.ry && columns == tile.rx;
    if (whole && w.stride_kw == 1 && w.stride_kh == tile.rx && w.stride_c == taps) {
      gather_rows(from, outputs, channels * taps);
      return;
    }
    if (whole && (rotated() || (w.stride_kw == 1 && w.stride_kh == tile.rx))) {
      if (rotated()) {
        gather_filters<true>(from - (taps - 1), outputs, channels, taps);
      } else {
        gather_filters<false>(from, outputs, channels, taps);
      }
      return;
    }
    T* out = scratch;
    for (std::int64_t k = 0; k < channels; ++k) {
      for (int i = 0; i < tile.ry; ++i) {
        for (int j = 0; j < tile.rx; ++j, out += lanes) {
          const T* const in = from + k * w.stride_c + i * w.stride_kh + j * w.stride_kw;
          if (i >= rows || j >= columns) {
            V::store(out, V::zero());
          } else if (w.stride_o == 1) {
            V::store(out, V::load(in, outputs));
          } else {
            for (int l = 0; l < lanes; ++l) out[l] = l < outputs ? in[l * w.stride_o] : T(0);
          }
        }
      }
    }
  }

  // Where only the taps of a filter lie together. 3x3 has code of its own: the transpose drops what it need not move.
  template <bool Rotated>
  void gather_filters(const T* from, int outputs, std::int64_t channels, std::int64_t taps) const {
    for (std::int64_t k = 0; k < channels; ++k, from += w.stride_c) {
      T* const out = scratch + k * taps * lanes;
      if (taps == 9 && outputs == lanes) {
        gather_taps<Rotated>(from, lanes, 9, out);
      } else {
        gather_taps<Rotated>(from, outputs, taps, out);
      }
    }
  }

  template <bool Rotated>
  CONVKIT_INLINE void gather_taps(const T* from, int outputs, std::int64_t taps, T* out) const {
    for (std::int64_t t = 0; t < taps; t += lanes) {
      typename V::Reg r[lanes];
      const int n = static_cast<int>(smaller<std::int64_t>(lanes, taps - t));
      CONVKIT_UNROLL
      for (int l = 0; l < lanes; ++l) r[l] = l < outputs ? V::load(from + t + l * w.stride_o, n) : V::zero();
      V::transpose(r);
      CONVKIT_UNROLL
      for (int l = 0; l < lanes; ++l) {
        if (l < n) V::store(out + (Rotated ? taps - 1 - t - l : t + l) * lanes, r[l]);
      }
    }
  }

  void gather_rows(const T* from, int outputs, std::int64_t count) const {
    for (std::int64_t k = 0; k < count; k += lanes) {
      typename V::Reg r[lanes];
      const int n = static_cast<int>(smaller<std::int64_t>(lanes, count - k));
      if (outputs == lanes && n == lanes) {
        CONVKIT_UNROLL
        for (int l = 0; l < lanes; ++l) r[l] = V::load(from + k + l * w.stride_o);
      } else {
        for (int l = 0; l < lanes; ++l) r[l] = l < outputs ? V::load(from + k + l * w.stride_o, n) : V::zero();
      }
      V::transpose(r);
      CONVKIT_UNROLL
      for (int l = 0; l < lanes; ++l) V::store(scratch + (k + l) * lanes, r[l]);
    }
  }
};

}  // namespace convkit::CONVKIT_ISA
