"""The examples' data-parallel training over MPI: sums of gradients, processes that fail, one database for all."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("mpi4py", reason="mpi4py (extra `mpi`) is not installed")
MPIEXEC = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
pytestmark = pytest.mark.skipif(MPIEXEC is None, reason="mpiexec (extra `mpi`) is not installed")

ROOT = Path(__file__).resolve().parent.parent

STEP = """
import sys
from pathlib import Path
import numpy as np
from examples.training import models, schedules, workers
from examples.training.data import shapes
from examples.training.group import join
from examples.training.layers import Context
from examples.training.network import Network
from examples.training.optimizers import SGD
from examples.training.trainer import Trainer

out, threads, layout = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
group = join()
workers.set_threads(threads)
network = Network(models.KERAS_CNN, (3, 28, 28), Context(layout, "float64", 7, threads))
trainer = Trainer(network, SGD(network), schedules.constant(0.01), group=group)
data = shapes.load("shapes", 28, 10, 46, 10)
losses = []
for _ in range(3):
    losses.append(trainer.step(data.train, data.train_labels)[0])
    if len(losses) == 1:
        first = network.gradients.copy()
error = trainer.error(data.test, data.test_labels, 7)
found = {"first": first, "values": network.values, "losses": losses, "error": error}
np.savez(out / f"{group.size}x{threads}-{group.rank}.npz", **found)
"""

FAIL = """
import os, signal, sys
from examples.training.__main__ import main
from examples.training.group import join
from examples.training.trainer import Trainer

how, step = sys.argv.pop(1), Trainer.step

def fail(self, *arguments):
    if join().rank == 1 and self.steps == 30:
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise RuntimeError("out of luck")
    return step(self, *arguments)

Trainer.step = fail
main()
"""

TUNE = """
import convkit as ck
from examples.training import models, schedules
from examples.training.data import shapes
from examples.training.group import join
from examples.training.layers import Context
from examples.training.network import Network
from examples.training.optimizers import SGD
from examples.training.trainer import Trainer

group = join()
network = Network(models.KERAS_CNN, (3, 28, 28), Context(threads=1))
trainer = Trainer(network, SGD(network), schedules.constant(0.01), group=group)
data = shapes.load("shapes", 28, 10, 16, 0)
with ck.tuning(mode="tune", budget="4s"):
    for _ in range(3):
        trainer.step(data.train, data.train_labels)
group.wait()
"""


def mpi(
    processes: int, *arguments: Any, by_mpi4py: bool = True, **environment: str
) -> subprocess.CompletedProcess[str]:
    assert MPIEXEC is not None
    module = ["-m", "mpi4py"] if by_mpi4py else []
    command = [MPIEXEC, "-n", str(processes), sys.executable, *module, *map(str, arguments)]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": paths, **environment},
    )  # fmt: skip


def program(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "program.py"
    path.write_text(text)
    return path


# The study's clusters were 5 nodes of 4 cores and 4 of 5; on fewer CPUs only the results mean anything.
@pytest.mark.parametrize(
    ("processes", "threads", "layout"), [(2, 1, "NHWC"), (1, 2, "NHWC"), (3, 1, "NCHW"), (5, 4, "NHWC"), (4, 5, "NHWC")]
)
def test_the_step_is_that_of_one_process_with_the_joined_batch(
    tmp_path: Path, processes: int, threads: int, layout: str
) -> None:
    path = program(tmp_path, STEP)
    for count, team in ((1, 1), (processes, threads)):
        done = mpi(count, path, tmp_path, team, layout)
        assert done.returncode == 0, done.stderr
    alone = np.load(tmp_path / "1x1-0.npz")
    for rank in range(processes):
        found = np.load(tmp_path / f"{processes}x{threads}-{rank}.npz")
        for name in ("first", "losses", "values"):
            np.testing.assert_allclose(found[name], alone[name], rtol=0, atol=1e-12, err_msg=f"{name} of {rank}")
        assert found["error"] == alone["error"]


@pytest.mark.parametrize("how", ["raise", "kill"])
def test_a_process_that_fails_ends_all_and_the_checkpoint_stays(tmp_path: Path, how: str) -> None:
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn, which is not installed")
    from examples.training import checkpoints, models
    from examples.training.layers import Context
    from examples.training.network import Network

    out = tmp_path / "out"
    path = program(tmp_path, FAIL)
    options = ("--quick", "--threads", 1, "--seeds", 1, "--epochs", 3, "--out", out)
    done = mpi(2, path, how, "keras-cnn", *options)
    assert done.returncode != 0
    if how == "raise":
        assert "process 1 of 2 failed: RuntimeError: out of luck" in done.stderr
        assert "checkpoints of the last whole epoch are intact" in done.stderr
    else:
        assert "Killed (signal 9)" in done.stdout + done.stderr
    network = Network(models.KERAS_CNN, (1, 28, 28), Context())
    assert checkpoints.load(out / "digits-0.npz", network)["steps"] == 23  # 1,437 digits in batches of 64


def test_without_mpi4py_in_front_it_does_not_start() -> None:
    done = mpi(2, "-m", "examples.training", "keras-cnn", "--quick", by_mpi4py=False)
    assert done.returncode != 0
    assert "python -m mpi4py -m examples.training" in done.stderr


def test_all_processes_share_one_database(tmp_path: Path) -> None:
    database = tmp_path / "trials.sqlite"
    done = mpi(2, program(tmp_path, TUNE), CONVKIT_DB=str(database))
    assert done.returncode == 0, done.stderr
    assert "database" not in done.stderr.lower(), done.stderr
    verified = subprocess.run(
        [sys.executable, "-m", "convkit", "db", "show"],
        capture_output=True, text=True, timeout=60, env={**os.environ, "CONVKIT_DB": str(database)},
    )  # fmt: skip
    assert verified.returncode == 0, verified.stderr
    import sqlite3

    with sqlite3.connect(database) as connection:
        (sessions,) = connection.execute("select count(*) from session").fetchone()
        (check,) = connection.execute("pragma integrity_check").fetchone()
    connection.close()
    assert sessions >= 2
    assert check == "ok"
