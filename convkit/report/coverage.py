"""What shipped files are worth today: how many problems each answers, how completely, and what is of no use in it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from convkit.problem import Problem
from convkit.tuner.choosing.ranking import rank
from convkit.tuner.evidence.records import Session, Trial
from convkit.tuner.evidence.shipped import ShippedTier, machine_of, packed
from convkit.tuner.evidence.tiers import Evidence
from convkit.tuner.inventory import Inventory
from convkit.tuner.machine import Context, MachineClass

__all__ = ["Coverage", "coverage", "prune"]

_AFFINITY = "unpinned"


class Coverage(NamedTuple):
    """What one shipped file says to today's kernels.

    Attributes
    ----------
    machine : MachineClass
        The class it was measured on, as far as the file's name tells.
    problems, trials : int
        A problem with two team sizes counts twice.
    complete : int
        Problems of which every kernel that competes has a trial at its current revision.
    outdated : int
        Problems whose best trial is of an older revision of its kernel: it is used until somebody measures anew.
    useless : int
        Trials that can decide nothing any more.
    """

    machine: MachineClass
    problems: int
    trials: int
    complete: int
    outdated: int
    useless: int


def coverage(path: Path, inventory: Inventory) -> Coverage:
    """Ask a shipped file for everything that it knows."""
    machine, everything = machine_of(path.name), _everything(path)
    complete = outdated = 0
    for problem, threads in sorted({(t.problem, s.threads) for s, t in everything}):
        task, here = inventory.on(Problem.parse(problem), threads), Context(machine, threads, _AFFINITY)
        ranking = rank([(s, t) for s, t in everything if t.problem == problem and s.threads == threads], task, here)
        complete += bool(ranking.ranked) and ranking.complete
        outdated += any(row.outdated for row in ranking.ranked[:1])
    problems = len({(t.problem, s.threads) for s, t in everything})
    return Coverage(machine, problems, len(everything), complete, outdated, len(_useless(everything, inventory)))


def prune(path: Path, inventory: Inventory, output: Path) -> int:
    """Write a shipped file again without the trials that can decide nothing; how many those are.

    Trials of an older revision stay if nothing newer is known of their kernel: they choose better than a model does.
    """
    everything = _everything(path)
    useless = _useless(everything, inventory)
    kept = [pair for pair in everything if pair[1] not in useless]
    output.write_bytes(packed({session.uuid: session for session, _ in kept}, [trial for _, trial in kept]))
    return len(useless)


def _everything(path: Path) -> Evidence:
    tier, machine = ShippedTier(str(path.parent)), machine_of(path.name)
    found: Evidence = []
    for problem, threads in tier.problems(Context(machine, 1, _AFFINITY)):
        found += tier.evidence([problem], Context(machine, threads, _AFFINITY))
    return found


def _useless(everything: Collection[tuple[Session, Trial]], inventory: Inventory) -> set[Trial]:
    """Trials whose kernel is gone, or refuses the parameters or the problem, or was measured again since."""
    useless, current = set(), set()
    outdated: list[tuple[Trial, tuple[str, int, str]]] = []
    for session, trial in everything:
        candidate = inventory.on(Problem.parse(trial.problem), session.threads).resolve(trial.kernel, trial.parameters)
        measured = trial.problem, session.threads, trial.kernel
        if candidate is None:
            useless.add(trial)
        elif trial.revision == candidate.kernel.revision:
            current.add(measured)
        else:
            outdated.append((trial, measured))
    return useless.union(trial for trial, measured in outdated if measured in current)
