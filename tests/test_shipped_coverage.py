"""What shipped files are worth to the kernels of today, and what is left out of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from stand_ins import MACHINE, StandInCore
from test_database import make_session, make_trial
from typer.testing import CliRunner

from convkit import _core
from convkit.commands import app
from convkit.problem import Problem
from convkit.report.coverage import coverage, prune
from convkit.tuner.evidence.records import Session, Trial
from convkit.tuner.evidence.shipped import DIRECTORY, file_name, packed
from convkit.tuner.inventory import Inventory, core_inventory

SETTLED = Problem(n=1, c=8, h=16, w=16, o=8, kh=3, kw=3)
NEWER = SETTLED.replace(o=16)  # one of its kernels has changed since
OLDER = SETTLED.replace(o=32)  # its best kernel has
CORE = StandInCore(gemm={"seconds": 2e-3, "revision": 2}, other={"seconds": 1e-3})


def trial(session: Session, problem: Problem, kernel: str, revision: int, ratio: float, block: int = 8) -> Trial:
    return make_trial(
        session, problem=str(problem), kernel=f"f32_{kernel}__avx2", parameters=(block,), revision=revision,
        ratio=ratio, ratio_low=None, ratio_high=None,
    )  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A shipped file with three problems and with trials that are of no use any more."""
    session = make_session()
    trials = [
        trial(session, SETTLED, "gemm", 2, 1.0),
        trial(session, SETTLED, "gemm", 1, 1.5, block=16),  # was measured again
        trial(session, SETTLED, "other", 1, 2.0),
        trial(session, SETTLED, "gone", 1, 0.5),
        trial(session, SETTLED, "other", 1, 0.4, block=65),  # more than the schema allows
        trial(session, NEWER, "gemm", 1, 3.0),
        trial(session, NEWER, "other", 1, 1.0),
        trial(session, OLDER, "gemm", 1, 1.0),
        trial(session, OLDER, "other", 1, 4.0),
    ]
    path = tmp_path / file_name(MACHINE)
    path.write_bytes(packed({session.uuid: session}, trials))
    return path


def test_it_says_how_completely_a_class_is_answered(file: Path) -> None:
    found = coverage(file, Inventory(CORE))
    assert (found.machine.model, found.problems, found.trials) == (MACHINE.model, 3, 9)
    assert (found.complete, found.outdated, found.useless) == (1, 1, 3)


def test_pruning_leaves_out_what_can_decide_nothing(file: Path, tmp_path: Path) -> None:
    inventory = Inventory(CORE)
    (tmp_path / "pruned").mkdir()
    output = tmp_path / "pruned" / file.name
    assert prune(file, inventory, output) == 3
    found = coverage(output, inventory)
    # What is only outdated still answers: nothing better is known of the kernel.
    assert (found.problems, found.trials) == (3, 6)
    assert (found.complete, found.outdated, found.useless) == (1, 1, 0)
    assert prune(output, inventory, output) == 0


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def test_the_commands_look_after_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convkit.tuner.evidence.shipped.DIRECTORY", str(tmp_path))
    kernel = next(k for k in core_inventory().kernels if k.isa == _core.active_isa() and k.family == "im2col")
    session = make_session(isa=kernel.isa, machine=str(MACHINE._replace(isa=kernel.isa)))
    parameters = tuple(least for _, least, _ in kernel.schema)
    text = str(SETTLED.replace(op=kernel.op, dtype=kernel.dtype, layout=min(kernel.layouts)))
    trials = [
        make_trial(session, problem=text, kernel=name, revision=kernel.revision, parameters=parameters)
        for name in (kernel.name, "f32_gone__avx512")
    ]
    ours = tmp_path / file_name(MACHINE._replace(isa=kernel.isa))
    ours.write_bytes(packed({session.uuid: session}, trials))
    theirs = tmp_path / file_name(MACHINE._replace(isa="sve"))
    theirs.write_bytes(ours.read_bytes())
    before = ours.read_bytes()
    told = run("db", "shipped")
    assert ours.stem in told
    assert "needs its CPU" in told
    assert "would leave out 1 trials" in run("db", "prune", "--package", "--dry-run")
    assert ours.read_bytes() == before
    told = run("db", "prune", "--package")
    assert "left out 1 trials" in told
    assert "left alone" in told
    assert ours.read_bytes() != before
    assert theirs.read_bytes() == before
    assert "left out 0 trials" in run("db", "prune", "--package")
    run("db", "prune", "--package", "--contended", code=2)


@pytest.mark.parametrize("path", sorted(Path(DIRECTORY).glob("*.trials")), ids=lambda path: path.stem)
def test_nothing_that_is_shipped_is_of_no_use(path: Path) -> None:
    if f"-{_core.active_isa()}-" not in path.name:
        pytest.skip("its kernels are not in this CPU's inventory")
    found = coverage(path, core_inventory())
    assert found.problems > 0
    assert found.useless == 0
