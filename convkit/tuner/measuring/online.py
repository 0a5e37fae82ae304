"""Online mode: the kernels of a problem compete on the caller's own convolutions.

Every result is a right one: before a kernel answers a call it passes the gate on operands of its own. When it is
settled, trials are written and the plan is cached as if it had been replayed.
"""

from __future__ import annotations

from collections.abc import Callable

from convkit.problem import Problem
from convkit.tuner.choosing.selector import Case, Selector
from convkit.tuner.evidence.records import Result, Session, Trial
from convkit.tuner.inventory import Candidate, Constraints
from convkit.tuner.machine import Context
from convkit.tuner.measuring.rounds import Rounds, RoundsReport
from convkit.tuner.measuring.workbench import CandidateError, Measurable, Workbench, admit
from convkit.tuner.process import ForkSafeLock, Slot, planning

# Kernels and parameters predicted much slower than the best are not tried on somebody's real work.
_PROMISING = 3.0
_PROMISING_PARAMETERS = 1.3
_MOST = 12


# A candidate, and what to tell the seconds of its run; nothing once the problem is settled.
Turn = tuple[Candidate, Callable[[float], None] | None]


class OnlineProblem:
    """One problem with one team size under one set of constraints.

    Parameters
    ----------
    bench : callable
        ``bench(problem, threads, seed)``, for the gate; injected in tests.
    """

    def __init__(
        self,
        selector: Selector,
        case: Case,
        constraints: Constraints,
        *,
        rounds: int = 8,
        bench: Callable[[Problem, int, int], Measurable] = Workbench,
    ) -> None:
        self._selector = selector
        self._case = case
        self._candidates = self._entrants(constraints)
        self._errors: dict[int, float] = {}
        self._rounds = Rounds([str(candidate) for candidate in self._candidates], rounds=rounds)
        self._make_bench = bench
        self._bench: Measurable | None = None

    def next(self) -> Turn | None:
        """The candidate for this call and what to tell its seconds; None if no candidate has passed the gate."""
        while True:
            with self._rounds.lock:
                if not self._rounds.alive:
                    return None
                index, round_number = self._rounds.next()
                candidate = self._candidates[index]
                if self._rounds.settled:
                    return candidate, None
                if index in self._errors or self._passes(index, round_number):
                    break

        def settle(seconds: float) -> None:
            self._rounds.add(index, round_number, seconds)
            results = self._rounds.harvest()
            if results:
                self._write(results)

        return candidate, settle

    def report(self) -> RoundsReport:
        """What happened so far."""
        return self._rounds.report()

    def _entrants(self, constraints: Constraints) -> list[Candidate]:
        case, task = self._case, self._case.task
        found: list[tuple[float, int, Candidate]] = []
        for kernel in task.competitors:
            for place, candidate in enumerate(task.parameter_sets(kernel)):
                if constraints.refusal(candidate, task.workspace(candidate), None) is None:
                    found.append((case.predict(candidate), place, candidate))
        if not found:
            case.model_choice(constraints)  # raises, and says why, as any other mode does
        best = min(seconds for seconds, _, _ in found)
        promising = [item for item in found if item[0] <= best * (_PROMISING_PARAMETERS if item[1] else _PROMISING)]
        promising.sort(key=lambda item: (item[1] > 0, item[0], item[2].kernel.index))
        return [candidate for _, _, candidate in promising[:_MOST]]

    def _passes(self, index: int, round_number: int) -> bool:
        """The gate, once for each candidate, before its first real call."""
        candidate = self._candidates[index]
        if self._bench is None:
            self._bench = self._make_bench(self._case.task.problem, self._case.task.threads, 0)
        try:
            self._errors[index] = admit(self._bench, candidate)[1]
        except CandidateError as refused:
            self._rounds.drop(index, round_number, str(refused))
            return False
        if len(self._errors) == len(self._rounds.alive):
            self._bench = None
        return True

    def _write(self, results: dict[int, Result]) -> None:
        task = self._case.task
        with planning:
            session = Session.begin(self._case.here, {"operands": "real calls"})
        session = session.closed(self._candidates[self._rounds.winner or 0].stored)
        trials = []
        for number, result in results.items():
            candidate = self._candidates[number]
            result = result._replace(error=self._errors.get(number), workspace=task.workspace(candidate))
            trials.append(Trial.of(session, str(task.problem), candidate.key, result))
        self._selector.user.record(session, trials)
        self._selector.forget(task.problem)


class Online:
    """All problems that are being explored in this process."""

    def __init__(self) -> None:
        self._lock = ForkSafeLock()
        self._problems: dict[tuple[Constraints, Context], OnlineProblem] = {}

    def next(self, selector: Selector, case: Case, constraints: Constraints) -> Turn | None:
        """The candidate for a call."""
        key = constraints, case.here  # what was chosen under one affinity says little about another
        with self._lock:
            found = self._problems.get(key)
            if found is None:
                found = self._problems[key] = OnlineProblem(selector, case, constraints)
        return found.next()

    def reports(self) -> list[RoundsReport]:
        """What happened so far, for each problem."""
        return [problem.report() for problem in list(self._problems.values())]


online = Slot(Online)
