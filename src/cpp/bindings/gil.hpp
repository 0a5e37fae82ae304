// The one place that gives up the GIL and takes it back.
#pragma once
#include <Python.h>
#include <unistd.h>

#ifdef __GLIBCXX__
#include <cxxabi.h>
#endif

namespace convkit::bindings {

// Waits for the end of the process.
[[noreturn]] inline void stay_until_exit() {
  for (;;) pause();
}

// Runs `call`, which may have to take the GIL. If the interpreter is being finalized, CPython up to 3.13 ends the thread
// that asks for it by pthread_exit. That unwinds the stack by force, and the first noexcept function on it aborts the
// process. So the thread stays here until the process is gone, as CPython does itself from 3.14 on. To ask
// Py_IsFinalizing first would not do: it may begin while the thread waits.
template <class Call>
auto retaking_gil(Call&& call) -> decltype(call()) {
#ifdef __GLIBCXX__
  try {
    return call();
  } catch (const abi::__forced_unwind&) {
    stay_until_exit();
  }
#else
  return call();
#endif
}

// Without the GIL while it lives. Holds no lock: the thread may never come back from the destructor.
class ReleasedGil {
 public:
  explicit ReleasedGil(bool release = true) : state_(release ? PyEval_SaveThread() : nullptr) {}
  ~ReleasedGil() {
    if (state_) retaking_gil([this] { PyEval_RestoreThread(state_); });
  }
  ReleasedGil(const ReleasedGil&) = delete;
  ReleasedGil& operator=(const ReleasedGil&) = delete;

 private:
  PyThreadState* state_;
};

}  // namespace convkit::bindings
