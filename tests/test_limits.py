"""What a process may use: its CPUs, quotas and memory of its control groups, threads that can still be started."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from shims import compiled, libgomp, preloaded, run

from convkit import _core
from convkit.tuner import machine

NONE = {"cpus": math.inf, "memory": 2**63 - 1}
UNIFIED = "30 23 0:26 {top} /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
CPU = "33 25 0:29 {top} /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
MEMORY = "34 25 0:30 {top} /sys/fs/cgroup/memory rw,nosuid shared:10 - cgroup cgroup rw,memory\n"
OTHERS = (
    "23 28 0:22 / /proc rw,nosuid shared:14 - proc proc rw\n"
    "28 1 259:2 / / rw,relatime shared:1 - ext4 /dev/root rw,discard\n"
)


def limits(root: Path, groups: str, mounts: str, files: Mapping[str, str]) -> dict[str, float]:
    """The limits that a process reads where /proc/self and /sys/fs/cgroup say this."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    (root / "proc/self/mountinfo").write_text(OTHERS + mounts)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return _core.group_limits(str(root))


def test_without_control_groups_there_is_no_limit(tmp_path: Path) -> None:
    assert _core.group_limits(str(tmp_path)) == NONE
    assert limits(tmp_path, "", "", {}) == NONE


def test_a_systemd_scope_and_the_slices_around_it(tmp_path: Path) -> None:
    # The quota is in a slice in the middle, the memory limit in the scope itself.
    found = limits(
        tmp_path,
        "0::/user.slice/user-1000.slice/run-r1.scope\n",
        UNIFIED.format(top="/"),
        {
            "user.slice/cpu.max": "max 100000\n",
            "user.slice/memory.max": "max\n",
            "user.slice/user-1000.slice/cpu.max": "150000 100000\n",
            "user.slice/user-1000.slice/memory.max": "8589934592\n",
            "user.slice/user-1000.slice/run-r1.scope/cpu.max": "400000 100000\n",
            "user.slice/user-1000.slice/run-r1.scope/memory.max": "1073741824\n",
            "user.slice/user-1001.slice/cpu.max": "10000 100000\n",
        },
    )
    assert found == {"cpus": 1.5, "memory": 2**30}


def test_where_reclaim_begins_is_a_limit_too(tmp_path: Path) -> None:
    found = limits(
        tmp_path,
        "0::/a\n",
        UNIFIED.format(top="/"),
        {"a/memory.max": "4294967296\n", "a/memory.high": "2147483648\n"},
    )
    assert found == {"cpus": math.inf, "memory": 2**31}


def test_a_container_with_a_namespace_of_its_own(tmp_path: Path) -> None:
    files = {"cpu.max": "50000 100000\n", "memory.max": "536870912\n"}
    assert limits(tmp_path, "0::/\n", UNIFIED.format(top="/"), files) == {"cpus": 0.5, "memory": 2**29}


@pytest.mark.parametrize("path", ["/../../init.scope", "/..", "/elsewhere", "/docker/12"])
def test_a_member_outside_of_what_is_mounted(tmp_path: Path, path: str) -> None:
    files = {"cpu.max": "50000 100000\n", "init.scope/cpu.max": "10000 100000\n"}
    found = limits(tmp_path, f"0::{path}\n", UNIFIED.format(top="/docker/1"), files)
    assert found == {**NONE, "cpus": 0.5}


def test_version_1_in_a_container_that_sees_its_own_part(tmp_path: Path) -> None:
    found = limits(
        tmp_path,
        "12:memory:/docker/abc/job\n5:cpu,cpuacct:/docker/abc/job\n1:name=systemd:/docker/abc/job\n0::/\n",
        CPU.format(top="/docker/abc") + MEMORY.format(top="/docker/abc"),
        {
            "cpu,cpuacct/cpu.cfs_quota_us": "300000\n",
            "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            "cpu,cpuacct/job/cpu.cfs_quota_us": "-1\n",
            "cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
            "memory/memory.limit_in_bytes": "9223372036854771712\n",
            "memory/job/memory.limit_in_bytes": "268435456\n",
        },
    )
    assert found == {"cpus": 3.0, "memory": 2**28}


def test_both_versions_at_once(tmp_path: Path) -> None:
    found = limits(
        tmp_path,
        "4:memory:/one\n0::/two\n",
        MEMORY.format(top="/") + UNIFIED.format(top="/").replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified"),
        {
            "memory/one/memory.limit_in_bytes": "268435456\n",
            "memory/two/memory.limit_in_bytes": "1\n",
            "unified/two/cpu.max": "200000 100000\n",
            "unified/one/cpu.max": "1000 100000\n",
        },
    )
    assert found == {"cpus": 2.0, "memory": 2**28}


