#include "cpu/limits.hpp"

#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <limits>
#include <sstream>
#include <vector>

namespace convkit {
namespace {

constexpr std::size_t most_sets = 1024;  // of 1024 CPUs each

// A line of /proc/self/cgroup: where this process is in one hierarchy.
struct Membership {
  std::string controllers;  // between commas; of version 1
  std::string path;
  bool unified;  // version 2
};

bool contains(const std::string& list, const std::string& name) {
  return ("," + list + ",").find("," + name + ",") != std::string::npos;
}

std::vector<Membership> memberships(const std::string& root) {
  std::vector<Membership> found;
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const std::size_t first = line.find(':');
    const std::size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    found.push_back({controllers, line.substr(second + 1), line.compare(0, first, "0") == 0 && controllers.empty()});
  }
  return found;
}

// A line of /proc/self/mountinfo: a hierarchy, or the part of it below `top`, and where it can be read.
struct Mount {
  std::string top, point, controllers;
  bool unified;
};

std::vector<Mount> mounts(const std::string& root) {
  std::vector<Mount> found;
  std::ifstream file(root + "/proc/self/mountinfo");
  for (std::string line; std::getline(file, line);) {
    const std::size_t bar = line.find(" - ");
    if (bar == std::string::npos) continue;
    std::string id, parent, device, type, source;
    Mount mount;
    std::istringstream(line) >> id >> parent >> device >> mount.top >> mount.point;
    std::istringstream(line.substr(bar + 3)) >> type >> source >> mount.controllers;
    mount.unified = type == "cgroup2";
    if (mount.unified || type == "cgroup") found.push_back(mount);
  }
  return found;
}

// A member's path as seen from a mount: without what lies above the mount. A process outside of what is mounted, as a
// container with a namespace of its own may look like, is taken to be at the top of it.
std::string below(const std::string& path, const std::string& top) {
  const std::string prefix = top == "/" ? "" : top;
  const bool inside = path.compare(0, prefix.size(), prefix) == 0 &&
                      (path.size() == prefix.size() || path[prefix.size()] == '/') &&
                      path.find("/..") == std::string::npos;
  const std::string rest = inside ? path.substr(prefix.size()) : "";
  return rest == "/" ? "" : rest;
}

// The numbers of a file, without those from the first word that is none on ("max").
std::vector<double> numbers(const std::string& path) {
  std::vector<double> found;
  std::ifstream file(path);
  for (double value; file >> value;) found.push_back(value);
  return found;
}

void tighten_cpus(double quota, double period, GroupLimits& limits) {
  if (quota > 0 && period > 0) limits.cpus = std::min(limits.cpus, quota / period);
}

void tighten_memory(const std::string& path, GroupLimits& limits) {
  const std::vector<double> bytes = numbers(path);
  // Version 1 writes a number near the largest one for no limit.
  if (bytes.size() == 1 && bytes[0] < 1e18) {
    limits.memory = std::min(limits.memory, static_cast<std::int64_t>(bytes[0]));
  }
}

void tighten(const Mount& mount, const std::string& directory, GroupLimits& limits) {
  if (mount.unified) {
    const std::vector<double> quota = numbers(directory + "/cpu.max");
    if (quota.size() == 2) tighten_cpus(quota[0], quota[1], limits);
    tighten_memory(directory + "/memory.max", limits);
    tighten_memory(directory + "/memory.high", limits);
    return;
  }
  if (contains(mount.controllers, "cpu")) {
    const std::vector<double> quota = numbers(directory + "/cpu.cfs_quota_us");
    const std::vector<double> period = numbers(directory + "/cpu.cfs_period_us");
    if (quota.size() == 1 && period.size() == 1) tighten_cpus(quota[0], period[0], limits);
  }
  if (contains(mount.controllers, "memory")) tighten_memory(directory + "/memory.limit_in_bytes", limits);
}

// True if this is the hierarchy that the process is a member of by this line.
bool shows(const Mount& mount, const Membership& member) {
  if (mount.unified || member.unified) return mount.unified && member.unified;
  std::istringstream names(member.controllers);
  for (std::string name; std::getline(names, name, ',');) {
    if (contains(mount.controllers, name)) return true;
  }
  return false;
}

}  // namespace

int allowed_cpus() {
  // The kernel refuses a mask that is smaller than its own, which may have more bits than cpu_set_t.
  for (std::size_t sets = 1; sets <= most_sets; sets *= 2) {
    std::vector<cpu_set_t> mask(sets);
    const std::size_t bytes = sets * sizeof(cpu_set_t);
    if (sched_getaffinity(0, bytes, mask.data()) == 0) return std::max(1, CPU_COUNT_S(bytes, mask.data()));
    if (errno != EINVAL) break;
  }
  return 1;
}

GroupLimits group_limits(const std::string& root) {
  GroupLimits limits{std::numeric_limits<double>::infinity(), std::numeric_limits<std::int64_t>::max()};
  const std::vector<Membership> members = memberships(root);
  for (const Mount& mount : mounts(root)) {
    for (const Membership& member : members) {
      if (!shows(mount, member)) continue;
      // A group may use what it and all groups around it may.
      for (std::string path = below(member.path, mount.top);; path.erase(path.rfind('/'))) {
        tighten(mount, root + mount.point + path, limits);
        if (path.empty()) break;
      }
    }
  }
  return limits;
}

}  // namespace convkit
