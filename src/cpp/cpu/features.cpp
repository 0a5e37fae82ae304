#include "cpu/features.hpp"

#include <cpuid.h>
#include <pthread.h>

#include <cstdlib>
#include <cstring>
#include <exception>
#include <initializer_list>
#include <stdexcept>

namespace convkit {

namespace {

struct Registers {
  unsigned eax, ebx, ecx, edx;
};

Registers cpuid(unsigned leaf, unsigned subleaf = 0) {
  Registers r{};
  if (!__get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx)) r = Registers{};
  return r;
}

bool bit(unsigned word, int index) { return (word >> index) & 1u; }

std::uint64_t extended_control_register() {
  std::uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<std::uint64_t>(high) << 32) | low;
}

Features read_features() {
  const Registers basic = cpuid(1), structured = cpuid(7), extended = cpuid(0x80000001u);
  const std::uint64_t saved = bit(basic.ecx, 27) ? extended_control_register() : 0;  // registers that a switch keeps
  const bool wide = (saved & 0x6) == 0x6, widest = wide && (saved & 0xe0) == 0xe0;
  const struct {
    Features bit;
    bool there;
  } all[] = {
      {feature::cmpxchg16b, bit(basic.ecx, 13)},
      {feature::lahf, bit(extended.ecx, 0)},
      {feature::popcnt, bit(basic.ecx, 23)},
      {feature::sse3, bit(basic.ecx, 0)},
      {feature::ssse3, bit(basic.ecx, 9)},
      {feature::sse4_1, bit(basic.ecx, 19)},
      {feature::sse4_2, bit(basic.ecx, 20)},
      {feature::avx, wide && bit(basic.ecx, 28)},
      {feature::avx2, wide && bit(structured.ebx, 5)},
      {feature::bmi1, bit(structured.ebx, 3)},
      {feature::bmi2, bit(structured.ebx, 8)},
      {feature::f16c, wide && bit(basic.ecx, 29)},
      {feature::fma, wide && bit(basic.ecx, 12)},
      {feature::lzcnt, bit(extended.ecx, 5)},
      {feature::movbe, bit(basic.ecx, 22)},
      {feature::avx512f, widest && bit(structured.ebx, 16)},
      {feature::avx512bw, widest && bit(structured.ebx, 30)},
      {feature::avx512cd, widest && bit(structured.ebx, 28)},
      {feature::avx512dq, widest && bit(structured.ebx, 17)},
      {feature::avx512vl, widest && bit(structured.ebx, 31)},
  };
  Features features = 0;
  for (const auto& one : all) {
    if (one.there) features |= one.bit;
  }
  return features;
}

bool includes(Features features, Features needed) { return (needed & ~features) == 0; }

// Deterministic cache parameters: leaf 4 (Intel) or 0x8000001d (AMD).
Machine read_caches(const std::string& vendor) {
  Machine machine{32 << 10, 256 << 10, 0, 1};
  const unsigned leaf = vendor == "AuthenticAMD" || vendor == "HygonGenuine" ? 0x8000001du : 4u;
  for (unsigned index = 0; index < 16; ++index) {
    const Registers r = cpuid(leaf, index);
    const unsigned type = r.eax & 31u;
    if (type == 0) break;
    if (type == 2) continue;  // instructions only
    const std::int64_t ways = (r.ebx >> 22) + 1, partitions = ((r.ebx >> 12) & 1023u) + 1, line = (r.ebx & 4095u) + 1;
    const std::int64_t bytes = ways * partitions * line * (static_cast<std::int64_t>(r.ecx) + 1);
    switch ((r.eax >> 5) & 7u) {
      case 1: machine.l1d = bytes; break;
      case 2: machine.l2 = bytes; break;
      case 3: machine.l3 = bytes; break;
      default: break;
    }
  }
  return machine;
}