@pytest.mark.parametrize("text", ["", "max", "\n", "-1 100000", "0 0", "100000", "much 100000", "nan nan"])
def test_a_quota_that_says_nothing(tmp_path: Path, text: str) -> None:
    files = {"a/cpu.max": text, "a/memory.max": text}
    assert limits(tmp_path, "0::/a\n", UNIFIED.format(top="/"), files)["cpus"] == math.inf


def test_lines_that_nobody_expects(tmp_path: Path) -> None:
    found = limits(
        tmp_path,
        "\nnonsense\n0:\n0::\n7::x:y\n0::/with: colon\n" + "0::" + 300 * "/a" + "\n",
        "\n - \n1 2 - cgroup2\n" + UNIFIED.format(top="/"),
        {"with: colon/cpu.max": "100000 100000\n"},
    )
    assert found == {**NONE, "cpus": 1.0}


def test_a_process_keeps_to_its_group_and_its_child_to_another(tmp_path: Path) -> None:
    library = compiled(
        tmp_path,
        """
        #define _GNU_SOURCE
        #include <dlfcn.h>
        #include <stdio.h>
        #include <stdlib.h>
        #include <string.h>
        static FILE *open_below(const char *name, const char *path, const char *mode) {
          char below[4096];
          FILE *(*open)(const char *, const char *) = dlsym(RTLD_NEXT, name);
          if (!strncmp(path, "/proc/self/", 11) || !strncmp(path, "/sys/fs/cgroup/", 15)) {
            snprintf(below, sizeof below, "%s%s", getenv("FAKE_ROOT"), path);
            path = below;
          }
          return open(path, mode);
        }
        FILE *fopen(const char *path, const char *mode) { return open_below("fopen", path, mode); }
        FILE *fopen64(const char *path, const char *mode) { return open_below("fopen64", path, mode); }
        """,
    )
    limits(
        tmp_path,
        "0::/a/b\n",
        UNIFIED.format(top="/"),
        {"a/cpu.max": "90000 100000\n", "a/memory.max": "83886080\n", "a/b/cpu.max": "max 100000\n"},
    )
    run(
        """
        import os, pathlib
        from convkit import _core
        def most():
            return _core.counters()["most_output_bytes"]
        assert _core.available_cpus() == _core.default_threads() == 1
        assert most() == 10 << 20, most()
        group = pathlib.Path(os.environ["FAKE_ROOT"]) / "sys/fs/cgroup/a"
        (group / "cpu.max").write_text("max 100000\\n")
        (group / "memory.max").write_text("167772160\\n")
        assert _core.available_cpus() == 1 and most() == 10 << 20  # read once
        if child := os.fork():
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        else:
            os._exit(_core.available_cpus() != len(os.sched_getaffinity(0)) or most() != 20 << 20)
        """,
        FAKE_ROOT=str(tmp_path),
        **preloaded(library),
    )


def test_more_cpus_than_a_cpu_set_holds(tmp_path: Path) -> None:
    library = compiled(
        tmp_path,
        """
        #define _GNU_SOURCE
        #include <errno.h>
        #include <sched.h>
        #include <string.h>
        int sched_getaffinity(pid_t pid, size_t size, cpu_set_t *mask) {
          if (size < 5000 / 8) {
            errno = EINVAL;
            return -1;
          }
          memset(mask, 0, size);
          memset(mask, 0xff, 5000 / 8);
          return 0;
        }
        """,
    )
    out = run("from convkit import _core; print(_core.available_cpus())", **preloaded(library))
    quota = math.ceil(min(_core.group_limits()["cpus"], 5000))
    assert int(out) == quota


@pytest.mark.parametrize(
    ("name", "value"),
    [("OMP_PROC_BIND", "true"), ("OMP_PROC_BIND", "spread"), ("OMP_PLACES", "cores"), ("GOMP_CPU_AFFINITY", "{all}")],
)
def test_threads_that_openmp_bound_do_not_hide_the_others(name: str, value: str) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    count = run(
        "from convkit import _core; print(_core.available_cpus(), _core.default_threads())",
        **{name: value.format(all=" ".join(map(str, cpus)))},
    )
    expected = min(len(cpus), max(1, math.ceil(min(_core.group_limits()["cpus"], 1e6))))
    assert count.split() == [str(expected), str(expected)]


def test_a_place_is_all_that_there_is() -> None:
    libgomp()
    cpu = min(os.sched_getaffinity(0))
    out = run("from convkit import _core; print(_core.available_cpus())", GOMP_CPU_AFFINITY=str(cpu))
    assert out.strip() == "1"


STARVED = """
import os, resource, sys
import numpy as np
import convkit as ck
from convkit import _core
from convkit.tuner import machine

x = np.random.default_rng(0).standard_normal((2, 32, 64, 64)).astype(np.float32)
w = np.random.default_rng(1).standard_normal((32, 32, 3, 3)).astype(np.float32)

def threads():
    return len(os.listdir("/proc/self/task"))

def address_space():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()

def limit(spare):
    resource.setrlimit(resource.RLIMIT_AS, (address_space() + spare, resource.RLIM_INFINITY))

def call(number):
    return ck.conv2d(x, w, padding=1, num_threads=number, algorithm="im2col")

y = call(1)
alone = threads()
"""


