// What CPUID and XGETBV say about this machine, and which instruction set is in force.
#pragma once
#include <cstdint>
#include <string>

#include "inventory.hpp"

namespace convkit {

struct Cpu {
  std::string vendor, brand;
  int family, model, stepping;
  int level;  // x86-64 micro-architecture level, 1..4, that the CPU, the hypervisor and the operating system offer
  Machine machine;
};

const Cpu& cpu();

const char* isa_name(Isa isa);
// True if this CPU can run code compiled for the ISA.
bool usable(Isa isa);
// The ISA in force: the best usable one, or the one that CONVKIT_ISA forces.
// Throws std::invalid_argument if CONVKIT_ISA names none or an unusable one.
Isa active_isa();

}  // namespace convkit
