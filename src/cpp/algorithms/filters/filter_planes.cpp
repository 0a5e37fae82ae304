// Filters of images: strips of rows in the computing type, continued beyond the edges, that stay in L2.
//
// Separable filters take their columns' sums first: a row of them, with as many columns beyond as the rows' taps meet, is a
// line in L1 that the rows' sums then read. The image is read once, and where it lies if its elements are of the computing type.
#include "algorithms/filters/image_rows.hpp"
#include "microkernels/tap_lines.hpp"

namespace convkit::CONVKIT_ISA {

namespace {

constexpr double epsilon = 2.220446049250313e-16;  // SciPy takes weights below it for zeros

CONVKIT_INLINE double magnitude(double v) { return v < 0 ? -v : v; }

Symmetry symmetry_of(const double* taps, std::int64_t count) {
  if (count % 2 == 0) return Symmetry::none;
  bool even = true, odd = true;
  for (std::int64_t k = 0; k < count / 2; ++k) {
    even = even && magnitude(taps[count - 1 - k] - taps[k]) <= epsilon;
    odd = odd && magnitude(taps[count - 1 - k] + taps[k]) <= epsilon;
  }
  return even ? Symmetry::even : odd ? Symmetry::odd : Symmetry::none;
}

constexpr std::int64_t block_columns = 1024, strip_rows = 16;

template <class T>
struct Shape {
  static constexpr std::int64_t lanes = Vec<T>::lanes;
  std::int64_t columns;    // of a block of results
  std::int64_t width;      // that such a block meets
  std::int64_t pitch;      // of a line in an area
  std::int64_t lines;      // of the image in an area
  std::int64_t most_taps;  // of one sum

  explicit Shape(const FilterJob& job) {
    columns = smaller(job.width, larger(block_columns, 8 * job.along.size));
    width = columns + job.along.size - 1;
    pitch = round_up(width, lanes) + lanes;
    const bool dense = job.kind == FilterKind::dense;
    lines = dense ? strip_rows + job.down.size - 1 : job.down.size;
    most_taps = dense ? job.down.size * job.along.size : larger(job.down.size, job.along.size);
  }
};

// What one member works with.
template <class T>
struct Area {
  T *strip, *middle, *result;
  std::int64_t* outside;
  const T** lines;
  const T** columns;
  T *down, *along;  // taps, or sums

  template <class Cut>
  Area(const FilterJob& job, const Shape<T>& shape, Cut& cut) {
    strip = cut.template take<T>(shape.lines, shape.pitch);
    middle = cut.template take<T>(shape.pitch);
    result = cut.template take<T>(shape.pitch);
    outside = cut.template take<std::int64_t>(job.along.size);
    lines = cut.template take<const T*>(shape.most_taps);
    columns = cut.template take<const T*>(job.along.size);
    down = cut.template take<T>(shape.most_taps);
    along = cut.template take<T>(job.along.size);
  }
};

// Rows [begin, end) of one image.
struct Piece {
  const char* from;
  char* to;
  std::int64_t begin, end;
};

// A row of results, in the result's own memory if it is of the computing type.
template <class T>
struct ResultRow {
  const FilterJob& job;
  const ElementCalls<T>& calls;
  char* at;
  T* line;

  ResultRow(const FilterJob& what, const ElementCalls<T>& how, char* to, T* scratch)
      : job(what), calls(how), at(to), line(in_place(what) ? reinterpret_cast<T*>(to) : scratch) {}
  static bool in_place(const FilterJob& job) {
    return job.to_element == (sizeof(T) == 4 ? Element::f32 : Element::f64) &&
           job.to_column == static_cast<std::ptrdiff_t>(sizeof(T));
  }
  void finish(std::int64_t count) const {
    if (!in_place(job)) calls.write(line, at, job.to_column, count);
  }
};

template <class T>
struct Member {
  const FilterJob& job;
  const Shape<T>& shape;
  const Area<T>& area;
  ElementCalls<T> reads, writes;

  Member(const FilterJob& what, const Shape<T>& blocks, const Area<T>& own)
      : job(what),
        shape(blocks),
        area(own),
        reads(element_calls<T>(what.from_element)),
        writes(element_calls<T>(what.to_element)) {}

