#include "outputs.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "../workspace.hpp"
#include "plan.hpp"

namespace convkit::bindings {
namespace {

// What malloc would take from the system and give back: every page of it would be cleared anew, which costs as much as a
// whole depthwise layer.
constexpr std::int64_t least_recycled = (std::int64_t{128} << 10) + 1;
constexpr std::size_t alignment = 64;

// Small results are mostly of the size of one freed just before. The GIL guards the list: capsules die under it. Where there
// is no GIL each thread keeps what dies in it.
constexpr int most_kept = 16;
struct Kept {
  int count;
  char* data[most_kept];
  std::size_t bytes[most_kept];
};
CONVKIT_PER_THREAD Kept kept;

// Before the data lie malloc's own address and the size. malloc aligned by hand takes half the time of aligned_alloc.
struct Header {
  void* start;
  std::size_t bytes;
};

Header& header_of(void* data) { return static_cast<Header*>(data)[-1]; }

void free_all_kept() {
  while (kept.count > 0) std::free(header_of(kept.data[--kept.count]).start);
}

#ifdef Py_GIL_DISABLED

// Raised when all threads are to give back what they keep, which each does when it next makes or frees a result.
std::atomic<unsigned> clearings{0};
thread_local unsigned clearings_seen = 0;
thread_local bool leaving = false;

struct Leave {
  ~Leave() {
    free_all_kept();
    leaving = true;  // results that die in this thread from now on are not kept
  }
};

// False if this thread keeps nothing.
bool keeps_outputs() {
  thread_local Leave leave;
  if (const unsigned now = clearings; clearings_seen != now) {
    free_all_kept();
    clearings_seen = now;
  }
  return !leaving;
}

#else

constexpr bool keeps_outputs() { return true; }

#endif

char* aligned_new(std::size_t bytes) {
  keeps_outputs();
  for (int i = kept.count; i-- > 0;) {
    if (kept.bytes[i] != bytes) continue;
    char* data = kept.data[i];
    --kept.count;
    kept.data[i] = kept.data[kept.count];
    kept.bytes[i] = kept.bytes[kept.count];
    return data;
  }
  auto* start = static_cast<char*>(std::malloc(bytes + alignment + sizeof(Header)));
  if (!start) throw std::bad_alloc();
  const auto first = reinterpret_cast<std::uintptr_t>(start) + sizeof(Header);
  char* data = start + sizeof(Header) + (alignment - first % alignment) % alignment;
  header_of(data) = {start, bytes};
  return data;
}

void aligned_free(void* data) {
  const std::size_t bytes = header_of(data).bytes;
  if (!keeps_outputs()) return std::free(header_of(data).start);
  if (kept.count == most_kept) {
    std::free(header_of(kept.data[0]).start);  // the oldest
    --kept.count;
    std::memmove(kept.data, kept.data + 1, sizeof(kept.data[0]) * kept.count);
    std::memmove(kept.bytes, kept.bytes + 1, sizeof(kept.bytes[0]) * kept.count);
  }
  kept.data[kept.count] = static_cast<char*>(data);
  kept.bytes[kept.count++] = bytes;
}

void aligned_delete(PyObject* capsule) { aligned_free(PyCapsule_GetPointer(capsule, nullptr)); }

void give_back(PyObject* capsule) {
  auto* data = static_cast<std::byte*>(PyCapsule_GetPointer(capsule, nullptr));
  const auto bytes = reinterpret_cast<std::intptr_t>(PyCapsule_GetContext(capsule));
  output_pool().give(Block::adopt(data, bytes));
}

}  // namespace

void clear_kept_outputs() {
  output_pool().clear();
#ifdef Py_GIL_DISABLED
  ++clearings;
#endif
  free_all_kept();
}

PyObject* new_output(int numpy_type, int ndim, const npy_intp* shape, const npy_intp* strides, std::int64_t bytes) {
  void* data;
  PyObject* capsule;
  if (bytes >= least_recycled) {
    bool recycled;
    Block block = output_pool().take(bytes, &recycled);
    counters().outputs_recycled += recycled;
    capsule = checked(PyCapsule_New(block.data(), nullptr, give_back));
    PyCapsule_SetContext(capsule, reinterpret_cast<void*>(static_cast<std::intptr_t>(block.bytes())));
    data = block.release();
  } else {
    data = aligned_new(static_cast<std::size_t>(bytes));
    capsule = PyCapsule_New(data, nullptr, aligned_delete);
    if (!capsule) {
      aligned_free(data);
      throw PythonError{};
    }
  }
  PyObject* array =
      PyArray_NewFromDescr(&PyArray_Type, PyArray_DescrFromType(numpy_type), ndim, const_cast<npy_intp*>(shape),
                           const_cast<npy_intp*>(strides), data, NPY_ARRAY_WRITEABLE, nullptr);
  if (!array) {
    Py_DECREF(capsule);
    throw PythonError{};
  }
  PyArray_SetBaseObject(reinterpret_cast<PyArrayObject*>(array), capsule);  // takes the reference
  return array;
}

PyObject* new_dense_output(int numpy_type, std::int64_t element, int ndim, const npy_intp* shape) {
  std::vector<npy_intp> strides(static_cast<std::size_t>(ndim));
  npy_intp bytes = element;
  for (int i = ndim; i-- > 0;) {
    strides[static_cast<std::size_t>(i)] = bytes;
    if (__builtin_mul_overflow(bytes, shape[i], &bytes)) {
      raise(PyExc_MemoryError, "a result of shape " + shape_text(shape, ndim) + " is larger than any memory");
    }
  }
  // At least one byte: an array without elements has an address too.
  return new_output(numpy_type, ndim, shape, strides.data(), std::max<npy_intp>(bytes, 1));
}

}  // namespace convkit::bindings
