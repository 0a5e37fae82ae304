// What replaces the GIL as a lock where the interpreter has none (CPython's free-threaded builds). In ordinary builds all of
// it is nothing.
//
// Rule: under a Guard nothing of Python is called but Py_INCREF, no memory is unmapped and no other lock is taken. Then
// nobody who waits for it keeps the interpreter from stopping all threads, which it does for a fork or a collection.
#pragma once
#include <Python.h>

#ifdef Py_GIL_DISABLED
#include <atomic>
#include <mutex>
#endif

namespace convkit::bindings {

#ifdef Py_GIL_DISABLED

// One of a fixed number of mutexes, by the address of what is guarded: so a fork can hold them all.
std::mutex& mutex_of(const void* guarded);

// To be called once, when the module is loaded.
void keep_mutexes_of_pybind11_free_in_children();

// Holds what belongs to `guarded` together while it lives.
class Guard {
 public:
  explicit Guard(const void* guarded) : lock_(mutex_of(guarded)) {}

 private:
  std::lock_guard<std::mutex> lock_;
};

// A number that all threads read and write.
template <class T>
using Shared = std::atomic<T>;

// Marks a variable of which each thread has one.
#define CONVKIT_PER_THREAD thread_local

#else

inline void keep_mutexes_of_pybind11_free_in_children() {}

class Guard {
 public:
  explicit Guard(const void*) {}
  ~Guard() {}  // so that no compiler finds it unused
};

template <class T>
using Shared = T;

#define CONVKIT_PER_THREAD

#endif

}  // namespace convkit::bindings
