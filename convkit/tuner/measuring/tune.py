"""Measure one problem now: the race over its candidates, then its trials to the database as one session."""

from __future__ import annotations

import contextlib
import math

from convkit.problem import Problem
from convkit.tuner.choosing.selector import Case, Choice, Selector, UnsupportedAlgorithmError, selector
from convkit.tuner.evidence.records import Session, Trial
from convkit.tuner.evidence.tiers import COMMAND_WAIT
from convkit.tuner.inventory import Candidate
from convkit.tuner.measuring.race import Progress, Race, policy
from convkit.tuner.measuring.sampling import Sampler
from convkit.tuner.measuring.workbench import Workbench
from convkit.tuner.process import ForkSafeLock, planning

# Two races in one process would time each other.
_racing = ForkSafeLock()


def tune_problem(
    problem: Problem,
    threads: int,
    *,
    budget: float | None = None,
    at_most: float = math.inf,
    progress: Progress | None = None,
    store: bool = True,
    seed: int = 0,
    lock_wait: float = COMMAND_WAIT,
    choosing: Selector | None = None,
    sampler: Sampler | None = None,
) -> Choice:
    """Measure what the user's tier does not know yet of a problem, or all of it again if it is complete.

    Parameters
    ----------
    problem : Problem
    threads : int
        Team size.
    budget : float, optional
        Seconds; by default one or two.
    at_most : float
        Limit of the default budget, in seconds.
    progress : callable, optional
        Called as ``progress(done, total, text)`` after each sample.
    store : bool
        Append the trials to the user's database; otherwise they are known to this process only.
    seed : int
        Of the operands and of the order of candidates.
    lock_wait : float
        Seconds to wait at most if another process holds the database; then the trials are kept in memory.
    choosing : Selector, optional
        Whose user's tier learns; by default this process's.
    sampler : Sampler, optional
        Times the candidates; injected in tests.

    Returns
    -------
    Choice
        That results.

    Raises
    ------
    KeyboardInterrupt
        Between two samples; what was measured until then is stored.
    """
    choosing = choosing or selector()
    with _racing:
        with planning:
            case = choosing.on(problem, threads)
            candidates = entrants(case) if problem.multiply_adds else []
            seconds = min(default_budget(case), at_most) if budget is None else budget
            session = Session.begin(case.here, policy(seconds, seed))
        if candidates:
            sampler = sampler or Sampler(Workbench(problem, threads, seed), threads)
            race = Race(sampler, budget=seconds, seed=seed, progress=progress)
            try:
                race.run(candidates)
            finally:
                anchor = "" if race.anchor is None else race.anchor.stored
                session = session.closed(anchor, sampler.guard.reason(), race.noise_floor)
                trials = [Trial.of(session, str(problem), c.key, result) for c, result in race.results.items()]
                choosing.user.record(session, trials, store=store, lock_wait=lock_wait)
                choosing.forget(problem)
        return choosing.choose(problem, threads)


def entrants(case: Case) -> list[Candidate]:
    """Candidates in the order of screening: what calls run now, defaults by their predictions, then the other sets.

    However short the budget, what calls would run without it is measured: so the outcome is not slower.
    Where the user's tier knows some kernels already, only the others run beside, against the best of the known.
    """
    kernels, known = case.task.competitors, case.own
    first: list[Candidate] = []
    if known.ranked and known.missing:
        first = [row.candidate for row in known.ranked if not row.doubtful and not row.outdated][:2]
        kernels = [kernel for kernel in kernels if kernel.name in known.missing]
    # Calls that ask for nothing, those for direct summation, and those for speed alone.
    for accuracy in (None, "strict", "fast"):
        with contextlib.suppress(UnsupportedAlgorithmError):
            incumbent = case.choose(case.task.constraints(accuracy)).candidate
            first += [incumbent] if incumbent.kernel in kernels else []
    defaults = [row.candidate for row in case.predictions(kernels).ranked]
    others = [other for default in defaults for other in _spread(case.task.parameter_sets(default.kernel))]
    return list(dict.fromkeys(first + defaults + others))


def default_budget(case: Case) -> float:
    """A second or two; more if a run takes milliseconds. Samples of teams vary more: it takes more of them."""
    once = next((row.seconds for row in case.predictions().ranked), 0.0)
    usual = 2.0 if case.task.threads > 1 else min(max(1000 * once, 1.0), 2.0)
    return max(usual, min(300 * once, 4.0), min(80 * once, 10.0))


def _spread(sets: list[Candidate]) -> list[Candidate]:
    """The sets of a kernel in an order in which each is as far as can be from all before it, the default first."""

    def distance(a: Candidate, b: Candidate) -> float:
        pairs = zip(a.parameters, b.parameters, strict=True)
        return sum(abs(math.log((1 + one) / (1 + other))) for one, other in pairs)

    ordered, left = sets[:1], sets[1:]
    while left:
        farthest = max(left, key=lambda candidate: min(distance(candidate, known) for known in ordered))
        ordered.append(farthest)
        left.remove(farthest)
    return ordered
