// What this process may use of the machine: its affinity mask, and what its control groups (cgroups) leave it.
#pragma once
#include <cstdint>
#include <string>

namespace convkit {

// CPUs that the calling thread may run on; at least 1.
int allowed_cpus();

struct GroupLimits {
  double cpus;          // CPU time for each second of wall time; infinity without a quota
  std::int64_t memory;  // bytes; the largest number without a limit
};

// The tightest limits between the process's own groups and the top of their hierarchies, of version 1 and 2.
// `root` is put in front of every path that is read, for tests.
GroupLimits group_limits(const std::string& root = "");

}  // namespace convkit