  // Sums in order begin with the last tap, as SciPy's do.
  Taps<T> taps_of(const double* values, std::int64_t count, T* to) const {
    const Symmetry symmetry = symmetry_of(values, count);
    const std::int64_t first = symmetry == Symmetry::none ? count - 1 : 0;
    for (std::int64_t k = 0; k < count; ++k) to[k] = static_cast<T>(values[(first + k) % count]);
    return {symmetry, count, to};
  }

  void separable(const Piece& piece) const {
    const Taps<T> down = taps_of(job.down_taps, job.down.size, area.down),
                  along = taps_of(job.along_taps, job.along.size, area.along);
    const std::int64_t first_down = down.symmetry == Symmetry::none ? down.count - 1 : 0,
                       first_along = along.symmetry == Symmetry::none ? along.count - 1 : 0;
    const bool sums_down = down.count > 1 || down.values[0] != 1, sums_along = along.count > 1 || along.values[0] != 1;
    for (std::int64_t k = 0; k < along.count; ++k) area.columns[k] = area.middle + (first_along + k) % along.count;
    for (std::int64_t column = 0; column < job.width; column += shape.columns) {
      const std::int64_t count = smaller(shape.columns, job.width - column);
      ImageRows<T> rows{job, reads, 0, 0, 0, 0, area.outside};
      rows.set(column - job.along.before, count + job.along.size - 1);
      std::int64_t next = piece.begin - job.down.before;  // the first row that is not in the strip
      for (std::int64_t row = piece.begin; row < piece.end; ++row) {
        const std::int64_t top = row - job.down.before;
        for (; next < top + down.count; ++next) rows.fetch(piece.from, next, slot(next));
        for (std::int64_t k = 0; k < down.count; ++k) area.lines[k] = slot(top + (first_down + k) % down.count);
        char* const to = piece.to + row * job.to_row + column * job.to_column;
        const ResultRow<T> result(job, writes, to, area.result);
        T* const middle = sums_along ? area.middle : result.line;
        sum_tap_lines(down, area.lines, rows.width, middle);
        if (sums_along) {
          if (sums_down && job.rounded && writes.round) writes.round(middle, rows.width);
          if (sums_down && job.along.edge == Edge::constant) {
            rows.continue_with(middle, [&](std::int64_t i) { return middle[i - rows.begin]; });
          }
          sum_tap_lines(along, area.columns, count, result.line);
        }
        result.finish(count);
      }
    }
  }

  CONVKIT_INLINE T* slot(std::int64_t row) const {
    const std::int64_t at = row % shape.lines;
    return area.strip + (at < 0 ? at + shape.lines : at) * shape.pitch;
  }

  // The weights of one filter that count, and where their lines begin in the strip.
  Taps<T> weights_of(std::int64_t filter) const {
    const std::int64_t window = job.down.size * job.along.size;
    const double* const weights = job.weights + filter * window;
    std::int64_t count = 0;
    for (std::int64_t i = 0; i < window; ++i) {
      if (magnitude(weights[i]) <= epsilon) continue;
      area.down[count] = static_cast<T>(weights[i]);
      area.lines[count++] = area.strip + i / job.along.size * shape.pitch + i % job.along.size;
    }
    if (count == 0) {
      area.down[count] = 0;
      area.lines[count++] = area.strip;
    }
    return {Symmetry::none, count, area.down};
  }

  void dense(const Piece& piece) const {
    for (std::int64_t column = 0; column < job.width; column += shape.columns) {
      const std::int64_t count = smaller(shape.columns, job.width - column);
      ImageRows<T> rows{job, reads, 0, 0, 0, 0, area.outside};
      rows.set(column - job.along.before, count + job.along.size - 1);
      for (std::int64_t row = piece.begin; row < piece.end; row += strip_rows) {
        const std::int64_t high = smaller(strip_rows, piece.end - row);
        for (std::int64_t i = 0; i < high + job.down.size - 1; ++i) {
          rows.fetch(piece.from, row - job.down.before + i, area.strip + i * shape.pitch);
        }
        for (std::int64_t filter = 0; filter < job.filters; ++filter) {
          const Taps<T> taps = weights_of(filter);
          for (std::int64_t i = 0; i < high; ++i) {
            char* const to = piece.to + filter * job.to_filter + (row + i) * job.to_row + column * job.to_column;
            const ResultRow<T> result(job, writes, to, area.result);
            sum_tap_lines(taps, area.lines, count, result.line);
            result.finish(count);
            for (std::int64_t k = 0; k < taps.count; ++k) area.lines[k] += shape.pitch;
          }
        }
      }
    }
  }

