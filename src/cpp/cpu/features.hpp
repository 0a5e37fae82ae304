// What CPUID and XGETBV say about this machine, and which instruction set is in force.
#pragma once
#include <cstdint>
#include <string>

#include "inventory.hpp"

namespace convkit {

// What code may need of a CPU, as a set: what the x86-64 psABI's micro-architecture levels are made of.
using Features = std::uint32_t;
namespace feature {  // apart from the namespaces of kernels, which are called alike
enum Feature : Features {
  cmpxchg16b = 1u << 0,
  lahf = 1u << 1,
  popcnt = 1u << 2,
  sse3 = 1u << 3,
  ssse3 = 1u << 4,
  sse4_1 = 1u << 5,
  sse4_2 = 1u << 6,
  avx = 1u << 7,
  avx2 = 1u << 8,
  bmi1 = 1u << 9,
  bmi2 = 1u << 10,
  f16c = 1u << 11,
  fma = 1u << 12,
  lzcnt = 1u << 13,
  movbe = 1u << 14,
  avx512f = 1u << 15,
  avx512bw = 1u << 16,
  avx512cd = 1u << 17,
  avx512dq = 1u << 18,
  avx512vl = 1u << 19,
};
}  // namespace feature
inline constexpr Features x86_64 = 0;
inline constexpr Features x86_64_v2 = x86_64 | feature::cmpxchg16b | feature::lahf | feature::popcnt | feature::sse3 |
                                      feature::ssse3 | feature::sse4_1 | feature::sse4_2;
inline constexpr Features x86_64_v3 = x86_64_v2 | feature::avx | feature::avx2 | feature::bmi1 | feature::bmi2 |
                                      feature::f16c | feature::fma | feature::lzcnt | feature::movbe;
inline constexpr Features x86_64_v4 =
    x86_64_v3 | feature::avx512f | feature::avx512bw | feature::avx512cd | feature::avx512dq | feature::avx512vl;

struct Cpu {
  std::string vendor, brand;
  int family, model, stepping;
  Features features;  // that the CPU, the hypervisor and the operating system offer
  int level;          // the highest x86-64 micro-architecture level whose features are all there, 1..4
  Machine machine;
};

const Cpu& cpu();

// A line of isa/isa.def.
struct IsaEntry {
  const char* name;
  int vector_bytes;
  Features features;
};
const IsaEntry& isa_entry(Isa isa);
inline const char* isa_name(Isa isa) { return isa_entry(isa).name; }
// True if this CPU can run code compiled for the ISA.
bool usable(Isa isa);
// The ISA in force: the most preferred usable one, or the one that CONVKIT_ISA forces.
// Throws std::invalid_argument if CONVKIT_ISA names none or an unusable one.
Isa active_isa();
// True if kernels of this ISA may run beside those of the ISA in force: they need no feature that it does not.
bool allowed(Isa isa);

}  // namespace convkit