def test_a_team_that_cannot_be_had_is_a_smaller_one() -> None:
    libgomp()
    run(
        STARVED
        + """
limit(500 << 20)
assert np.array_equal(call(8), y)
assert alone < threads() < alone + 7, threads()
limit(4 << 30)
assert np.array_equal(call(8), y)
assert threads() == alone + 7, threads()
""",
        OMP_STACKSIZE="200M",
    )


def test_no_room_for_any_thread() -> None:
    run(
        STARVED
        + """
limit(150 << 20)
for _ in range(3):
    assert np.array_equal(call(8), y)
assert threads() == alone
""",
        OMP_STACKSIZE="200M",
    )


def test_a_team_shrinks_and_cannot_grow_again() -> None:
    run(
        STARVED
        + """
assert np.array_equal(call(8), y)
assert np.array_equal(call(3), y)
import time
for _ in range(1000):  # those that are not needed end a little later
    if threads() <= alone + 2:
        break
    time.sleep(0.01)
ballast = np.empty(6 * 200 << 20, np.uint8)  # where the stacks were that glibc keeps
limit(250 << 20)
assert np.array_equal(call(8), y)
""",
        OMP_STACKSIZE="200M",
    )


def test_many_callers_grow_at_once() -> None:
    run(
        STARVED
        + """
import threading
threading.stack_size(1 << 20)
barrier = threading.Barrier(6)
same = []
def work():
    barrier.wait()
    for number in (2, 8, 3, 8, 5, 8):
        same.append(np.array_equal(call(number), y))
callers = [threading.Thread(target=work) for _ in range(6)]
for caller in callers:
    caller.start()
    if caller is callers[4]:
        limit(1 << 30)
for caller in callers:
    caller.join()
assert same == [True] * 36
""",
        OMP_STACKSIZE="100M",
    )


@pytest.mark.parametrize("openmp", ["auto", "none"])
def test_a_limit_on_the_number_of_threads(tmp_path: Path, openmp: str) -> None:
    if openmp == "auto":
        libgomp()
    """As `ulimit -u` and pids.max have it, which do not bind root: pthread_create fails from some number on."""
    library = compiled(
        tmp_path,
        """
        #define _GNU_SOURCE
        #include <dlfcn.h>
        #include <errno.h>
        #include <pthread.h>
        #include <stdatomic.h>
        #include <stdlib.h>
        static atomic_int left = 1 << 30;
        void set_left(int number) { left = number; }
        struct start { void *(*run)(void *); void *argument; };
        static void gone(void *unused) { ++left; }
        static void *begin(void *data) {
          struct start start = *(struct start *)data;
          void *result;
          free(data);
          pthread_cleanup_push(gone, 0);
          result = start.run(start.argument);
          pthread_cleanup_pop(1);
          return result;
        }
        int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument) {
          int (*create)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *) =
              dlsym(RTLD_NEXT, "pthread_create");
          if (--left < 0) {
            ++left;
            return EAGAIN;
          }
          struct start *start = malloc(sizeof *start);
          start->run = run;
          start->argument = argument;
          int status = create(thread, attributes, begin, start);
          if (status) ++left;
          return status;
        }
        """,
    )
    out = run(
        STARVED
        + """
import ctypes
left = ctypes.CDLL(os.environ["LD_PRELOAD"]).set_left
sizes = []
for number in (0, 1, 3, 30):
    left(number)
    assert np.array_equal(call(8), y)
    sizes.append(threads() - alone)
    left(0)
    for other in (8, 2, 8, 4):
        assert np.array_equal(call(other), y)
print(sizes)
""",
        CONVKIT_OPENMP=openmp,
        **preloaded(library),
    )
    assert out.split("\n")[0] == "[0, 1, 4, 7]"


@pytest.mark.parametrize(
    ("allowed", "siblings", "expected"),
    [
        ({0, 1, 2, 3}, "0-1 2,3", "unpinned"),
        ({0, 2}, "0-1 2,3", "cores"),
        ({1, 2, 3}, "0-1 2,3", "siblings"),
        ({0, 3}, "0,3 1-2", "siblings"),
        ({0, 1}, "", "cores"),
        ({0, 1}, "none", "cores"),
    ],
)
def test_how_a_process_is_bound(
    allowed: set[int], siblings: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for core in siblings.split():
        for cpu in range(4):
            if core == "none" or cpu in machine._cpu_list(core):
                folder = tmp_path / f"cpu{cpu}" / "topology"
                folder.mkdir(parents=True)
                (folder / "thread_siblings_list").write_text(f"{core}\n")
    monkeypatch.setattr(machine, "_cpu_count", lambda: 4)
    assert machine.affinity_class(str(tmp_path), allowed) == expected
