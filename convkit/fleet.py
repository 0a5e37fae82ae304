"""Many machines: a list of problems cut into shards, and the same shards run by dask.distributed.

Workers measure on their own machine and send trials back as text; the caller's database takes their union. Workers of
one host never measure at the same time, for they would measure each other.
"""

from __future__ import annotations

import fcntl
import io
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from convkit.distribution import install_line
from convkit.problem import Problem

Job = tuple[Problem, int]
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class FleetResult:
    """What the workers brought home.

    Attributes
    ----------
    failed : list of str
        Problems that no worker could measure, with the reason.
    """

    trials: int
    sessions: int
    machines: tuple[str, ...]
    failed: tuple[str, ...]


def measure_shard(jobs: Sequence[tuple[str, int]], budget: float | None = None) -> tuple[str, list[str]]:
    """Run on a worker: measure problems, given as (text, threads), and return an export and what failed.

    Nothing is written on the worker. Thread counts are the jobs' own, whatever the worker's environment says.
    """
    from convkit.tuner.choosing.selector import selector
    from convkit.tuner.evidence.database import write_lines
    from convkit.tuner.measuring.tune import tune_problem

    failed = []
    # One measuring task a host at a time. Everybody may lock the directory itself; a file in it would be somebody's.
    host = os.open(tempfile.gettempdir(), os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(host, fcntl.LOCK_EX)
        for text, threads in jobs:
            try:
                tune_problem(Problem.parse(text), threads, budget=budget, store=False)
            except (ValueError, MemoryError) as error:
                failed.append(f"{text} with {threads} threads: {error}")
    finally:
        os.close(host)
    own = selector().user.own([text for text, _ in jobs])
    stream = io.StringIO()
    if own:
        write_lines(stream, {session.uuid: session for session, _ in own}.values(), [trial for _, trial in own])
    return stream.getvalue(), failed


def tune_with_dask(
    address: str | Any,
    jobs: Iterable[Job],
    *,
    budget: float | None = None,
    shard_size: int = 4,
    progress: Progress | None = None,
) -> FleetResult:
    """Measure problems on the workers of a dask.distributed scheduler and merge what they found.

    Parameters
    ----------
    address : str or distributed.Client
        Of the scheduler.
    jobs : iterable of (Problem, threads)
    budget : float, optional
        Seconds for each problem.
    shard_size : int
        Problems a task; a task that dies with its worker loses at most these, and dask runs it again elsewhere.
    progress : callable, optional
        Called as ``progress(done, total, text)`` when a shard has come home.

    Returns
    -------
    FleetResult
    """
    try:
        distributed = import_module("distributed")
    except ImportError as error:
        raise ImportError(f"tuning with dask needs the extra: {install_line('fleet')}") from error
    from convkit.tuner.evidence.database import open_user, read_lines
    from convkit.tuner.process import reload

    listed = [(str(problem), threads) for problem, threads in jobs]
    shards = [listed[i : i + shard_size] for i in range(0, len(listed), shard_size)]
    database = open_user(create=True)
    own = isinstance(address, str)
    client: Any = distributed.Client(address) if own else address
    sessions = trials = 0
    failed: list[str] = []
    machines: set[str] = set()
    try:
        # Results are not pure: the same shard measured on another worker is another session.
        futures = [client.submit(measure_shard, part, budget, pure=False) for part in shards]
        for done, future in enumerate(distributed.as_completed(futures), 1):
            try:
                text, reasons = future.result()
            except Exception as error:
                failed.append(f"a shard: {error}")
                continue
            failed += reasons
            if text:
                home = read_lines(io.StringIO(text))
                machines.update(session.machine for session in home[0])
                merged = database.add(*home)
                sessions, trials = sessions + merged.sessions, trials + merged.trials
            if progress is not None:
                progress(done, len(shards), f"{trials} trials")
    finally:
        if own:
            client.close()
    reload()
    return FleetResult(trials, sessions, tuple(sorted(machines)), tuple(failed))
