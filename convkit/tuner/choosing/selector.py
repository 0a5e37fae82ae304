"""Which kernel for which problem: asks the tiers in order, on a miss of the plan cache only. Never times anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from typing import NamedTuple

from convkit.problem import Problem
from convkit.tuner.choosing.cost_model import Constants, default_constants, load
from convkit.tuner.choosing.intervals import median
from convkit.tuner.choosing.neighbours import NEIGHBOURS, Lesson, Neighbour, Neighbourhood, estimates, lessons
from convkit.tuner.choosing.ranking import Ranking, Row, expectations, rank
from convkit.tuner.evidence.tiers import FileTier, Tier, UserTier
from convkit.tuner.inventory import Candidate, Constraints, Inventory, Kernel, Task, core_inventory
from convkit.tuner.machine import Context, context, machine_class
from convkit.tuner.process import Slot, planning

_MOST_CASES = 256
# On thin evidence a candidate must be this much better than its rival; of a kernel that came after the measurements it
# must be predicted to be this much better than what was measured.
_CLEARLY = 1.05
_MUCH = 1.2


class UnsupportedAlgorithmError(ValueError):
    """The algorithm that was asked for does not take this problem; the text lists those that do."""


class Choice(NamedTuple):
    """A kernel with explicit parameters for a problem, and how it came to be chosen. `conv2d(algorithm=)` accepts it.

    Attributes
    ----------
    tier : str
        "user", "site", "shipped", "neighbour", "model", or "forced" if the caller named parameters.
    seconds : float
        Median of the measured times, or the prediction if `measured` is False.
    error : float or None
        Measured RMS error relative to RMS(y), on normal data.
    workspace : int
        Bytes.
    stale : bool
        Some applicable kernel has no trial at its current revision in the tier that answered.
    epilogue : str
        The one that `seconds` was measured with, if it is not the problem's own.
    """

    problem: Problem
    threads: int
    candidate: Candidate
    tier: str
    seconds: float
    measured: bool
    error: float | None
    workspace: int
    stale: bool = False
    epilogue: str = ""

    @property
    def kernel(self) -> str:
        """The kernel's full name."""
        return self.candidate.kernel.name

    @property
    def family(self) -> str:
        """The kernel's family."""
        return self.candidate.kernel.family

    @property
    def parameters(self) -> tuple[int, ...]:
        """The parameters in the order of the kernel's schema."""
        return self.candidate.parameters

    def __str__(self) -> str:
        how = "measured" if self.measured else "predicted"
        how += f" with {self.epilogue}" if self.epilogue else ""
        parameters = ",".join(map(str, self.parameters))
        return f"{self.kernel}({parameters}) {1e3 * self.seconds:.3f} ms {how}, from {self.tier}"


class TierAnswer(NamedTuple):
    """What one tier knows of a problem."""

    tier: str
    ranking: Ranking
    outcome: str


