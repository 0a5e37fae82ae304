#include "threads/openmp.hpp"

#include <dlfcn.h>
#include <link.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <mutex>
#include <new>
#include <stdexcept>

namespace convkit {
namespace {

constexpr char entry[] = "GOMP_parallel";
constexpr char torch_name[] = "libtorch_cpu.so";
constexpr char system_name[] = "libgomp.so.1";
constexpr int soft_pause = 1;  // omp_pause_soft

// The loader's count of what it loaded and unloaded, and the names of what there is, in the order of loading.
struct Objects {
  unsigned long long added = 0, removed = 0;
  std::vector<std::string> names;
  bool complete = true;
};

int count_objects(dl_phdr_info* info, std::size_t, void* context) {
  auto& objects = *static_cast<Objects*>(context);
  objects.added = info->dlpi_adds;
  objects.removed = info->dlpi_subs;
  return 1;  // the first one tells
}

int name_object(dl_phdr_info* info, std::size_t, void* context) noexcept {
  auto& objects = *static_cast<Objects*>(context);
  try {
    objects.names.emplace_back(info->dlpi_name);
  } catch (const std::bad_alloc&) {
    objects.complete = false;
  }
  return !objects.complete;
}

// The object that holds an address; empty if none does.
std::string holder_of(void* address) {
  Dl_info info;
  return address && dladdr(address, &info) && info.dli_fname ? info.dli_fname : "";
}

template <class Function>
bool fill(void* handle, const std::string& path, const char* name, Function*& function) {
  void* const address = dlsym(handle, name);
  // Through a handle the loader also finds what belongs to another object that this one needs.
  if (!address || holder_of(address) != path) return false;
  function = reinterpret_cast<Function*>(address);
  return true;
}

// Of everything that was ever found; under `looking`.
std::vector<const OpenMp*>& all_tables() {
  static auto* const tables = new std::vector<const OpenMp*>;
  return *tables;
}

class Search {
 public:
  const OpenMpView* look(bool load) {
    Objects now;
    dl_iterate_phdr(count_objects, &now);
    const bool same = view_ && now.added == seen_.added && now.removed == seen_.removed;
    if (same && (view_->used || !load || loaded_)) return view_;
    if (!same) examine_all(now);
    OpenMpView view;
    if (wanted()) {
      view.used = choose();
      if (!view.used && load) view.used = load_system();
    }
    loaded_ = loaded_ || load;
    for (const OpenMp* runtime : found_) {
      if (runtime->in_parallel) view.loaded.push_back(runtime);
    }
    if (!view_ || view_->used != view.used || view_->loaded != view.loaded) view_ = new OpenMpView(view);
    return view_;
  }

 private:
  static bool wanted() {
    const char* text = std::getenv("CONVKIT_OPENMP");
    if (!text || !*text || std::strcmp(text, "auto") == 0) return true;
    if (std::strcmp(text, "none") == 0) return false;
    throw std::invalid_argument("CONVKIT_OPENMP must be 'auto' or 'none', not '" + std::string(text) + "'");
  }

  void examine_all(Objects& now) {
    const std::size_t known = now.removed == seen_.removed ? seen_.names.size() : 0;  // else anything may have moved
    dl_iterate_phdr(name_object, &now);
    if (!now.complete) throw std::bad_alloc();
    if (known == 0) {
      found_.clear();
      torch_ = nullptr;
    }
    for (std::size_t i = known; i < now.names.size(); ++i) examine(now.names[i]);
    seen_ = std::move(now);
  }

  void examine(const std::string& name) {
    void* const handle = dlopen(name.empty() ? nullptr : name.c_str(), RTLD_LAZY | RTLD_NOLOAD);
    if (!handle) return;
    const std::size_t slash = name.rfind('/');
    const bool torch = name.compare(slash == std::string::npos ? 0 : slash + 1, std::string::npos, torch_name) == 0;
    const bool runtime = !name.empty() && holder_of(dlsym(handle, entry)) == name;
    if (torch) torch_ = handle;
    if (runtime) add(table_of(handle, name));
    if (!torch && !runtime) dlclose(handle);
  }

