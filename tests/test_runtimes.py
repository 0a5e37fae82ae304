"""Whose threads teams run on: the OpenMP runtime that is in the process, the system's, or convkit's own."""

from __future__ import annotations

import ctypes.util
import os
from pathlib import Path

import pytest
from shims import SYSTEM_LIBGOMP, compiled, libgomp, preloaded, renamed_libgomp, run

PREAMBLE = """
import ctypes, os, sys
import numpy as np
import convkit as ck
from convkit import _core

shapes = iter(range(20, 60))

def call(threads=2, algorithm="im2col"):
    # A shape that no call had before, computed by a kernel with barriers, by this team and by one thread.
    size = next(shapes)
    x = np.random.default_rng(size).standard_normal((2, 32, size, 3 * size)).astype(np.float32)
    w = np.random.default_rng(1).standard_normal((32, 32, 3, 3)).astype(np.float32)
    alone = ck.conv2d(x, w, padding=1, num_threads=1, algorithm=algorithm)
    before = _core.counters()["teams_started"]
    assert np.array_equal(ck.conv2d(x, w, padding=1, num_threads=threads, algorithm=algorithm), alone)
    return _core.counters()["teams_started"] - before

def threads():
    return len(os.listdir("/proc/self/task"))

def in_child(work):
    # What `work` returns in a child, as a number; a hang is killed.
    import signal
    pid = os.fork()
    if pid == 0:
        status = 99
        signal.alarm(60)
        try:
            status = int(work())
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""

# As PyTorch's: a library of that name that needs a runtime, which its own code then runs on.
TORCH = """
#include <stddef.h>
void GOMP_parallel(void (*)(void *), void *, unsigned, unsigned);
int omp_get_num_threads(void);
static void member(void *size) { *(int *)size = omp_get_num_threads(); }
int team(int threads) { int size = 0; GOMP_parallel(member, &size, threads, 0); return size; }
"""


def torch_on(folder: Path, runtime: str) -> str:
    """A library such as PyTorch's, linked with this runtime."""
    return compiled(folder, TORCH, "libtorch_cpu.so", runtime, f"-Wl,-rpath,{folder}")


def llvm() -> str:
    """The file of LLVM's or Intel's runtime; skips the test where there is none, or none is wanted."""
    if os.environ.get("CONVKIT_OPENMP") == "none":
        pytest.skip("this run is about convkit's own threads")
    for name in ("omp", "omp5", "iomp5"):
        if found := ctypes.util.find_library(name):
            return found
    for found in ("/usr/lib/x86_64-linux-gnu/libomp.so.5",):
        if Path(found).exists():
            return found
    pytest.skip("neither LLVM's nor Intel's runtime is here")


def test_the_system_s_is_taken_when_it_is_first_needed() -> None:
    path = str(libgomp())
    out = run(
        PREAMBLE
        + """
def loaded():
    with open("/proc/self/maps") as maps:
        return "libgomp" in maps.read()
assert not loaded()
assert call() == 1
assert loaded()
print(_core.thread_runtime())
print(ck.show_config())
"""
    )
    assert Path(out.split("\n")[0]).samefile(path)
    assert SYSTEM_LIBGOMP in out.split("thread runtime")[1]


def test_one_that_another_library_brought_is_shared(tmp_path: Path) -> None:
    run(
        PREAMBLE
        + """
ctypes.CDLL(sys.argv[1])
assert call() == 1
assert _core.thread_runtime() == sys.argv[1]
with open("/proc/self/maps") as maps:
    assert sys.argv[2] not in maps.read()
""",
        renamed_libgomp(tmp_path, "libgomp-1.so"),
        SYSTEM_LIBGOMP,
    )


def test_one_that_comes_later_is_taken_from_the_next_new_shape_on(tmp_path: Path) -> None:
    run(
        PREAMBLE
        + """
assert call() == 1
before = _core.thread_runtime()
import threading
stop = threading.Event()
x, w = np.ones((1, 32, 40, 40), np.float32), np.ones((32, 32, 3, 3), np.float32)
y = ck.conv2d(x, w, num_threads=1, algorithm="im2col")
same = []
def work():
    while not stop.is_set():
        same.append(np.array_equal(ck.conv2d(x, w, num_threads=2, algorithm="im2col"), y))
workers = [threading.Thread(target=work, daemon=True) for _ in range(3)]
for worker in workers:
    worker.start()
ctypes.CDLL(sys.argv[1])
for team in (2, 3, 2):
    call(team)
stop.set()
for worker in workers:
    worker.join()
assert all(same)
assert _core.thread_runtime() == sys.argv[1] != before
""",
        renamed_libgomp(tmp_path, "libgomp-1.so"),
    )


