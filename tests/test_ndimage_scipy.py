"""SciPy's names computed by convkit: patching, what is left to SciPy, and SciPy's own tests."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shims import fresh

from convkit import ndimage
from convkit.ndimage import patching

scipy_ndimage: Any = pytest.importorskip("scipy.ndimage", reason="SciPy is not installed")

# Tests of what is not patched: ranks, morphology's minima and maxima, filters by Python functions.
_OTHERS = (
    "minimum or maximum or minmax or median or rank or percentile or generic_filter or vectorized or 22250 or 22333 "
    "or 23075 or 22586 or ticket_701 or valid_origins1 or size_footprint"
)


@pytest.fixture
def patched() -> Iterator[list[str]]:
    """SciPy patched for arrays of any size; the names that SciPy's own functions were called by."""
    called: list[str] = []

    def noted(name: str, theirs: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            called.append(name)
            return theirs(*args, **kwargs)

        return call

    kept = {name: getattr(scipy_ndimage, name) for name in patching.NAMES}
    for name, theirs in kept.items():
        setattr(scipy_ndimage, name, noted(name, theirs))
    ndimage.patch_scipy(least_elements=12)
    yield called
    ndimage.unpatch_scipy()
    for name, theirs in kept.items():
        setattr(scipy_ndimage, name, theirs)


def test_calls_are_convkit_s(patched: list[str]) -> None:
    x = np.arange(20.0).reshape(4, 5)
    arguments = {"correlate": [[[1, 2]]], "convolve": [[[1, 2]]], "correlate1d": [[1, 2]], "convolve1d": [[1, 2]],
                 "uniform_filter1d": [3]}  # fmt: skip
    for name in patching.NAMES:
        rest = arguments.get(name, [1.0] if name.startswith("gaussian") else [])
        assert np.array_equal(getattr(scipy_ndimage, name)(x, *rest), getattr(ndimage, name)(x, *rest))
    assert scipy_ndimage.sobel(input=x, axis=0).shape == x.shape
    assert patched == []


def test_what_is_left_to_scipy(patched: list[str]) -> None:
    x = np.arange(24.0).reshape(2, 3, 4)
    scipy_ndimage.gaussian_filter(x[0, 0], 1)
    scipy_ndimage.gaussian_filter(x.tolist(), 1)
    scipy_ndimage.gaussian_filter(np.ma.masked_array(x), 1)
    scipy_ndimage.gaussian_gradient_magnitude(x, 1, axes=(1, 2))
    scipy_ndimage.correlate(x, np.ones((1, 2, 2)), axes=(1, 0, 2))
    assert len(patched) == 5
    with pytest.raises(RuntimeError, match=r"array type dtype.'float16'. not supported"):
        scipy_ndimage.gaussian_filter(x.astype(np.float16), 1)
    with pytest.raises(RuntimeError, match=r"^boundary mode not supported$"):
        scipy_ndimage.sobel(x, mode="edge")
    with pytest.raises(TypeError, match="argument"):
        scipy_ndimage.sobel(x, order=3)
    assert len(patched) == 8


def test_patches_are_counted() -> None:
    theirs, sobel = scipy_ndimage.gaussian_filter, scipy_ndimage.sobel
    ndimage.unpatch_scipy()
    ndimage.patch_scipy()
    wrapper = scipy_ndimage.gaussian_filter
    ndimage.patch_scipy(least_elements=0)
    assert scipy_ndimage.gaussian_filter is wrapper is not theirs
    assert wrapper.__doc__ == theirs.__doc__
    assert wrapper.__wrapped__ is theirs
    ndimage.unpatch_scipy()
    assert scipy_ndimage.gaussian_filter is wrapper
    scipy_ndimage.sobel = len
    ndimage.unpatch_scipy()
    assert scipy_ndimage.gaussian_filter is theirs
    assert scipy_ndimage.sobel is len
    scipy_ndimage.sobel = sobel
    with pytest.raises(ValueError, match="least_elements must be 0 or more, not -1"):
        ndimage.patch_scipy(least_elements=-1)


CHILDREN = """
import os, signal, sys, threading, warnings
warnings.simplefilter("ignore")  # newer Pythons warn about forks with threads
import scipy.ndimage
from convkit import ndimage
from convkit.ndimage import patching

theirs = {name: getattr(scipy.ndimage, name) for name in patching.NAMES}
midway = threading.Event()

class Slow(type(scipy.ndimage)):
    # The module, which gives a fork the time to happen in the middle of the names.
    def __setattr__(self, name, value):
        super().__setattr__(name, value)
        if name == patching.NAMES[6] and threading.current_thread() is thread:
            midway.set()
            threading.Event().wait(0.5)

def changed():
    return sum(getattr(scipy.ndimage, name) is not function for name, function in theirs.items())

if sys.argv[1] == "unpatch":
    ndimage.patch_scipy()
thread = threading.Thread(target=getattr(ndimage, sys.argv[1] + "_scipy"))
scipy.ndimage.__class__ = Slow
thread.start()
assert midway.wait(60)
child = os.fork()
if not child:
    signal.alarm(60)
    whole = changed() in (0, len(theirs))
    ndimage.patch_scipy()
    whole = whole and changed() == len(theirs)
    for _ in range(3):
        ndimage.unpatch_scipy()
    os._exit(0 if whole and not changed() else 1)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
thread.join()
assert status == 0, status
"""


@pytest.mark.parametrize("call", ["patch", "unpatch"])
def test_a_child_has_all_names_patched_or_none(call: str) -> None:
    fresh(CHILDREN, call)


def test_ctrl_c_in_the_middle_of_patching(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = {name: getattr(scipy_ndimage, name) for name in patching.NAMES}
    wrapped: list[str] = []

    def interrupted(name: str, *functions: Any) -> Any:
        wrapped.append(name)
        if len(wrapped) == 5:
            raise KeyboardInterrupt
        return either(name, *functions)

    either = patching._either
    monkeypatch.setattr(patching, "_either", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ndimage.patch_scipy()
    ndimage.patch_scipy()
    ndimage.unpatch_scipy()
    assert {name: getattr(scipy_ndimage, name) for name in patching.NAMES} == theirs


def test_without_scipy() -> None:
    told = fresh(
        """
        import sys
        sys.modules["scipy"] = None
        import numpy as np
        from convkit import ndimage
        print(ndimage.gaussian_filter(np.ones((9, 9)), 1)[4, 4].round(6))
        try:
            ndimage.patch_scipy()
        except ImportError as error:
            print(error)
        """
    )
    assert told.splitlines() == ["1.0", "patch_scipy needs SciPy, which is not installed: pip install scipy"]
    assert fresh("import sys, convkit.ndimage; print('scipy' in sys.modules)") == "False\n"


def test_scipy_s_own_tests(tmp_path: Path) -> None:
    """Those of the patched functions fail nowhere that SciPy does not fail itself."""
    found = importlib.util.find_spec("scipy.ndimage.tests.test_filters")
    if found is None or found.origin is None:
        pytest.skip("this SciPy comes without its tests")
    tests = Path(found.origin)
    # SciPy's tests look up what each function can do by the function itself.
    (tmp_path / "patched.py").write_text(
        "from convkit import ndimage\n"
        "from convkit.ndimage.patching import NAMES\n"
        "import scipy.ndimage\n"
        "from scipy._lib._array_api import xp_capabilities_table as table\n"
        "kept = {name: getattr(scipy.ndimage, name) for name in NAMES}\n"
        "ndimage.patch_scipy(least_elements=0)\n"
        "for name in NAMES:\n"
        "    table[getattr(scipy.ndimage, name)] = table[kept[name]]\n"
    )

    def failures(*arguments: str) -> set[str]:
        command = [sys.executable, "-m", "pytest", "-q", "-rfE", "-c", "/dev/null", f"--rootdir={tests.parents[2]}"]
        command += ["-p", "no:cacheprovider", "-W", "ignore", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode in (0, 1), done.stdout + done.stderr
        passed = re.search(r"(\d+) passed", done.stdout)
        assert passed is None or "-p" not in arguments or int(passed[1]) > 1000
        return set(re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE))

    ours = failures("-p", "patched", str(tests), "-k", f"not ({_OTHERS})")
    theirs = failures(*(str(tests.parents[2] / name) for name in sorted(ours))) if ours else set()
    assert ours <= theirs


def test_the_benchmark_s_rows(tmp_path: Path) -> None:
    path = Path(__file__).parent.parent / "bench" / "filters.py"
    if not path.exists():
        pytest.skip("a source distribution has no bench/")
    specification = importlib.util.spec_from_file_location("filters_benchmark", path)
    assert specification is not None
    assert specification.loader is not None
    bench = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(bench)
    row = bench.measure("small", lambda: bench.dense(bench.image(30, "float32"), 3), 1, ["scipy"], 0.0)
    assert row["seconds"].keys() == {"scipy", "convkit"}
    assert row["error"] < 1e-6
    assert bench.told(row).startswith("small, 1 threads: SciPy")
    (tmp_path / bench.STORED).write_text(json.dumps({"cpu": "A CPU", "when": "today", "versions": {}, "rows": [row]}))
    page = bench.rewritten("before\n<!-- by bench/filters.py --> old <!-- until here -->\nafter\n", [tmp_path])
    told = f"`python bench/filters.py`, A CPU ({tmp_path.name}), today; "
    assert page.startswith(f"before\n<!-- by bench/filters.py -->\n\n{told}")
    assert "| small | 1 | " in page
    assert page.endswith("<!-- until here -->\nafter\n")
    assert bench.rewritten(page, []).count("Nothing is stored yet") == 1