  void add(const OpenMp* table) {
    if (std::find(found_.begin(), found_.end(), table) == found_.end()) found_.push_back(table);
  }

  // The table of one object; its handle is kept, so that it is never unloaded.
  const OpenMp* table_of(void* handle, const std::string& path) {
    for (const OpenMp* known : all_tables()) {
      if (known->path == path) return known;
    }
    auto* table = new OpenMp;
    table->path = path;
    fill(handle, path, entry, table->parallel);
    fill(handle, path, "GOMP_barrier", table->barrier);
    fill(handle, path, "omp_get_thread_num", table->thread_num);
    fill(handle, path, "omp_get_num_threads", table->num_threads);
    fill(handle, path, "omp_in_parallel", table->in_parallel);
    fill(handle, path, "omp_get_max_threads", table->max_threads);
    fill(handle, path, "omp_get_thread_limit", table->thread_limit);
    fill(handle, path, "omp_get_num_procs", table->num_procs);
    fill(handle, path, "omp_get_num_places", table->num_places);
    fill(handle, path, "omp_get_place_num_procs", table->place_num_procs);
    fill(handle, path, "omp_pause_resource_all", table->pause_all);
    void (*fork_call)();
    table->survives_fork = fill(handle, path, "__kmpc_fork_call", fork_call);  // LLVM's and Intel's
    all_tables().push_back(table);
    return table;
  }

  static bool complete(const OpenMp& table) {
    return table.parallel && table.barrier && table.thread_num && table.num_threads && table.in_parallel &&
           table.max_threads && table.thread_limit && table.num_procs && table.num_places && table.place_num_procs;
  }

  const OpenMp* found(const std::string& path) const {
    for (const OpenMp* table : found_) {
      if (table->path == path && complete(*table)) return table;
    }
    return nullptr;
  }

  const OpenMp* choose() {
    // What every library that names OpenMP gets, whatever it was linked with.
    if (const OpenMp* global = found(holder_of(dlsym(RTLD_DEFAULT, entry)))) return global;
    if (torch_) {
      if (const OpenMp* own = found(holder_of(dlsym(torch_, entry)))) return own;
    }
    for (const OpenMp* table : found_) {
      if (complete(*table) && table->path != loaded_here_) return table;
    }
    return found(loaded_here_);
  }

  const OpenMp* load_system() {
    void* const handle = dlopen(system_name, RTLD_NOW | RTLD_LOCAL);
    if (!handle) return nullptr;
    loaded_here_ = holder_of(dlsym(handle, entry));
    add(table_of(handle, loaded_here_));
    return found(loaded_here_);
  }

  const OpenMpView* view_ = nullptr;
  Objects seen_;
  void* torch_ = nullptr;
  std::vector<const OpenMp*> found_;
  bool loaded_ = false;      // the system's was tried, if it was needed
  std::string loaded_here_;  // the system's, if nobody else had loaded it
};

std::mutex looking;
const OpenMp* ended = nullptr;  // under `looking`: whose workers ended before this fork

}  // namespace

std::atomic<const OpenMpView*> last_openmp_view{nullptr};

const OpenMpView& look_for_openmp(bool load) {
  static auto* const search = new Search;
  const std::lock_guard<std::mutex> lock(looking);
  const OpenMpView* const view = search->look(load);
  if (load || last_openmp_view.load(std::memory_order_relaxed)) last_openmp_view.store(view, std::memory_order_release);
  return *view;
}

bool before_fork_openmp() {
  const OpenMp* used = nullptr;
  try {
    used = look_for_openmp(false).used;
  } catch (const std::exception&) {
    // A child then trusts no runtime of its parent.
  }
  // Where no team ran, also none of another library, there is nothing to end, and that takes no time.
  const bool paused = used && used->pause_all && !used->survives_fork && used->pause_all(soft_pause) == 0;
  looking.lock();
  ended = paused ? used : nullptr;
  return paused;
}

void after_fork_openmp(bool in_child) {
  if (in_child) {
    for (const OpenMp* runtime : all_tables()) {
      if (runtime != ended && !runtime->survives_fork) runtime->lost.store(true);
    }
  }
  looking.unlock();
}

}  // namespace convkit
