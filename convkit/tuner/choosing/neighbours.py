"""Choosing for a problem that was never measured from the nearest ones that were.

Neighbours tell how far the cost model is off for each kernel around here; its predictions for this problem are
corrected by that. A kernel that no neighbour has measured is no candidate: nothing is known of it here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from convkit.problem import Problem
from convkit.tuner.choosing.ranking import Ranking
from convkit.tuner.inventory import Candidate

# In doublings: a neighbour differs by this much over all sizes together at most.
CUT_OFF = 2.0
NEIGHBOURS = 4
# Weight of a neighbour falls to a half at this distance. The bare cost model weighs as much as one at twice of it.
_HALF_WEIGHT = 0.5
_MODEL_WEIGHT = 0.25
# The neighbour's best parameters are taken over from this near, where they gained this much over its default ones.
_TAKE_OVER = 1.0
_GAIN = 1.05


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A measured problem, how far it is, and what is known of it."""

    problem: Problem
    threads: int
    distance: float
    ranking: Ranking


@dataclass(frozen=True, slots=True)
class Estimate:
    """A candidate with the time that its neighbours suggest."""

    candidate: Candidate
    seconds: float
    error: float | None


def distance(one: Problem, threads: int, other: Problem, other_threads: int) -> float:
    """Doublings between two problems of one kind; infinite for problems of different kinds."""
    if kind(one) != kind(other):
        return math.inf
    pairs = [(getattr(one, name), getattr(other, name)) for name in ("n", "c", "h", "w", "o")]
    pairs.append((threads, other_threads))
    return math.sqrt(sum(math.log2(a / b) ** 2 for a, b in pairs if a and b))


def kind(problem: Problem) -> tuple[object, ...]:
    """What must be equal for two problems to be neighbours."""
    groups = "one" if problem.groups == 1 else "each" if problem.groups == problem.c else str(problem.groups)
    return (
        problem.op, problem.dtype, problem.layout, problem.packed, problem.kh, problem.kw, problem.stride_h,
        problem.stride_w, problem.dilation_h, problem.dilation_w, groups, problem.epilogue,
    )  # fmt: skip


def nearest(
    problem: Problem, threads: int, measured: Iterable[tuple[str, int]]
) -> Iterator[tuple[float, Problem, int]]:
    """The measured problems, given as (text, threads), within the cut-off, nearest first, without this one."""
    head = f"{problem.op}-{problem.dtype}-{problem.layout}-"
    middle = f"k{problem.kh}x{problem.kw}-s{problem.stride_h}x{problem.stride_w}-"
    found: list[tuple[float, str, int, Problem]] = []
    for text, its_threads in measured:
        if not text.startswith(head) or middle not in text:
            continue
        try:
            other = Problem.parse(text)
        except ValueError:
            continue
        away = distance(problem, threads, other, its_threads)
        if away <= CUT_OFF and (other, its_threads) != (problem, threads):
            found.append((away, text, its_threads, other))
    for away, _, its_threads, other in sorted(found, key=lambda item: item[:3]):
        yield away, other, its_threads


def estimates(
    problem: Problem,
    threads: int,
    neighbours: list[Neighbour],
    parameter_sets: Callable[[str], list[Candidate]],
    predict: Callable[[Candidate, Problem, int], float],
) -> list[Estimate]:
    """Times of the kernels that the neighbours know, fastest first.

    Parameters
    ----------
    parameter_sets : callable
        The candidates of a kernel, by name, on this problem, the default first; none where it does not apply.
    predict : callable
        The cost model.
    """
    corrections: dict[str, list[tuple[float, float]]] = {}
    winners: dict[str, tuple[int, ...]] = {}
    errors: dict[str, float] = {}
    for neighbour in neighbours:
        weight = 0.5 ** (neighbour.distance / _HALF_WEIGHT)
        best_of_kernel: dict[str, tuple[float, Candidate]] = {}
        scale = _scale(neighbour)
        for row in neighbour.ranking.ranked:
            name = row.candidate.kernel.name
            if name not in best_of_kernel:
                best_of_kernel[name] = row.ratio * scale, row.candidate
            if row.error is not None:
                errors[name] = max(errors.get(name, 0.0), row.error)
        for name, (seconds, candidate) in best_of_kernel.items():
            expected = predict(candidate, neighbour.problem, neighbour.threads)
            corrections.setdefault(name, []).append((weight, math.log(seconds / expected)))
            if name not in winners and neighbour.distance <= _TAKE_OVER and _gained(neighbour, candidate):
                winners[name] = candidate.parameters
    found = []
    for name, pairs in corrections.items():
        sets = parameter_sets(name)
        if not sets:
            continue
        candidate = next((c for c in sets if c.parameters == winners.get(name)), sets[0])
        mean = sum(weight * value for weight, value in pairs) / (_MODEL_WEIGHT + sum(weight for weight, _ in pairs))
        found.append(Estimate(candidate, predict(candidate, problem, threads) * math.exp(mean), errors.get(name)))
    return sorted(found, key=lambda e: (e.seconds, e.candidate.kernel.index))


def _gained(neighbour: Neighbour, best: Candidate) -> bool:
    """Whether a kernel's best parameters clearly beat the others that were measured there."""
    others = [
        row.low
        for row in neighbour.ranking.ranked
        if row.candidate.kernel is best.kernel and row.candidate.parameters != best.parameters
    ]
    own = next(row.high for row in neighbour.ranking.ranked if row.candidate == best)
    return bool(others) and min(others) > _GAIN * own


def _scale(neighbour: Neighbour) -> float:
    """Seconds of the neighbour's best candidate: its ratios times this are seconds."""
    best = neighbour.ranking.ranked[0]
    return best.seconds / best.ratio if best.seconds else 1.0
