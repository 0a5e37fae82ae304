// The inventory: the only list of kernels. An entry says what a kernel computes, when it applies, what it costs and how it
// is run. Kernels are compiled once per instruction set; their entries are plain constant data, read only after the CPU
// was asked (cpu/features.hpp).
#pragma once
#include <cstddef>
#include <cstdint>

#include "problem.hpp"

namespace convkit {

// The instruction sets that are built, the most preferred last.
enum class Isa : std::int32_t {
#define CONVKIT_ISA_ENTRY(name, bytes, features, flags) name,
#include "isa/built.def"
#undef CONVKIT_ISA_ENTRY
};
#define CONVKIT_ISA_ENTRY(name, bytes, features, flags) +1
inline constexpr int isa_count = 0
#include "isa/built.def"
    ;
#undef CONVKIT_ISA_ENTRY

// The machine as cost functions and defaults see it. Bytes.
struct Machine {
  std::int64_t l1d, l2;
  std::int64_t l3;  // visible to one core; 0 if there is none
  int wide_units;   // multiply-adds of 64-byte vectors that a core starts in a cycle; of shorter ones two everywhere
};

inline constexpr int max_parameters = 6;

// The largest team that a kernel may be asked about or started with: there are functions that look at every size up to it.
inline constexpr int most_threads = 1024;

// A kernel's explicit parameters, in the order of its schema; unused ones are 0.
struct Parameters {
  std::int32_t value[max_parameters];
};

struct ParameterSpec {
  const char* name;  // null ends the schema
  std::int32_t least, most;
};

// What a call would do, for the cost model. Totals over all threads.
struct Cost {
  double fmas;  // scalar multiply-adds executed, wasted lanes and padding included
  double
      vector_ops;   // whole-vector instructions other than those FMAs: transforms, packing shuffles, stores of columns
  double bytes_l2;  // traffic between L1 and L2, beyond what the FMA loop hides
  double bytes_l3;  // between L2 and L3
  double bytes_dram;      // compulsory traffic beyond the caches
  double efficiency;      // share of the FMA peak that the inner loop reaches, 0..1
  double imbalance;       // busiest thread's share times the number of threads, >= 1
  std::int32_t barriers;  // team barriers, beside the start of the team
};

// What packed weights look like. Two kernels (or parameters) with equal id and bytes share one packing.
struct Packing {
  char id[64];  // empty: the kernel reads dense OIHW weights as they are
  std::int64_t bytes;
};

// Weights as the caller holds them: strides in elements along the outputs of a group, C/groups, KH, KW, and from group to
// group ((O/groups) * stride_o in an ordinary array; an adjoint view has another). Strides may be negative.
struct WeightView {
  const void* data;
  std::int64_t stride_o, stride_c, stride_kh, stride_kw, stride_group;
};

enum class Activation : std::int32_t {
  none = 0,
  clamp = 1,  // clamp: min(hi, max(lo, v)); NaN survives
  silu = 2,
  hardswish = 3,
  sigmoid = 4,
  tanh = 5,
  leaky_relu = 6,  // leaky_relu: slope in `lo`
  gelu = 7,        // x times the normal distribution's integral up to x
  gelu_tanh = 8    // the same, by the formula with tanh that stands for it
};

// What follows the activation: y = scale * y + shift + residual. Whoever has stored some elements of y knows their channels
// and their residuals by how far they are from its first one.
struct Following {
  const void* y;
  std::int64_t channels, plane;  // the channel of element i is i / plane % channels
  const void *scale, *shift;     // `channels` values, or null
  const void* residual;          // like y, or null; not y itself
};

// y = activation(conv + bias + residual), and what follows
struct Epilogue {
  const void* bias;      // O values, or null
  const void* residual;  // like y in shape and layout, or null; may be y itself
  Activation activation;
  double lo, hi;
  const Following* following;  // null: nothing
};

// An image of which each pixel's channels lie in several images: some of them in each part, side by side, and pixels `stride`
// elements apart.
struct Parts {
  static constexpr int most = 32;
  struct Part {
    const void* from;
    std::int64_t channels, stride;
  };
  int count;
  Part part[most];
};

// No tensor is empty: callers answer those problems without a kernel.
// Tensors are dense in the problem's layout, aligned to their element at least.
//   forward:     x (N,C,H,W), w -> y (N,O,OH,OW)
//   input_grad:  x is dy (N,O,OH,OW), w -> y is dx (N,C,H,W)
//   weight_grad: x (N,C,H,W), dy (N,O,OH,OW) -> y is dw, dense OIHW; w and packed are not read
struct Arguments {
  const ConvProblem* problem;
  const Parameters* parameters;
  const Machine* machine;  // the one that workspace_bytes was asked about
  const void* x;
  const Parts* parts;  // what is read in place of x, if it is not null: by kernels that read parts, one group and NHWC
  const void* dy;      // weight_grad only
  WeightView w;        // read when packed is null; dense OIHW if the packing id is empty
  const void* packed;  // 64-byte aligned; null exactly when problem->packed is 0 (or the packing id is empty)
  Epilogue epilogue;
  void* y;          // every element is written
  void* workspace;  // workspace_bytes(...) bytes, 4096-byte aligned, contents undefined
  int threads;      // team size asked for; kernels may start a smaller one, never a larger
};

// Numerical class of a kernel.
struct ErrorClass {
  bool direct;      // direct summation: allowed under accuracy "strict"
  float rms_ratio;  // RMS error over direct summation's: the largest measured on normal data, 64 channels and more
};

struct Kernel {
  const char* family;  // what `algorithm=` accepts, e.g. "winograd4"
  const char* name;    // <dtype>_<algorithm>[_<tile>]__<isa>[_variant]
  Isa isa;
  Op op;
  Dtype dtype_x, dtype_w, dtype_accumulate, dtype_y;
  std::uint32_t layouts;  // bit 1 << Layout for each layout it takes
  std::int32_t revision;  // raised when results or speed change: older trials are then stale
  ErrorClass error;
  const ParameterSpec* schema;
  // Everything but op, dtype and layout, which the inventory checks itself.
  bool (*applies)(const ConvProblem&);
  // Parameter sets worth measuring, the default for this problem first; at most `capacity`, at least 1.
  int (*candidates)(const ConvProblem&, const Machine&, int threads, Parameters* out, int capacity);
  void (*cost)(const ConvProblem&, const Parameters&, const Machine&, int threads, Cost* out);
  void (*packing)(const ConvProblem&, const Parameters&, Packing* out);
  // Packs `w` into `out` (packing bytes, 64-byte aligned) with a team; null where the packing id is always empty.
  void (*pack)(const ConvProblem&, const Parameters&, const WeightView& w, void* out, int threads);
  std::int64_t (*workspace_bytes)(const ConvProblem&, const Parameters&, const Machine&, int threads);
  void (*run)(const Arguments&);
  bool reads_parts;
};

// One per algorithm file and ISA, constant-initialised: the only external symbol of such an object.
struct KernelTable {
  const Kernel* kernels;
  int count;
};

// All kernels that this CPU can run (or that the forced ISA allows), best ISA first, in order of declaration.
int kernel_count();
const Kernel& kernel(int index);
// True if the kernel takes the problem: no empty tensor, op, dtype, layout and its own predicate.
bool applies(const Kernel& kernel, const ConvProblem& problem);
// This machine's caches as CPUID tells them.
const Machine& machine();

}  // namespace convkit