class Case:
    """A problem for a team here: what is known of it, and what a call would run.

    Parameters
    ----------
    selector : Selector
    task : Task
    here : Context
    """

    def __init__(self, selector: Selector, task: Task, here: Context) -> None:
        self.task: Task = task
        self.here: Context = here
        self._selector = selector
        self._answers: list[TierAnswer] | None = None
        self._neighbours: list[Neighbour] | None = None
        self._choices: dict[tuple[Constraints, str | None], Choice] = {}

    @property
    def answers(self) -> list[TierAnswer]:
        """What every tier knows of the problem, in order of asking; read once and then kept."""
        with planning:
            if self._answers is None:
                task, here, texts = self.task, self.here, self.task.problem.texts()
                self._answers = [
                    TierAnswer(tier.name, rank(tier.evidence(texts, here), task, here), tier.outcome())
                    for tier in (self._selector.tiers if task.problem.multiply_adds else ())
                ]
            return self._answers

    @property
    def measured(self) -> TierAnswer | None:
        """The first tier's answer that has evidence."""
        return next((answer for answer in self.answers if answer.ranking.ranked), None)

    def allowed(self) -> list[Row]:
        """Its candidates that may answer a call which asks for nothing, fastest first."""
        return [] if self.measured is None else self.measured.ranking.allowed(self.task.constraints())

    @property
    def own(self) -> Ranking:
        """What the user's tier knows."""
        return next((answer.ranking for answer in self.answers if answer.tier == "user"), Ranking())

    @property
    def complete(self) -> bool:
        """The user's tier answers, not only from screening, and no applicable kernel is left to measure."""
        return bool(self.own.ranked) and self.own.complete and not self.own.thin

    @property
    def tried(self) -> bool:
        """Every applicable kernel has a trial in the user's tier, be it from a contended machine."""
        return bool(self.own.ranked) and not self.own.untried

    @property
    def neighbours(self) -> list[Neighbour]:
        """The nearest measured problems of the same kind, nearest first; found once and then kept."""
        with planning:
            if self._neighbours is None:
                near = self._selector.neighbourhood(self.here).nearest(self.task.problem, self.task.threads)
                others = ((away, self._selector.on(problem, threads)) for away, problem, threads in near)
                found = (Neighbour(other.task, away, other.lessons) for away, other in others if other.lessons)
                self._neighbours = list(islice(found, NEIGHBOURS)) if self.task.problem.multiply_adds else []
            return self._neighbours

    @cached_property
    def lessons(self) -> dict[str, Lesson]:
        """What the measurements of this problem tell its neighbours."""
        # A race that had no time for most kernels is no neighbour: only kernels that were tried could take part.
        solid = (a.ranking for a in self.answers if a.ranking.ranked and not a.ranking.thin and not self._is_partial(a))
        ranking = next(solid, None)
        return {} if ranking is None else lessons(self.task, ranking, self._selector.constants)

    def _is_partial(self, answer: TierAnswer) -> bool:
        """Less than a third of the kernels were tried; what is shipped leaves out what nobody would choose."""
        known = {row.kernel for row in (*answer.ranking.ranked, *answer.ranking.failed)}
        return answer.tier != "shipped" and 3 * len(known) < len(self.task.competitors)

    def estimates(self) -> Ranking:
        """What the neighbours suggest for the kernels that they know."""
        return estimates(self.task, self.neighbours, self._selector.constants)

    def predict(self, candidate: Candidate) -> float:
        """Seconds that the cost model expects of a candidate."""
        return self._selector.constants.predict(self.task, candidate)

    def predictions(self, kernels: Iterable[Kernel] | None = None) -> Ranking:
        """What the cost model expects of each of the kernels, or of every competitor, with default parameters."""
        defaults = map(self.task.default, self.task.competitors if kernels is None else kernels)
        return expectations("predicted", ((c, self.predict(c), None) for c in defaults), self.task)

    def choose(self, constraints: Constraints | None = None, algorithm: object = None) -> Choice:
        """The best of the first tier that has one: the databases, the neighbours, the cost model."""
        constraints = constraints or self.task.constraints()
        if isinstance(algorithm, Choice):
            return self._given(algorithm)
        if algorithm is not None and not isinstance(algorithm, str):
            raise TypeError(f"algorithm must be a name or a choice from explain, got {type(algorithm).__name__}")
        key = constraints, algorithm
        with planning:
            if key not in self._choices:
                kernels = None if algorithm is None else self._named(algorithm)
                bounds = constraints if algorithm is None else constraints._replace(accuracy="fast")
                choice = self._first(self._tiers(kernels), bounds, kernels)
                decided = self._selector.decided((constraints, self.here, algorithm), choice)
                self._choices[key] = self._as_before(decided, choice)
            return self._choices[key]

    def _as_before(self, decided: Choice | Candidate, choice: Choice) -> Choice:
        """What was decided before, although there may be reasons for another choice now."""
        if isinstance(decided, Choice):
            return decided
        if decided == choice.candidate:
            return choice
        return choice._replace(
            candidate=decided, seconds=self.predict(decided), measured=False, error=None,
            workspace=self.task.workspace(decided),
        )  # fmt: skip

    def model_choice(self, constraints: Constraints | None = None) -> Choice:
        """What the cost model alone would choose."""
        return self._first([TierAnswer("model", self.predictions(), "")], constraints or self.task.constraints())

    def _tiers(self, kernels: Sequence[Kernel] | None = None) -> Iterator[TierAnswer]:
        yield from self.answers
        if kernels is None:
            yield TierAnswer("neighbour", self.estimates(), "")
        yield TierAnswer("model", self.predictions(kernels), "")

    def _first(
        self, answers: Iterable[TierAnswer], constraints: Constraints, kernels: Sequence[Kernel] | None = None
    ) -> Choice:
        last: Sequence[Row] = ()
        thin: tuple[TierAnswer, Row] | None = None
        for answer in answers:
            ties = answer.ranking.ties(constraints, kernels)
            if not ties:
                last = answer.ranking.ranked
            elif thin:
                return self._choice(*self._competition(*thin, answer, ties[0], constraints))
            elif answer.ranking.thin:
                thin = answer, ties[0]
            else:
                new = answer.tier == "shipped" and kernels is None and answer.ranking.untried
                return self._choice(*(self._newcomer(answer, ties[0], constraints) if new else (answer, ties[0])))
        if thin:
            return self._choice(*thin)
        reasons = [f"{r.kernel}: {constraints.refusal(r.candidate, r.workspace, r.error)}" for r in last]
        why = "; ".join(reasons) or "no kernel takes it"
        raise UnsupportedAlgorithmError(f"no kernel satisfies this call for {self.task.problem} ({why})")

    @staticmethod
    def _competition(
        thin: TierAnswer, best: Row, other: TierAnswer, rival: Row, constraints: Constraints
    ) -> tuple[TierAnswer, Row]:
        """The better of what thin evidence prefers and what the next tier would choose without it.

        That of a busy machine decides nothing: one sample that was disturbed would.
        """
        if any(row.candidate == rival.candidate for row in thin.ranking.failed):
            return thin, best
        known = next((row for row in thin.ranking.allowed(constraints) if row.candidate == rival.candidate), None)
        if known:
            return thin, known if best.doubtful or _CLEARLY * best.ratio >= known.ratio else best
        return (thin, best) if best.seconds < rival.seconds and not best.doubtful else (other, rival)

    def _newcomer(self, answer: TierAnswer, best: Row, constraints: Constraints) -> tuple[TierAnswer, Row]:
        """What came after the shipped measurements, if the cost model, held against them, expects much of it."""
        known = answer.ranking
        measured = {row.candidate.kernel for row in known.ranked}
        new = [kernel for kernel in self.task.competitors if kernel.name in known.untried and kernel not in measured]
        model = self.predictions(new)._replace(missing=known.missing)
        off = median([row.seconds / self.predict(row.candidate) for row in known.ranked])
        for row in model.ties(constraints)[:1]:
            if _MUCH * off * row.seconds < best.seconds:
                return TierAnswer("model", model, ""), row
        return answer, best

    def _choice(self, answer: TierAnswer, row: Row) -> Choice:
        epilogue = "" if row.epilogue == self.task.problem.epilogue_text else row.epilogue
        return Choice(
            self.task.problem, self.task.threads, row.candidate, answer.tier, row.seconds, row.measured,
            row.error if row.measured else None, row.workspace, not answer.ranking.complete, epilogue,
        )  # fmt: skip

    def _given(self, choice: Choice) -> Choice:
        task = self.task
        candidate = task.resolve(choice.kernel, choice.parameters)
        if candidate is None:
            raise self._unsupported(f"the choice {choice.kernel}{choice.parameters}")
        return choice._replace(
            problem=task.problem, threads=task.threads, candidate=candidate, tier="forced",
            workspace=task.workspace(candidate),
        )  # fmt: skip

    def _named(self, name: str) -> list[Kernel]:
        kernels = [kernel for kernel in self.task.competitors if kernel.family == name]
        kernels = kernels or [kernel for kernel in self.task.applicable() if kernel.name == name]
        if not kernels:
            raise self._unsupported(repr(name))
        return kernels

    def _unsupported(self, what: str) -> UnsupportedAlgorithmError:
        kernels = self.task.applicable()
        families = ", ".join(dict.fromkeys(kernel.family for kernel in kernels))
        names = ", ".join(kernel.name for kernel in kernels)
        return UnsupportedAlgorithmError(
            f"{what} does not apply to {self.task.problem}; families that do: {families}; kernels: {names}"
        )


