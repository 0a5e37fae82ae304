// The input gradient of a convolution with stride 1 is a forward convolution of dy: inputs and outputs change places, the
// filter is rotated by 180 degrees, and a pad becomes dilation * (k - 1) - pad. No arithmetic changes, only packing does. So
// a file's table of forward kernels yields its input_grad kernels: WithAdjoints<kernels>::table holds both.
#pragma once
#include "algorithms/entries.hpp"
#include "algorithms/gemm/columns.hpp"
#include "microkernels/transpose_block.hpp"

namespace convkit::CONVKIT_ISA {

// The forward convolution that takes dy to dx, as far as packing goes: any stride has one.
CONVKIT_INLINE ConvProblem adjoint_filter(const ConvProblem& p) {
  ConvProblem q = p;
  q.op = Op::forward;
  q.c = p.o, q.o = p.c;
  return q;
}

// The whole forward convolution. Meaningful where has_adjoint.
CONVKIT_INLINE ConvProblem adjoint_problem(const ConvProblem& p) {
  ConvProblem q = adjoint_filter(p);
  const std::int64_t reach_h = p.dilation_h * (p.kh - 1), reach_w = p.dilation_w * (p.kw - 1);
  q.h = p.oh, q.w = p.ow, q.oh = p.h, q.ow = p.w;
  q.pad_top = reach_h - p.pad_top, q.pad_bottom = reach_h - p.pad_bottom;
  q.pad_left = reach_w - p.pad_left, q.pad_right = reach_w - p.pad_right;
  return q;
}

CONVKIT_INLINE bool has_adjoint(const ConvProblem& p) {
  const std::int64_t reach_h = p.dilation_h * (p.kh - 1), reach_w = p.dilation_w * (p.kw - 1);
  return p.stride_h == 1 && p.stride_w == 1 && p.pad_top <= reach_h && p.pad_bottom <= reach_h &&
         p.pad_left <= reach_w && p.pad_right <= reach_w;
}

// The forward's filters as the adjoint sees them.
template <class T>
CONVKIT_INLINE WeightView adjoint_view(const ConvProblem& p, const WeightView& w) {
  const T* last = static_cast<const T*>(w.data) + (p.kh - 1) * w.stride_kh + (p.kw - 1) * w.stride_kw;
  return {last, w.stride_c, w.stride_o, -w.stride_kh, -w.stride_kw, w.stride_group};
}

constexpr char adjoint_suffix[] = "_adjoint";

template <class T>
void adjoint_panels_entry(const ConvProblem& p, const Parameters& parameters, Packing* out) {
  panels_entry<T>(adjoint_filter(p), parameters, out);
  append_id(adjoint_suffix, out);
}

template <class T>
void pack_adjoint_panels(const ConvProblem& p, const Parameters& parameters, const WeightView& w, void* out,
                         int threads) {
  pack_panels<T>(adjoint_filter(p), parameters, adjoint_view<T>(p, w), out, threads);
}

// Dense filters of the adjoint, (C, O/groups, KH, KW), for kernels that read weights as they are.
template <class T>
CONVKIT_INLINE std::int64_t rotated_bytes(const ConvProblem& p) {
  return p.c * (p.o / p.groups) * p.kh * p.kw * static_cast<std::int64_t>(sizeof(T));
}

template <class T>
void rotate(const ConvProblem& p, const WeightView& w, T* out, int threads) {
  const WeightView view = adjoint_view<T>(p, w);
  const std::int64_t outputs = p.c / p.groups, inputs = p.o / p.groups, taps = p.kh * p.kw;
  constexpr std::int64_t height = 16, width = 32;  // source lines stay in L1 while a block is gathered
  const std::int64_t bands = ceil_div(outputs, height);
  auto member = [&](int index, int size) {
    const Share mine = share(p.groups * bands, index, size);
    for (std::int64_t item = mine.begin; item < mine.end; ++item) {
      const std::int64_t group = item / bands, first = item % bands * height;
      const std::int64_t last = smaller(first + height, outputs);
      const T* from = static_cast<const T*>(view.data) + group * view.stride_group;
      T* to = out + group * outputs * inputs * taps;
      for (std::int64_t begin = 0; begin < inputs; begin += width) {
        const std::int64_t end = smaller(begin + width, inputs);
        if (taps == 1 && view.stride_o == 1) {
          transpose_block(from + begin * view.stride_c + first, view.stride_c, end - begin, last - first,
                          to + first * inputs + begin, inputs);
          continue;
        }
        for (std::int64_t o = first; o < last; ++o) {
          T* at = to + (o * inputs + begin) * taps;
          for (std::int64_t c = begin; c < end; ++c) {
            const T* tap = from + o * view.stride_o + c * view.stride_c;
            for (std::int64_t kh = 0; kh < p.kh; ++kh) {
              for (std::int64_t kw = 0; kw < p.kw; ++kw) *at++ = tap[kh * view.stride_kh + kw * view.stride_kw];
            }
          }
        }
      }
    }
  };
  team(smaller<std::int64_t>(threads, larger<std::int64_t>(rotated_bytes<T>(p) >> 16, 1)), member);
}

struct AdjointName {
  char text[80];
};

// "<dtype>_<algorithm>__<isa>" -> "<dtype>_<algorithm>_input_grad__<isa>".
constexpr AdjointName adjoint_name(const char* forward) {
  AdjointName name{};
  int to = 0;
  bool inserted = false;
  for (const char* from = forward; *from; ++from) {
    if (!inserted && from[0] == '_' && from[1] == '_') {
      inserted = true;
      for (const char* more = "_input_grad"; *more; ++more) name.text[to++] = *more;
    }
    name.text[to++] = *from;
  }
  return name;
}

template <const auto& Table, int Index, class T>
struct Adjoint {
  static constexpr const Kernel& forward = Table[Index];
  static constexpr AdjointName name = adjoint_name(Table[Index].name);

