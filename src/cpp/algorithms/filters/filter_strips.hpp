// What one member of a team works with: lines of the image and of results, and how they are read and written.
#pragma once
#include "algorithms/filters/image_rows.hpp"
#include "microkernels/split_windows.hpp"

namespace convkit::CONVKIT_ISA {

// Rows [begin, end) of one image.
struct Piece {
  const char* from;
  char* to;
  std::int64_t begin, end;
};

template <class T>
constexpr Element element_of() {
  return sizeof(T) == 4 ? Element::f32 : Element::f64;
}

// Whether addresses at these distances hold elements of T that lie as T does.
template <class T>
CONVKIT_INLINE bool aligned(const void* data, std::ptrdiff_t image, std::ptrdiff_t row,
                            std::int64_t bytes = sizeof(T)) {
  return reinterpret_cast<std::uintptr_t>(data) % bytes == 0 && image % bytes == 0 && row % bytes == 0;
}

// Whether sums over `rows` rows may read them where they are: rows a multiple of a page apart share a set of L1, which then
// holds few of their lines. To fetch them to a strip first costs as much as a few lines from L2.
inline bool lines_fit(std::ptrdiff_t row, std::int64_t l1d, std::int64_t rows) {
  constexpr std::int64_t ways = 8;
  const std::int64_t way = l1d / ways, apart = (row < 0 ? -row : row) % way;
  std::int64_t sets = 1;  // that they fall into
  for (std::int64_t at = apart; at != 0 && sets < rows; at = (at + apart) % way) ++sets;
  return rows <= 2 * ways * sets;
}

// Sizes of a job's pieces of work.
template <class T>
struct Blocks {
  static constexpr int lanes = Vec<T>::lanes;
  static constexpr std::int64_t element = sizeof(T);
  std::int64_t group;    // rows of results at once
  std::int64_t columns;  // of a block of results
  std::int64_t width;    // that such a block meets
  std::int64_t pitch;    // of a line
  std::int64_t lines;    // of the image at once
  bool read_in_place, write_in_place, stream;
  bool lines_in_place;  // as many rows as sums take at once may lie in L1 together, where they are
  bool splits;          // windows into those of even and odd rows

  Blocks(const FilterJob& job, const Machine& machine) {
    const bool dense = job.kind == FilterKind::dense;
    group = dense ? 48 : larger<std::int64_t>(lanes, lines_at_once<T>);
    lines = job.down.size + group;
    // Lines of the image, of sums and of their transposes.
    const std::int64_t bytes = (lines + (dense ? 0 : 3 * group)) * element;
    columns =
        larger<std::int64_t>(machine.l2 / 2 / bytes - job.along.size, larger<std::int64_t>(256, 4 * job.along.size));
    columns = smaller(job.width, round_up(ceil_div(job.width, ceil_div(job.width, columns)), lanes));
    width = columns + job.along.size - 1;
    pitch = round_up(width, lanes) + 2 * lanes;
    if (pitch * element % 4096 == 0) pitch += lanes;  // or lines would meet in one set of L1
    splits = dense && sizeof(T) == 4 && !job.exact && worth_splitting(job.down.size, job.along.size);
    read_in_place = job.from_element == element_of<T>() && job.from_column == element &&
                    aligned<T>(job.from, job.from_image, job.from_row);
    lines_in_place =
        read_in_place && lines_fit(job.from_row, machine.l1d,
                                   job.kind == FilterKind::uniform ? 2 * group : job.down.size + lines_at_once<T>);
    write_in_place = job.to_element == element_of<T>() && job.to_column == element &&
                     aligned<T>(job.to, job.to_image, job.to_row) && job.to_filter % element == 0;
    const double result = static_cast<double>(job.images * job.filters) * static_cast<double>(job.height * job.width);
    stream = write_in_place && aligned<T>(job.to, job.to_image, job.to_row, 64) && job.to_filter % 64 == 0 &&
             4 * result * static_cast<double>(element) > static_cast<double>(machine.l3);
  }
};

// In a window.
struct Place {
  std::int64_t row, column;
};

template <class T>
struct Area {
  T* strip;         // lines of the image
  T* middle;        // a group of lines between the passes
  T* columns;       // the same transposed
  T* results;       // a group of lines of results
  T* constant;      // a line of what lies beyond the edges
  T *down, *along;  // taps, or sums of lines
  std::int64_t* outside;
  const T** lines;
  Place* places;      // of weights
  T *halves, *split;  // weights and lines of windows that are split