@pytest.mark.parametrize("first", ["torch", "other", "convkit"])
def test_torch_s_is_taken_before_all_others(tmp_path: Path, first: str) -> None:
    own = renamed_libgomp(tmp_path, "libgomp-t.so")
    run(
        PREAMBLE
        + """
first, torch, other, own = sys.argv[1:]
if first == "convkit":
    call()
for library in (torch, other) if first == "torch" else (other, torch):
    ctypes.CDLL(library)
assert call() == 1
assert _core.thread_runtime() == own
alone = threads()
assert ctypes.CDLL(torch).team(2) == 2 and call() == 1
assert threads() == alone  # it is the same worker
""",
        first,
        torch_on(tmp_path, own),
        renamed_libgomp(tmp_path, "libgomp-2.so"),
        own,
    )


def test_what_is_preloaded_serves_torch_and_convkit(tmp_path: Path) -> None:
    own = renamed_libgomp(tmp_path, "libgomp-t.so")
    run(
        PREAMBLE
        + """
ctypes.CDLL(sys.argv[1])
assert call() == 1
assert _core.thread_runtime() == os.environ["LD_PRELOAD"]
""",
        torch_on(tmp_path, own),
        **preloaded(renamed_libgomp(tmp_path, "libgomp-p.so")),
    )


def test_one_that_lacks_a_function_is_passed_by(tmp_path: Path) -> None:
    path = libgomp()
    run(
        PREAMBLE
        + """
for library in sys.argv[2:]:
    ctypes.CDLL(library)
assert call() == 1
assert os.path.samefile(_core.thread_runtime(), sys.argv[1])
""",
        str(path),
        compiled(tmp_path, "void GOMP_parallel(void) {}", "libgomp-stub.so"),
        renamed_libgomp(tmp_path, "libgomp-3.so", "omp_get_place_num_procs"),
    )


@pytest.mark.parametrize("how", ["unwanted", "missing"])
def test_without_any_runtime_convkit_has_threads_of_its_own(tmp_path: Path, how: str) -> None:
    environment = {"CONVKIT_OPENMP": "none"}
    if how == "missing":
        source = """
        #define _GNU_SOURCE
        #include <dlfcn.h>
        #include <string.h>
        void *dlopen(const char *path, int mode) {
          void *(*open)(const char *, int) = dlsym(RTLD_NEXT, "dlopen");
          return path && !strcmp(path, "libgomp.so.1") ? 0 : open(path, mode);
        }
        """
        environment = {"CONVKIT_OPENMP": "auto", **preloaded(compiled(tmp_path, source))}
    run(
        PREAMBLE
        + """
alone = threads()
assert [call(size) for size in (2, 3, 8, 2)] == [1, 1, 1, 1]
# A thread sanitizer starts one of its own beside the first.
assert threads() == alone + 7 + ("libtsan" in os.environ.get("LD_PRELOAD", ""))
assert _core.thread_runtime() == ""
assert _core.default_threads() == 1
with open("/proc/self/maps") as maps:
    assert "libgomp" not in maps.read()
import threading
failures = []
def work():
    try:
        for size in (2, 5, 3):
            call(size)
    except BaseException as failure:
        failures.append(failure)
workers = [threading.Thread(target=work) for _ in range(4)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
assert not failures, failures
def child():
    before = threads()
    return call(3) == 1 and threads() == before + 2
assert in_child(child) == 1
assert call(4) == 1
print(ck.show_config())
""",
        OMP_NUM_THREADS="1,4",
        **environment,
    )


def test_the_runtimes_of_llvm_and_intel(tmp_path: Path) -> None:
    path = llvm()
    run(
        PREAMBLE
        + """
ctypes.CDLL(sys.argv[1], mode=ctypes.RTLD_GLOBAL)
assert [call(size) for size in (2, 3, 2)] == [1, 1, 1]
assert "omp" in _core.thread_runtime() and "libgomp.so.1" not in _core.thread_runtime()
name = _core.thread_runtime()
for _ in range(5):
    found = in_child(lambda: call(3) + 2 * (_core.thread_runtime() == name))
    assert found == 3, found
    assert call(3) == 1
""",
        path,
    )


def test_a_region_of_any_runtime_is_not_entered_twice(tmp_path: Path) -> None:
    run(
        PREAMBLE
        + """
first, second = [ctypes.CDLL(path) for path in sys.argv[1:]]
call()
assert _core.thread_runtime() == sys.argv[1]
seen = []
@ctypes.CFUNCTYPE(None, ctypes.c_void_p)
def member(_):
    seen.append((_core.default_threads(), call()))
for library in (first, second):
    seen.clear()
    library.GOMP_parallel(member, None, 2, 0)
    assert seen == [(1, 0), (1, 0)], seen
assert call() == 1
""",
        renamed_libgomp(tmp_path, "libgomp-1.so"),
        renamed_libgomp(tmp_path, "libgomp-2.so"),
    )


