"""Choosing for a problem that was never measured from the nearest ones that were.

Neighbours tell how far the cost model is off for each kernel around here; its predictions for this problem are
corrected by that. A kernel that no neighbour has measured is no candidate: nothing is known of it here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from convkit.problem import Problem
from convkit.tuner.choosing.cost_model import Constants
from convkit.tuner.choosing.ranking import Ranking, Row, expectations
from convkit.tuner.inventory import Task

# In doublings: a neighbour differs by this much over all sizes together at most.
CUT_OFF = 2.0
NEIGHBOURS = 4
# Weight of a neighbour falls to a half at this distance. The bare cost model weighs as much as one at twice of it.
_HALF_WEIGHT = 0.5
_MODEL_WEIGHT = 0.25
# The neighbour's best parameters are taken over from this near, if they gained this much over its default ones.
_TAKE_OVER = 1.0
_GAIN = 1.05


class Lesson(NamedTuple):
    """What a measured problem tells of a kernel.

    Attributes
    ----------
    correction : float
        Logarithm of the measured time of the kernel's best parameters over the predicted one.
    parameters : tuple of int or None
        Those parameters, unless the kernel's default ones were measured to be nearly as good.
    error : float or None
        The largest measured.
    """

    correction: float
    parameters: tuple[int, ...] | None
    error: float | None


class Neighbour(NamedTuple):
    """A measured problem, how far it is, and what it tells of each kernel, by name."""

    task: Task
    distance: float
    lessons: Mapping[str, Lesson]


class _Place(NamedTuple):
    """A measured problem, with one epilogue or several, among those of its kind."""

    sizes: tuple[float, ...]
    groups: str
    threads: int
    problems: dict[str, Problem]


class Neighbourhood:
    """The measured problems by kind. Their texts are read only when somebody asks for their kind.

    Parameters
    ----------
    measured : iterable of (str, int)
        Texts of problems, and team sizes.
    """

    def __init__(self, measured: Iterable[tuple[str, int]]) -> None:
        self._texts: dict[tuple[str, ...], list[tuple[str, int]]] = {}
        self._places: dict[tuple[str, ...], list[_Place]] = {}
        for text, threads in measured:
            self._texts.setdefault(_kind(text), []).append((text, threads))

    def nearest(self, problem: Problem, threads: int) -> Iterator[tuple[float, Problem, int]]:
        """The problems within the cut-off, nearest first, without this one; those with its own epilogue before others.

        Problems that differ in nothing but the epilogue are one.
        """
        kind = _kind(str(problem))
        if kind not in self._places:
            self._places[kind] = _read(self._texts.get(kind, ()))
        here, groups, bare = _sizes(problem, threads), _groups(problem), problem.bare()
        found = []
        for place in self._places[kind]:
            away = math.dist(here, place.sizes)
            if away <= CUT_OFF and place.groups == groups:
                other = place.problems.get(problem.epilogue_text) or next(iter(place.problems.values()))
                if away or other.bare() != bare:
                    found.append((away, str(other), place.threads, other))
        for away, _, its_threads, other in sorted(found, key=lambda item: item[:3]):
            yield away, other, its_threads


def _kind(text: str) -> tuple[str, ...]:
    """What must be equal for two problems to be neighbours, but for their groups; empty for what is no convolution."""
    parts = text.split("-")
    if len(parts) != 11:
        return ()
    op, dtype, layout, _, filters, stride, _, dilation, _, _, packed = parts
    return op, dtype, layout, filters.partition("k")[2], stride, dilation, packed


def _read(texts: Iterable[tuple[str, int]]) -> list[_Place]:
    places: dict[tuple[Problem, int], _Place] = {}
    for text, threads in texts:
        try:
            problem = Problem.parse(text)
        except ValueError:
            continue
        place = _Place(_sizes(problem, threads), _groups(problem), threads, {})
        places.setdefault((problem.bare(), threads), place).problems[problem.epilogue_text] = problem
    return list(places.values())


def _sizes(problem: Problem, threads: int) -> tuple[float, ...]:
    """What distances are taken between, in doublings."""
    p = problem
    return tuple(math.log2(max(size, 1)) for size in (p.n, p.c, p.h, p.w, p.o, threads))


def _groups(problem: Problem) -> str:
    return "one" if problem.groups == 1 else "each" if problem.groups == problem.c else str(problem.groups)


def lessons(task: Task, ranking: Ranking, constants: Constants) -> dict[str, Lesson]:
    """What a problem's ranking tells of each kernel in it."""
    ranked = ranking.ranked
    # Ratios times this are seconds.
    scale = ranked[0].seconds / ranked[0].ratio if ranked and ranked[0].seconds else 1.0
    of_kernels: dict[str, list[Row]] = {}
    for row in ranked:
        of_kernels.setdefault(row.candidate.kernel.name, []).append(row)
    found = {}
    for name, (best, *others) in of_kernels.items():
        expected = constants.predict(task, best.candidate)
        gained = not any(row.default and row.ratio <= _GAIN * best.ratio for row in (best, *others))
        errors = [row.error for row in (best, *others) if row.error is not None]
        found[name] = Lesson(
            math.log(best.ratio * scale / expected), best.candidate.parameters if gained else None,
            max(errors, default=None),
        )  # fmt: skip
    return found


def estimates(task: Task, neighbours: Sequence[Neighbour], constants: Constants) -> Ranking:
    """Times of the kernels that the neighbours know, fastest first."""
    weights = [0.5 ** (neighbour.distance / _HALF_WEIGHT) for neighbour in neighbours]
    found = []
    for kernel in task.competitors:
        name = kernel.name
        known = [(weight, n.lessons[name]) for weight, n in zip(weights, neighbours, strict=True) if name in n.lessons]
        if not known:
            continue
        winners = (n.lessons[name].parameters for n in neighbours if name in n.lessons and n.distance <= _TAKE_OVER)
        wanted = next((parameters for parameters in winners if parameters is not None), None)
        sets = task.parameter_sets(kernel)
        candidate = next((c for c in sets if c.parameters == wanted), sets[0])
        correction = sum(weight * lesson.correction for weight, lesson in known)
        mean = correction / (_MODEL_WEIGHT + sum(weight for weight, _ in known))
        error = max((lesson.error for _, lesson in known if lesson.error is not None), default=None)
        found.append((candidate, constants.predict(task, candidate) * math.exp(mean), error))
    return expectations("estimated", found, task)