  void uniform(const Piece& piece) const {
    const T high = static_cast<T>(job.down.size), wide = static_cast<T>(job.along.size);
    const bool sums_down = job.down.size > 1, sums_along = job.along.size > 1;
    for (std::int64_t column = 0; column < job.width; column += shape.columns) {
      const std::int64_t count = smaller(shape.columns, job.width - column);
      ImageRows<T> rows{job, reads, 0, 0, 0, 0, area.outside};
      rows.set(column - job.along.before, count + job.along.size - 1);
      std::int64_t next = piece.begin - job.down.before;
      for (std::int64_t row = piece.begin; row < piece.end; ++row) {
        const std::int64_t top = row - job.down.before;
        for (; next < top + job.down.size; ++next) rows.fetch(piece.from, next, slot(next));
        char* const to = piece.to + row * job.to_row + column * job.to_column;
        const ResultRow<T> result(job, writes, to, area.result);
        T* const middle = sums_along ? area.middle : result.line;
        const T* line = slot(top);
        for (std::int64_t i = 0; i < rows.width; ++i) middle[i] = line[i];
        for (std::int64_t k = 1; k < job.down.size; ++k) {
          line = slot(top + k);
          for (std::int64_t i = 0; i < rows.width; ++i) middle[i] += line[i];
        }
        if (sums_down) {
          for (std::int64_t i = 0; i < rows.width; ++i) middle[i] /= high;
        }
        if (sums_along) {
          if (sums_down && job.rounded && writes.round) writes.round(middle, rows.width);
          if (sums_down && job.along.edge == Edge::constant) {
            rows.continue_with(middle, [&](std::int64_t i) { return middle[i - rows.begin]; });
          }
          T sum = 0;
          for (std::int64_t k = 0; k < job.along.size; ++k) sum += middle[k];
          result.line[0] = sum / wide;
          for (std::int64_t i = 1; i < count; ++i) {
            sum += middle[i + job.along.size - 1] - middle[i - 1];
            result.line[i] = sum / wide;
          }
        }
        result.finish(count);
      }
    }
  }

  void run(Share rows) const {
    while (rows.begin < rows.end) {
      const std::int64_t image = rows.begin / job.height, first = rows.begin % job.height,
                         last = smaller(job.height, first + rows.end - rows.begin);
      const Piece piece{job.from + image * job.from_image, job.to + image * job.to_image, first, last};
      switch (job.kind) {
        case FilterKind::dense: dense(piece); break;
        case FilterKind::separable: separable(piece); break;
        case FilterKind::uniform: uniform(piece); break;
      }
      rows.begin += last - first;
    }
  }
};

bool computes_in_float(const FilterJob& job) {
  return job.kind != FilterKind::uniform && job.from_element == Element::f32 && job.to_element == Element::f32;
}

template <class T>
std::int64_t area_of(const FilterJob& job) {
  Tally tally;
  const Area<T> area(job, Shape<T>(job), tally);
  return round_up(tally.used, 4096);
}

template <class T>
void run(const FilterJob& job, char* areas, int threads) {
  const Shape<T> shape(job);
  const std::int64_t bytes = area_of<T>(job);
  auto member = [&](int index, int size) {
    Carver cut{areas + bytes * index};
    const Area<T> area(job, shape, cut);
    Member<T>(job, shape, area).run(share(job.images * job.height, index, size));
  };
  team(threads, member);
}

}  // namespace

std::int64_t filter_area(const FilterJob& job, const Machine&) {
  return computes_in_float(job) ? area_of<float>(job) : area_of<double>(job);
}

void filter(const FilterJob& job, const Machine&, char* areas, int threads) {
  if (computes_in_float(job)) return run<float>(job, areas, threads);
  run<double>(job, areas, threads);
}

}  // namespace convkit::CONVKIT_ISA