  static bool applies(const ConvProblem& p) { return has_adjoint(p) && forward.applies(adjoint_problem(p)); }

  static int candidates(const ConvProblem& p, const Machine& machine, int threads, Parameters* out, int capacity) {
    return forward.candidates(adjoint_problem(p), machine, threads, out, capacity);
  }

  // True if the forward kernel reads weights as they are: it then gets a rotated copy of them.
  static bool reads_dense(const ConvProblem& q, const Parameters& parameters) {
    Packing packing{};
    forward.packing(q, parameters, &packing);
    return !packing.id[0];
  }

  static void cost(const ConvProblem& p, const Parameters& parameters, const Machine& machine, int threads, Cost* out) {
    const ConvProblem q = adjoint_problem(p);
    forward.cost(q, parameters, machine, threads, out);
    if (!p.packed && reads_dense(q, parameters)) {
      out->vector_ops += 2.0 * static_cast<double>(rotated_bytes<T>(p)) / sizeof(T);
      out->bytes_l3 += 2.0 * static_cast<double>(rotated_bytes<T>(p));
      out->barriers += 1;
    }
  }

  static void packing(const ConvProblem& p, const Parameters& parameters, Packing* out) {
    *out = {};
    forward.packing(adjoint_problem(p), parameters, out);
    if (out->id[0]) {
      append_id(adjoint_suffix, out);
    } else {
      describe_packing("rotated", rotated_bytes<T>(p), out);
    }
  }

  static void pack(const ConvProblem& p, const Parameters& parameters, const WeightView& w, void* out, int threads) {
    const ConvProblem q = adjoint_problem(p);
    if (reads_dense(q, parameters)) {
      rotate<T>(p, w, static_cast<T*>(out), threads);
    } else {
      forward.pack(q, parameters, adjoint_view<T>(p, w), out, threads);
    }
  }

  static std::int64_t workspace_bytes(const ConvProblem& p, const Parameters& parameters, const Machine& machine,
                                      int threads) {
    const ConvProblem q = adjoint_problem(p);
    const std::int64_t bytes = forward.workspace_bytes(q, parameters, machine, threads);
    return p.packed || !reads_dense(q, parameters) ? bytes : bounded_sum(round_up(bytes, 64), rotated_bytes<T>(p));
  }

  static void run(const Arguments& args) {
    const ConvProblem& p = *args.problem;
    const ConvProblem q = adjoint_problem(p);
    Arguments inner = args;
    inner.problem = &q;
    if (reads_dense(q, *args.parameters)) {
      const T* rotated = static_cast<const T*>(args.packed);
      if (!rotated) {
        const std::int64_t used =
            round_up(forward.workspace_bytes(q, *args.parameters, *args.machine, args.threads), 64);
        T* fresh = reinterpret_cast<T*>(static_cast<char*>(args.workspace) + used);
        rotate<T>(p, args.w, fresh, args.threads);
        rotated = fresh;
      }
      const std::int64_t taps = q.kh * q.kw, row = q.c / q.groups * taps;
      inner.w = {rotated, row, taps, q.kw, 1, q.o / q.groups * row};
      inner.packed = nullptr;
    } else if (!args.packed) {
      inner.w = adjoint_view<T>(p, args.w);
    }
    forward.run(inner);
  }

  static constexpr Kernel entry() {
    Kernel kernel = forward;
    kernel.name = name.text;
    kernel.op = Op::input_grad;
    kernel.applies = applies;
    kernel.candidates = candidates;
    kernel.cost = cost;
    kernel.packing = packing;
    kernel.pack = pack;
    kernel.workspace_bytes = workspace_bytes;
    kernel.run = run;
    kernel.reads_parts = false;
    return kernel;
  }
};

template <int Count>
struct KernelList {
  Kernel kernels[Count];
};

template <const auto& Table, int Count, int Index = 0>
constexpr void add_adjoints(KernelList<2 * Count>& list) {
  if constexpr (Index < Count) {
    list.kernels[Index] = Table[Index];
    if constexpr (Table[Index].dtype_w == Dtype::f32) {
      list.kernels[Count + Index] = Adjoint<Table, Index, float>::entry();
    } else {
      list.kernels[Count + Index] = Adjoint<Table, Index, double>::entry();
    }
    add_adjoints<Table, Count, Index + 1>(list);
  }
}

template <const auto& Table, int Count>
constexpr KernelList<2 * Count> list_with_adjoints() {
  KernelList<2 * Count> list{};
  add_adjoints<Table, Count>(list);
  return list;
}

// `Table` (a constexpr array of forward kernels) and the adjoint of each.
template <const auto& Table>
struct WithAdjoints {
  static constexpr int count = sizeof Table / sizeof Table[0];
  static constexpr KernelList<2 * count> list = list_with_adjoints<Table, count>();
  static constexpr KernelTable table = {list.kernels, 2 * count};
};

}  // namespace convkit::CONVKIT_ISA
