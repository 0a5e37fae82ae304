#include "outputs.hpp"

#include <cstdlib>

#include "../workspace.hpp"
#include "plan.hpp"

namespace convkit::bindings {
namespace {

constexpr std::int64_t least_recycled = std::int64_t{32} << 20;
constexpr std::size_t alignment = 64;

// malloc's own address lies in the eight bytes before the data. malloc with the alignment made by hand takes half the time
// of aligned_alloc for the small outputs whose calls it matters to.
char* aligned_new(std::size_t bytes) {
  auto* start = static_cast<char*>(std::malloc(bytes + alignment + sizeof(void*)));
  if (!start) throw std::bad_alloc();
  const auto first = reinterpret_cast<std::uintptr_t>(start) + sizeof(void*);
  char* data = start + sizeof(void*) + (alignment - first % alignment) % alignment;
  reinterpret_cast<void**>(data)[-1] = start;
  return data;
}

void aligned_delete(PyObject* capsule) {
  void* data = PyCapsule_GetPointer(capsule, nullptr);
  std::free(static_cast<void**>(data)[-1]);
}

void give_back(PyObject* capsule) {
  auto* data = static_cast<std::byte*>(PyCapsule_GetPointer(capsule, nullptr));
  const auto bytes = reinterpret_cast<std::intptr_t>(PyCapsule_GetContext(capsule));
  output_pool().give(Block::adopt(data, bytes));
}

}  // namespace

PyObject* new_output(Dtype dtype, int ndim, const npy_intp* shape, const npy_intp* strides, std::int64_t bytes) {
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
      std::free(static_cast<void**>(data)[-1]);
      throw PythonError{};
    }
  }
  PyObject* array =
      PyArray_NewFromDescr(&PyArray_Type, PyArray_DescrFromType(numpy_type(dtype)), ndim, const_cast<npy_intp*>(shape),
                           const_cast<npy_intp*>(strides), data, NPY_ARRAY_WRITEABLE, nullptr);
  if (!array) {
    Py_DECREF(capsule);
    throw PythonError{};
  }
  PyArray_SetBaseObject(reinterpret_cast<PyArrayObject*>(array), capsule);  // takes the reference
  return array;
}

}  // namespace convkit::bindings
