#include "filters.hpp"

#include <algorithm>

#include "cpu/features.hpp"
#include "workspace.hpp"

namespace convkit {

#define CONVKIT_ISA_ENTRY(isa, bytes, features, flags)                                 \
  namespace isa {                                                                      \
  std::int64_t filter_area(const FilterJob& job, const Machine& machine);              \
  void filter(const FilterJob& job, const Machine& machine, char* areas, int threads); \
  }
#include "isa/built.def"
#undef CONVKIT_ISA_ENTRY

namespace {

struct Filters {
  std::int64_t (*area)(const FilterJob&, const Machine&);
  void (*run)(const FilterJob&, const Machine&, char*, int);
};

constexpr Filters filters_of[isa_count] = {
#define CONVKIT_ISA_ENTRY(isa, bytes, features, flags) {isa::filter_area, isa::filter},
#include "isa/built.def"
#undef CONVKIT_ISA_ENTRY
};

// A team costs more than it saves below this many multiply-adds a member.
constexpr double least_work_per_thread = 1 << 18;

double work_of(const FilterJob& job) {
  const double pixels = static_cast<double>(job.images) * static_cast<double>(job.height * job.width);
  const double down = static_cast<double>(job.down.size), along = static_cast<double>(job.along.size);
  const double taps = job.kind == FilterKind::dense ? down * along * static_cast<double>(job.filters) : down + along;
  return pixels * (4 + (job.kind == FilterKind::uniform ? 4 : taps));
}

}  // namespace

void filter(const FilterJob& job, Isa isa, int threads) {
  const Filters& filters = filters_of[static_cast<int>(isa)];
  const double members =
      std::min(work_of(job) / least_work_per_thread + 1, static_cast<double>(job.images * job.height));
  threads = static_cast<int>(std::min(members, static_cast<double>(threads)));
  const std::int64_t area = filters.area(job, machine());
  const Workspace workspace(checked_product(area, threads));
  filters.run(job, machine(), reinterpret_cast<char*>(workspace.data()), threads);
}

}  // namespace convkit