// CPUID does not tell it, but by the model: from family 26 on AMD has two, but in small notebooks' cores; Intel has two in
// servers of family 6 (Skylake, Ice Lake and Sapphire Rapids and their successors), one in what else has any.
int wide_units(const Cpu& cpu) {
  if (cpu.vendor == "AuthenticAMD") return cpu.family >= 26 && cpu.model >> 4 != 2 && cpu.model >> 4 != 6 ? 2 : 1;
  if (cpu.vendor != "GenuineIntel" || cpu.family != 6) return 1;
  switch (cpu.model) {
    case 0x55:
    case 0x6a:
    case 0x6c:
    case 0x8f:
    case 0xcf:
    case 0xad:
    case 0xae: return 2;
    default: return 1;
  }
}

Cpu read_cpu() {
  Cpu cpu;
  const Registers first = cpuid(0), basic = cpuid(1);
  char vendor[13] = {};
  std::memcpy(vendor, &first.ebx, 4);
  std::memcpy(vendor + 4, &first.edx, 4);
  std::memcpy(vendor + 8, &first.ecx, 4);
  cpu.vendor = vendor;
  char brand[49] = {};
  for (unsigned i = 0; i < 3; ++i) {
    const Registers r = cpuid(0x80000002u + i);
    std::memcpy(brand + 16 * i, &r, 16);
  }
  cpu.brand = brand;
  while (!cpu.brand.empty() && cpu.brand.back() == ' ') cpu.brand.pop_back();
  cpu.family = (basic.eax >> 8) & 15u;
  cpu.model = (basic.eax >> 4) & 15u;
  if (cpu.family == 15) {
    cpu.family += (basic.eax >> 20) & 255u;
    cpu.model += ((basic.eax >> 16) & 15u) << 4;
  } else if (cpu.family == 6) {
    cpu.model += ((basic.eax >> 16) & 15u) << 4;
  }
  cpu.stepping = basic.eax & 15u;
  cpu.features = read_features();
  cpu.level = 1;
  for (const Features needed : {x86_64_v2, x86_64_v3, x86_64_v4}) cpu.level += includes(cpu.features, needed);
  cpu.machine = read_caches(cpu.vendor);
  cpu.machine.wide_units = wide_units(cpu);
  return cpu;
}

constexpr IsaEntry isa_entries[isa_count] = {
#define CONVKIT_ISA_ENTRY(name, bytes, features, flags) {#name, bytes, features},
#include "isa/built.def"
#undef CONVKIT_ISA_ENTRY
};

Isa choose_isa() {
  if (const char* forced = std::getenv("CONVKIT_ISA"); forced && *forced) {
    std::string allowed;
    for (int i = 0; i < isa_count; ++i) {
      const Isa isa = static_cast<Isa>(i);
      if (!usable(isa)) continue;
      if (std::strcmp(forced, isa_name(isa)) == 0) return isa;
      allowed += (allowed.empty() ? "" : ", ") + std::string(isa_name(isa));
    }
    throw std::invalid_argument("CONVKIT_ISA=" + std::string(forced) + " cannot be used: this CPU runs " + allowed);
  }
  for (int i = isa_count - 1; i >= 0; --i) {
    if (usable(static_cast<Isa>(i))) return static_cast<Isa>(i);
  }
  throw std::invalid_argument("this CPU has none of the instruction sets that convkit was built for");
}

// A fork waits for a thread that is just finding this out: its child would wait for that thread for ever.
void before_fork() {
  try {
    active_isa();
  } catch (const std::exception&) {
    // The next call that asks says so.
  }
}

const int fork_guard = pthread_atfork(before_fork, nullptr, nullptr);

}  // namespace

const Cpu& cpu() {
  static const Cpu& instance = *new Cpu(read_cpu());  // outlives threads that still run at exit
  return instance;
}

const IsaEntry& isa_entry(Isa isa) { return isa_entries[static_cast<int>(isa)]; }

bool usable(Isa isa) { return includes(cpu().features, isa_entry(isa).features); }

Isa active_isa() {
  static const Isa isa = choose_isa();
  return isa;
}

bool allowed(Isa isa) { return usable(isa) && includes(isa_entry(active_isa()).features, isa_entry(isa).features); }

}  // namespace convkit