def test_children_have_teams_on_the_same_runtime() -> None:
    libgomp()
    run(
        PREAMBLE
        + """
assert call(3) == 1
name, team = _core.thread_runtime(), _core.default_threads()
def work():
    def again():
        return call(2) == 1 and _core.thread_runtime() == name
    return call(3) == 1 and _core.thread_runtime() == name and _core.default_threads() == team and in_child(again) == 1
for _ in range(20):
    assert in_child(work) == 1
    assert call(3) == 1
"""
    )


def test_a_child_of_which_only_another_library_ran_a_team(tmp_path: Path) -> None:
    own = renamed_libgomp(tmp_path, "libgomp-t.so")
    run(
        PREAMBLE
        + """
torch = ctypes.CDLL(sys.argv[1])
assert torch.team(3) == 3
for _ in range(5):
    assert in_child(lambda: call(3) == 1 and torch.team(3) == 3 and _core.thread_runtime() == sys.argv[2]) == 1
    assert torch.team(3) == 3
""",
        torch_on(tmp_path, own),
        own,
    )


def test_a_child_of_a_runtime_that_cannot_pause_has_other_threads(tmp_path: Path) -> None:
    old = renamed_libgomp(tmp_path, "libgomp-4.so", "omp_pause_resource_all")
    run(
        PREAMBLE
        + """
ctypes.CDLL(sys.argv[1])
assert call(3) == 1
team = _core.default_threads()
def work():
    before = threads()
    return (call(3) == 1 and threads() == before + 2
            and _core.thread_runtime() == "" and _core.default_threads() == team)
for _ in range(5):
    assert in_child(work) == 1
assert call(3) == 1
assert _core.thread_runtime() == sys.argv[1]
""",
        old,
    )


def test_a_fork_from_within_a_region(tmp_path: Path) -> None:
    own = renamed_libgomp(tmp_path, "libgomp-5.so")
    run(
        PREAMBLE
        + """
library = ctypes.CDLL(sys.argv[1])
assert call(2) == 1
statuses = []
@ctypes.CFUNCTYPE(None, ctypes.c_void_p)
def member(_):
    if library.omp_get_thread_num() == 0:
        statuses.append(in_child(lambda: call(2) == 0))
library.GOMP_parallel(member, None, 2, 0)
assert statuses == [1]
""",
        own,
    )


def test_a_switch_that_says_something_else_is_an_error() -> None:
    run(
        PREAMBLE
        + """
x, w = np.ones((1, 1, 3, 3), np.float32), np.ones((1, 1, 1, 1), np.float32)
for attempt in (_core.default_threads, lambda: ck.conv2d(x, w), lambda: ck.conv2d(x, w, num_threads=2),
                lambda: ck.Conv2d(w)(x)):
    try:
        attempt()
    except ValueError as error:
        assert "CONVKIT_OPENMP" in str(error) and "'auto' or 'none'" in str(error) and "intel" in str(error)
    else:
        raise AssertionError(attempt)
assert in_child(lambda: True) == 1
""",
        CONVKIT_OPENMP="intel",
    )


@pytest.mark.parametrize("openmp", ["auto", "none"])
def test_members_compute_as_their_caller_does(tmp_path: Path, openmp: str) -> None:
    if openmp == "auto":
        libgomp()
    # Rounding towards zero, or subnormals taken and given as zeros: the bits that the caller gets alone.
    library = compiled(
        tmp_path,
        """
        #include <xmmintrin.h>
        void set_control(unsigned bits) { _mm_setcsr((_mm_getcsr() & 0x1f80) | bits); }
        unsigned control(void) { return _mm_getcsr() & 0xe040; }
        """,
    )
    run(
        PREAMBLE
        + """
library = ctypes.CDLL(sys.argv[1])
random = np.random.default_rng(0)
tiny = np.float32(2.0**-126)
# Three of four products are below the smallest normal number, all values are not.
x = (random.standard_normal((2, 32, 40, 41)) * np.exp2(random.integers(-76, -60, (2, 32, 40, 41)))).astype(np.float32)
w = (random.standard_normal((32, 32, 3, 3)) * np.exp2(random.integers(-66, -60, (32, 32, 3, 3)))).astype(np.float32)
for accuracy, expected in (("strict", 3), ("standard", 2)):
    different = set()
    for bits in (0, 0x6000, 0x8040):
        results = []
        for team in (1, 2, 3):
            for algorithm in ("im2col", "direct", "winograd4"):
                library.set_control(bits)
                results.append(ck.conv2d(x, w, padding=1, num_threads=team, algorithm=algorithm, accuracy=accuracy))
                assert library.control() == bits
                library.set_control(0)
        assert all(np.array_equal(result, results[i % 3]) for i, result in enumerate(results))
        different.add(results[0].tobytes())
    assert len(different) == expected
# What the members did is theirs no longer afterwards.
again = ck.conv2d(x, w, padding=1, num_threads=3, algorithm="im2col", accuracy="strict")
assert np.array_equal(again, ck.conv2d(x, w, padding=1, num_threads=1, algorithm="im2col", accuracy="strict"))
""",
        library,
        CONVKIT_OPENMP=openmp,
    )
