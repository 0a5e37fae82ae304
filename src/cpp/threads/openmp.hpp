// The OpenMP runtimes in this process, found at run time: a second one beside that of PyTorch or scikit-learn would have
// threads of its own, which fight with the others for the CPUs.
#pragma once
#include <atomic>
#include <string>
#include <vector>

namespace convkit {

// What is asked of a runtime, all of it from one shared object. Compilers call GOMP_*; the runtimes of LLVM and Intel have
// them too.
struct OpenMp {
  std::string path;
  bool survives_fork = false;             // starts anew in a child by itself
  mutable std::atomic<bool> lost{false};  // in a child: whose workers may be the parent's

  void (*parallel)(void (*member)(void*), void* context, unsigned threads, unsigned flags) = nullptr;
  void (*barrier)() = nullptr;
  int (*thread_num)() = nullptr;
  int (*num_threads)() = nullptr;
  int (*in_parallel)() = nullptr;
  int (*max_threads)() = nullptr;
  int (*thread_limit)() = nullptr;
  int (*num_procs)() = nullptr;
  int (*num_places)() = nullptr;
  int (*place_num_procs)(int place) = nullptr;
  int (*pause_all)(int kind) = nullptr;  // OpenMP 5.0: may be missing
};

// What is loaded, as of the last look. Never changed and never freed: a team runs to its end with what it began with.
struct OpenMpView {
  const OpenMp* used = nullptr;       // null: none can be had, or none is wanted
  std::vector<const OpenMp*> loaded;  // all that a team of somebody else may run on
};

// Looks again if libraries were loaded or unloaded since. The runtime used is PyTorch's, else one that another library
// has loaded, else the system's libgomp, which is loaded if `load` says so.
const OpenMpView& look_for_openmp(bool load = true);

extern std::atomic<const OpenMpView*> last_openmp_view;  // null: none yet
// The last look; the first call is one. Throws std::invalid_argument if CONVKIT_OPENMP is neither "auto" nor "none".
inline const OpenMpView& openmp() {
  const OpenMpView* const view = last_openmp_view.load(std::memory_order_acquire);
  return view ? *view : look_for_openmp();
}

// Around fork: ends the calling thread's workers, so that the child can start its own. Where that cannot be, the child
// knows the runtime to be lost. Returns whether they were ended.
bool before_fork_openmp();
void after_fork_openmp(bool in_child);

}  // namespace convkit
