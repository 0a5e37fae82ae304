"""Settings of all tests: no user's database or environment decides one, and examples are the same each time."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

_ABOUT_THE_RUN = ("CONVKIT_OPENMP", "CONVKIT_SOAK")  # what a sanitizer can see, how long tests take
for _name in [name for name in os.environ if name.startswith("CONVKIT_") and name not in _ABOUT_THE_RUN]:
    del os.environ[_name]
# Read once, at first use: so it is set before any test imports the package. Subprocesses inherit it.
_home = tempfile.TemporaryDirectory(prefix="convkit-tests-")
os.environ["XDG_DATA_HOME"] = os.environ["XDG_CONFIG_DIRS"] = os.environ["XDG_DATA_DIRS"] = _home.name

hypothesis.settings.register_profile(
    "default",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=100,
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.filter_too_much],
)
hypothesis.settings.register_profile("thorough", hypothesis.settings.get_profile("default"), max_examples=2000)
hypothesis.settings.load_profile("default")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Processes that share the tests: one a CPU, and no more than a team of threads in each leaves room for."""
    return min(len(os.sched_getaffinity(0)), 8)


def pytest_unconfigure() -> None:
    """Remove the throw-away data directory."""
    _home.cleanup()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What the package logs in this test, as if it had logged nothing before."""
    import convkit

    convkit.reload()
    caplog.set_level("WARNING", logger="convkit")
    return caplog


@pytest.fixture(autouse=True)
def _environment_stays() -> Iterator[None]:
    """What a test, or a library that it loads, sets in the environment is gone after it; dask sets OMP_NUM_THREADS."""
    before = dict(os.environ)
    yield
    if dict(os.environ) != before:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A tuning database of this test's own, named by CONVKIT_DB; the package forgets it afterwards."""
    import convkit

    path = tmp_path / "trials.sqlite"
    monkeypatch.setenv("CONVKIT_DB", str(path))
    convkit.reload()
    yield path
    monkeypatch.undo()
    convkit.reload()