  template <class Cut>
  Area(const FilterJob& job, const Blocks<T>& blocks, Cut& cut) {
    const bool dense = job.kind == FilterKind::dense;
    strip = cut.template take<T>(blocks.lines, blocks.pitch);
    middle = cut.template take<T>(blocks.group, blocks.pitch);
    columns = cut.template take<T>(dense ? 0 : blocks.pitch, blocks.lanes);
    results = cut.template take<T>(blocks.group, blocks.pitch);
    constant = cut.template take<T>(blocks.pitch);
    const std::int64_t window = dense ? job.down.size * job.along.size : job.down.size;
    down = cut.template take<T>(larger(window, blocks.pitch));
    along = cut.template take<T>(job.along.size);
    outside = cut.template take<std::int64_t>(job.along.size);
    lines = cut.template take<const T*>(window + blocks.group);
    places = cut.template take<Place>(dense ? window : 0);
    halves = cut.template take<T>(blocks.splits ? 2 * window + job.along.size : 0);
    split = cut.template take<T>(blocks.splits ? split_elements<T>(job.down.size, job.along.size, blocks.group) : 0);
  }
};

template <class T>
struct Member {
  const FilterJob& job;
  const Blocks<T>& blocks;
  const Area<T>& area;
  ElementCalls<T> reads, writes;

  Member(const FilterJob& what, const Blocks<T>& sizes, const Area<T>& own)
      : job(what),
        blocks(sizes),
        area(own),
        reads(element_calls<T>(what.from_element)),
        writes(element_calls<T>(what.to_element)) {
    for (std::int64_t i = 0; i < blocks.pitch; ++i) area.constant[i] = static_cast<T>(job.cval);
  }

  // Calls work(rows, column, count) for one block of columns after another.
  template <class Work>
  CONVKIT_INLINE void each_block(const Work& work) const {
    for (std::int64_t column = 0; column < job.width; column += blocks.columns) {
      const std::int64_t count = smaller(blocks.columns, job.width - column);
      ImageRows<T> rows{job, reads, 0, 0, 0, 0, area.outside};
      rows.set(column - job.along.before, count + job.along.size - 1);
      work(rows, column, count);
    }
  }

  // Where row `at` of results goes from column `column` on.
  CONVKIT_INLINE char* target(const Piece& piece, std::int64_t at, std::int64_t column) const {
    return piece.to + at * job.to_row + column * job.to_column;
  }
  // Where it is computed: there, or in the area.
  CONVKIT_INLINE T* result(char* target, std::int64_t line) const {
    return blocks.write_in_place ? reinterpret_cast<T*>(target) : area.results + line * blocks.pitch;
  }
  CONVKIT_INLINE void finish(char* target, std::int64_t line, std::int64_t count) const {
    if (!blocks.write_in_place) writes.write(area.results + line * blocks.pitch, target, job.to_column, count);
  }
};

// The rows of the image that a block of results meets, as lines: where they are, or fetched to a strip whose lines are
// used again in turn.
template <class T>
struct Window {
  const Member<T>& member;
  const ImageRows<T>& rows;
  const char* image;
  bool in_place;
  std::int64_t next;  // the first row that is not in the strip

  Window(const Member<T>& own, const ImageRows<T>& block, const Piece& piece)
      : member(own),
        rows(block),
        image(piece.from),
        in_place(own.blocks.lines_in_place && block.closed()),
        next(piece.begin - own.job.down.before) {}

  // What a line holds: columns of the block from `begin()` on.
  CONVKIT_INLINE std::int64_t begin() const { return in_place ? rows.first - rows.begin : 0; }
  CONVKIT_INLINE std::int64_t width() const { return in_place ? rows.last - rows.first : rows.width; }
  // From a row to the one that takes its place in the next group of `count`, in elements.
  CONVKIT_INLINE std::ptrdiff_t ahead(std::int64_t count) const {
    return in_place ? count * member.job.from_row / static_cast<std::ptrdiff_t>(sizeof(T)) : 0;
  }

  // Lists `count` rows from `top` on.
  void list(std::int64_t top, std::int64_t count) {
    const FilterJob& job = member.job;
    const Area<T>& area = member.area;
    if (in_place) {
      for (std::int64_t k = 0; k < count; ++k) {
        const std::int64_t at = inside(top + k, job.height, job.down.edge);
        area.lines[k] = at < 0 ? area.constant : reinterpret_cast<const T*>(image + at * job.from_row) + rows.first;
      }
      return;
    }
    for (next = larger(next, top); next < top + count; ++next) rows.fetch(image, next, slot(next), lines_at_once<T>);
    for (std::int64_t k = 0; k < count; ++k) area.lines[k] = slot(top + k);
  }

  // What comes between two passes, if there were `sums`: a line of them from its begin() on is continued beyond the edges.
  CONVKIT_INLINE void between(T* line, bool sums) const {
    if (sums && member.job.rounded && member.writes.round) member.writes.round(line + begin(), width());
    rows.continue_with(line, [&](std::int64_t i, std::int64_t column) {
      return line[(in_place ? column : i) - rows.begin];  // fetched rows hold sums of what stands for it
    });
  }

 private:
  CONVKIT_INLINE T* slot(std::int64_t row) const {
    const std::int64_t at = row % member.blocks.lines;
    return member.area.strip + (at < 0 ? at + member.blocks.lines : at) * member.blocks.pitch;
  }
};

}  // namespace convkit::CONVKIT_ISA
