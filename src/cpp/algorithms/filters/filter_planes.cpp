// Filters of images, by strips of columns that stay in L2 from row to row.
#include "algorithms/filters/dense.hpp"
#include "algorithms/filters/separable.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

template <class T>
void filter_piece(const Member<T>& member, const Piece& piece) {
  switch (member.job.kind) {
    case FilterKind::dense: return DenseFilter<T>{member, piece}.run();
    case FilterKind::separable: return separable(member, piece);
    case FilterKind::uniform:
      if constexpr (sizeof(T) == 8) uniform(member, piece);
  }
}

bool computes_in_float(const FilterJob& job) {
  return job.kind != FilterKind::uniform && job.from_element == Element::f32 && job.to_element == Element::f32;
}

template <class T>
std::int64_t area_bytes(const FilterJob& job, const Machine& machine) {
  Tally tally;
  const Area<T> area(job, Blocks<T>(job, machine), tally);
  return round_up(tally.used, 4096);
}

template <class T>
void run(const FilterJob& job, const Machine& machine, char* areas, int threads) {
  const Blocks<T> blocks(job, machine);
  const std::int64_t bytes = area_bytes<T>(job, machine);
  const bool runs = job.kind == FilterKind::uniform;
  const std::int64_t unit = runs ? rows_of_running_sums(job) : blocks.splits ? blocks.group : 1;
  const std::int64_t per_image = ceil_div(job.height, unit);
  auto work = [&](int index, int size) {
    Carver cut{areas + bytes * index};
    const Area<T> area(job, blocks, cut);
    const Member<T> member(job, blocks, area);
    Share mine = share(job.images * per_image, index, size);
    while (mine.begin < mine.end) {
      const std::int64_t image = mine.begin / per_image, first = mine.begin % per_image,
                         last = smaller(per_image, first + mine.end - mine.begin);
      Piece piece{job.from + image * job.from_image, job.to + image * job.to_image, 0, 0};
      for (std::int64_t at = first; at < last; at += runs ? 1 : last - first) {
        piece.begin = at * unit;
        piece.end = smaller(job.height, (runs ? at + 1 : last) * unit);
        filter_piece(member, piece);
      }
      mine.begin += last - first;
    }
    if (blocks.stream) Vec<T>::fence();
  };
  team(threads, work);
}

}  // namespace

std::int64_t filter_area(const FilterJob& job, const Machine& machine) {
  return computes_in_float(job) ? area_bytes<float>(job, machine) : area_bytes<double>(job, machine);
}

void filter(const FilterJob& job, const Machine& machine, char* areas, int threads) {
  if (computes_in_float(job)) return run<float>(job, machine, areas, threads);
  run<double>(job, machine, areas, threads);
}

}  // namespace convkit::CONVKIT_ISA