class Selector:
    """Chooses kernels. What was decided is kept while the process lives, so that one call gives the same bits again.

    What led to it is kept for the problems asked about last. Of all others that were only predicted, which may be many,
    a digest is left, and the candidate.

    Parameters
    ----------
    inventory : Inventory
    user : UserTier
        Is asked first, and told what is measured.
    others : sequence of Tier
        In order of asking. The neighbours come after them, the cost model last.
    constants : Constants
        Of the cost model.
    context_of : callable
        Team size to context; injected in tests.
    """

    def __init__(
        self,
        inventory: Inventory,
        user: UserTier,
        others: Sequence[Tier] = (),
        constants: Constants | None = None,
        context_of: Callable[[int], Context] = context,
    ) -> None:
        self.inventory: Inventory = inventory
        self.user: UserTier = user
        self.tiers: tuple[Tier, ...] = (user, *others)
        self.constants: Constants = constants or default_constants()
        self.context_of: Callable[[int], Context] = context_of
        self._decided: dict[int, Choice | Candidate] = {}
        self._candidates: dict[Candidate, Candidate] = {}
        self._measured: Counter[Problem] = Counter()
        self._cases: dict[tuple[Problem, Context], Case] = {}
        self._neighbourhoods: dict[Context, Neighbourhood] = {}

    def on(self, problem: Problem, threads: int) -> Case:
        """What is known of a problem for a team in this process's present context."""
        here = self.context_of(threads)
        with planning:
            case = self._cases.pop((problem, here), None) or Case(self, self.inventory.on(problem, threads), here)
            self._cases[problem, here] = case
            if len(self._cases) > _MOST_CASES:
                del self._cases[next(iter(self._cases))]
        return case

    def choose(
        self,
        problem: Problem,
        threads: int,
        *,
        algorithm: object = None,
        accuracy: object = None,
        workspace_limit: object = None,
    ) -> Choice:
        """The fastest kernel that is known, or else estimated or predicted, and that satisfies the constraints."""
        case = self.on(problem, threads)
        return case.choose(case.task.constraints(accuracy, workspace_limit), algorithm)

    def decided(self, call: tuple[Constraints, Context, str | None], choice: Choice) -> Choice | Candidate:
        """What a call got first in this process: the choice if that was measured, its candidate if not."""
        (problem, *limits), here, algorithm = call
        asked = (*problem, here.threads, here.affinity, *limits, algorithm, self._measured[problem.bare()])
        digest = hash(asked) << 64 ^ hash(asked[::-1])
        # One object for all problems that chose it.
        shared = self._candidates.setdefault(choice.candidate, choice.candidate)
        return self._decided.setdefault(digest, choice if choice.measured else shared)

    def neighbourhood(self, here: Context) -> Neighbourhood:
        """The problems that any tier has trials of."""
        here = here._replace(threads=0)
        found = self._neighbourhoods.get(here)
        if found is None:
            texts = {measured for tier in self.tiers for measured in tier.problems(here)}
            found = self._neighbourhoods[here] = Neighbourhood(sorted(texts))
        return found

    def forget(self, problem: Problem) -> None:
        """Ask the tiers again for this problem, with any epilogue: it was measured."""
        bare = problem.bare()
        with planning:
            self._neighbourhoods.clear()
            self._measured[bare] += 1
            self._cases = {key: case for key, case in self._cases.items() if key[0].bare() != bare}


@Slot
def selector() -> Selector:
    """The selector of this process."""
    from convkit.tuner.evidence.paths import paths
    from convkit.tuner.evidence.shipped import ShippedTier

    found = paths()
    others: list[Tier] = [*(FileTier("site", path) for path in found.sites), ShippedTier()]
    constants = load(str(machine_class()))
    return Selector(core_inventory(), UserTier(found.user, found.reason), others, constants)


def choose(
    problem: Problem, threads: int, *, algorithm: object = None, accuracy: object = None, workspace_limit: object = None
) -> Choice:
    """What `conv2d` would run in replay mode. Times nothing."""
    return selector().choose(problem, threads, algorithm=algorithm, accuracy=accuracy, workspace_limit=workspace_limit)


def is_complete(problem: Problem, threads: int) -> bool:
    """True if the user's database answers and no applicable kernel is left to measure."""
    return selector().on(problem, threads).complete
