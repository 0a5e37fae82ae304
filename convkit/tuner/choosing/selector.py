"""Which kernel for which problem: asks the tiers in order, on a miss of the plan cache only. Never times anything."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from convkit.problem import Problem
from convkit.tuner.accuracy import default_accuracy, parse_accuracy, refusal
from convkit.tuner.choosing.cost_model import Constants, default_constants, predict
from convkit.tuner.choosing.ranking import Ranked, Ranking, rank
from convkit.tuner.evidence.tiers import FileTier, Tier, UserTier
from convkit.tuner.inventory import Candidate, Inventory, Kernel, core_inventory
from convkit.tuner.locks import planning
from convkit.tuner.machine import Context, context
from convkit.typing import Accuracy

if TYPE_CHECKING:
    from convkit.tuner.choosing.neighbours import Estimate, Neighbour


class UnsupportedAlgorithmError(ValueError):
    """The algorithm that was asked for does not take this problem; the text lists those that do."""


class Choice(NamedTuple):
    """A kernel with explicit parameters for a problem, and how it came to be chosen. `conv2d(algorithm=)` accepts it.

    Attributes
    ----------
    tier : str
        "user", "site", "shipped", "neighbour", "model", or "forced" where the caller named parameters.
    seconds : float
        Median of the measured times, or the prediction where `measured` is False.
    error : float or None
        Measured RMS error relative to RMS(y), on normal data.
    workspace : int
        Bytes.
    stale : bool
        Some applicable kernel has no trial at its current revision in the tier that answered.
    """

    problem: Problem
    threads: int
    kernel: str
    family: str
    parameters: tuple[int, ...]
    tier: str
    seconds: float
    measured: bool
    error: float | None
    workspace: int
    stale: bool = False

    @property
    def index(self) -> int:  # type: ignore[override] # nobody searches a choice
        """The kernel's index in this process's inventory."""
        return selector().inventory.by_name[self.kernel].index

    def __str__(self) -> str:
        how = "measured" if self.measured else "predicted"
        parameters = ",".join(map(str, self.parameters))
        return f"{self.kernel}({parameters}) {1e3 * self.seconds:.3f} ms {how}, from {self.tier}"


class TierAnswer(NamedTuple):
    """What one tier knows of a problem."""

    tier: str
    outcome: str
    ranking: Ranking


class Constraints(NamedTuple):
    """What a call asks of a kernel beside being fast."""

    accuracy: Accuracy
    workspace_limit: int

    @classmethod
    def of_call(cls, inventory: Inventory, problem: Problem, accuracy: Any, workspace_limit: Any) -> Constraints:
        """The constraints behind the arguments of a call, defaults filled in."""
        bound = default_accuracy(problem.dtype) if accuracy is None else parse_accuracy(accuracy)
        if workspace_limit is None:
            return cls(bound, inventory.workspace_limit)
        limit = int(workspace_limit)
        if limit < 0:
            raise ValueError(f"workspace_limit must be at least 0 bytes, got {workspace_limit!r}")
        return cls(bound, limit)

    def refusal(self, candidate: Candidate, problem: Problem, workspace: int, error: float | None) -> str | None:
        """Why the candidate may not answer this call; None where it may."""
        if workspace > self.workspace_limit:
            return f"needs {workspace} bytes of workspace"
        return refusal(candidate.kernel, problem, self.accuracy, error)


class Selector:
    """Chooses kernels. What a tier said of a problem is kept while the process lives, so that choices do not change.

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
        self.inventory = inventory
        self.user: UserTier = user
        self.tiers: tuple[Tier, ...] = (user, *others)
        self.constants: Constants = constants or default_constants()
        self.context_of = context_of
        self._answers: dict[tuple[Problem, Context], list[TierAnswer]] = {}
        self._neighbours: dict[tuple[Problem, Context], list[Neighbour]] = {}

    def choose(
        self,
        problem: Problem,
        threads: int,
        *,
        algorithm: Any = None,
        accuracy: Any = None,
        workspace_limit: Any = None,
    ) -> Choice:
        """The fastest kernel that is known, or else predicted, and that satisfies the call's constraints."""
        constraints = Constraints.of_call(self.inventory, problem, accuracy, workspace_limit)
        if algorithm is not None:
            return self._forced(problem, threads, algorithm, constraints)
        for answer in self.answers(problem, threads):
            best = self.best(answer, problem, constraints)
            if best is not None:
                return self._measured_choice(problem, threads, answer, best)
        for estimate in self.estimates(problem, threads):
            choice = self._estimated_choice(problem, threads, estimate, constraints)
            if choice is not None:
                return choice
        return self._predicted_choice(problem, threads, self.inventory.competitors(problem), constraints)

    def model_choice(
        self, problem: Problem, threads: int, *, accuracy: Any = None, workspace_limit: Any = None
    ) -> Choice:
        """What the cost model alone would choose."""
        constraints = Constraints.of_call(self.inventory, problem, accuracy, workspace_limit)
        return self._predicted_choice(problem, threads, self.inventory.competitors(problem), constraints)

    def best(self, answer: TierAnswer, problem: Problem, constraints: Constraints) -> Ranked | None:
        """The tier's best candidate under the constraints; None where it has none."""
        allowed = [
            row
            for row in answer.ranking.ranked
            if constraints.refusal(row.candidate, problem, row.workspace, row.error) is None
        ]
        ties = answer.ranking.tie_set(allowed)
        return ties[0] if ties else None

    def answers(self, problem: Problem, threads: int) -> list[TierAnswer]:
        """What every tier knows of the problem, in order of asking; read once and then kept."""
        here = self.context_of(threads)
        key = problem, here
        with planning:
            known = self._answers.get(key)
            if known is None:
                known = [self._ask(tier, problem, here) for tier in self.tiers] if problem.multiply_adds else []
                self._answers[key] = known
        return known

    def neighbours(self, problem: Problem, threads: int) -> list[Neighbour]:
        """The nearest measured problems of the same kind, nearest first; found once and then kept."""
        here = self.context_of(threads)
        with planning:
            known = self._neighbours.get((problem, here))
            if known is None:
                measured = self._measured_problems(here) if problem.multiply_adds else set()
                known = self._nearest(problem, threads, measured) if measured else []
                self._neighbours[problem, here] = known
        return known

    def _nearest(self, problem: Problem, threads: int, measured: set[tuple[str, int]]) -> list[Neighbour]:
        from convkit.tuner.choosing.neighbours import NEIGHBOURS, Neighbour, nearest

        found: list[Neighbour] = []
        for away, other, its_threads in nearest(problem, threads, measured):
            answers = self.answers(other, its_threads)
            ranking = next((a.ranking for a in answers if a.ranking.ranked), None)
            if ranking is not None:
                found.append(Neighbour(other, its_threads, away, ranking))
            if len(found) == NEIGHBOURS:
                break
        return found

    def estimates(self, problem: Problem, threads: int) -> list[Estimate]:
        """Times that the neighbours suggest for the kernels they know, fastest first."""
        near = self.neighbours(problem, threads)
        if not near:
            return []
        with planning:
            from convkit.tuner.choosing.neighbours import estimates

        kernels = {kernel.name: kernel for kernel in self.inventory.competitors(problem)}

        def parameter_sets(name: str) -> list[Candidate]:
            kernel = kernels.get(name)
            return [] if kernel is None else self.inventory.parameter_sets(kernel, problem, threads)

        return estimates(problem, threads, near, parameter_sets, self.predict)

    def _measured_problems(self, here: Context) -> set[tuple[str, int]]:
        return {found for tier in self.tiers for found in tier.problems(here)}

    def forget(self, problem: Problem) -> None:
        """Ask the tiers again for this problem: it was measured."""
        with planning:
            for key in [key for key in self._answers if key[0] == problem]:
                del self._answers[key]
            for key in [key for key in self._neighbours if key[0] == problem]:
                del self._neighbours[key]

    def complete(self, problem: Problem, threads: int) -> bool:
        """True where a tier's answer exists and no applicable kernel is left to measure."""
        return any(answer.ranking.ranked and answer.ranking.complete for answer in self.answers(problem, threads)
                   if answer.tier == "user")  # fmt: skip

    def tried(self, problem: Problem, threads: int) -> bool:
        """True where every applicable kernel has a trial, be it from a contended machine."""
        return any(
            answer.ranking.ranked and not answer.ranking.untried
            for answer in self.answers(problem, threads)
            if answer.tier == "user"
        )

    def predicted(self, problem: Problem, threads: int, kernels: Sequence[Kernel]) -> list[tuple[float, Candidate]]:
        """Each kernel with its default parameters and its predicted seconds, fastest first."""
        found = []
        for kernel in kernels:
            candidate = self.inventory.default(kernel, problem, threads)
            found.append((self.predict(candidate, problem, threads), candidate))
        return sorted(found, key=lambda pair: (pair[0], pair[1].kernel.index))

    def predict(self, candidate: Candidate, problem: Problem, threads: int) -> float:
        """Seconds that the cost model expects of a candidate."""
        cost = self.inventory.cost(candidate, problem, threads)
        return predict(cost, problem, candidate.kernel.name, candidate.kernel.isa, threads, self.constants)

    def _ask(self, tier: Tier, problem: Problem, here: Context) -> TierAnswer:
        evidence = tier.evidence([str(problem)], here)
        if not evidence:
            return TierAnswer(tier.name, tier.outcome(), Ranking((), (), ()))
        return TierAnswer(tier.name, tier.outcome(), rank(evidence, problem, here, self.inventory))

    def _measured_choice(self, problem: Problem, threads: int, answer: TierAnswer, best: Ranked) -> Choice:
        return Choice(
            problem,
            threads,
            best.candidate.kernel.name,
            best.candidate.kernel.family,
            best.candidate.parameters,
            answer.tier,
            best.seconds,
            measured=True,
            error=best.error,
            workspace=best.workspace,
            stale=not answer.ranking.complete,
        )

    def _estimated_choice(
        self, problem: Problem, threads: int, estimate: Estimate, constraints: Constraints
    ) -> Choice | None:
        candidate = estimate.candidate
        workspace = self.inventory.workspace(candidate, problem, threads)
        if constraints.refusal(candidate, problem, workspace, estimate.error) is not None:
            return None
        return Choice(
            problem,
            threads,
            candidate.kernel.name,
            candidate.kernel.family,
            candidate.parameters,
            "neighbour",
            estimate.seconds,
            measured=False,
            error=None,
            workspace=workspace,
        )

    def _predicted_choice(
        self, problem: Problem, threads: int, kernels: Sequence[Kernel], constraints: Constraints, tier: str = "model"
    ) -> Choice:
        refusals: list[str] = []
        for seconds, candidate in self.predicted(problem, threads, kernels):
            workspace = self.inventory.workspace(candidate, problem, threads)
            reason = constraints.refusal(candidate, problem, workspace, None)
            if reason is None:
                return Choice(
                    problem,
                    threads,
                    candidate.kernel.name,
                    candidate.kernel.family,
                    candidate.parameters,
                    tier,
                    seconds,
                    measured=False,
                    error=None,
                    workspace=workspace,
                )
            refusals.append(f"{candidate.kernel.name}: {reason}")
        why = "; ".join(refusals) or "no kernel takes it"
        raise UnsupportedAlgorithmError(f"no kernel satisfies this call for {problem} ({why})")

    def _forced(self, problem: Problem, threads: int, algorithm: Any, constraints: Constraints) -> Choice:
        if isinstance(algorithm, Choice):
            candidate = self.inventory.resolve(algorithm.kernel, algorithm.parameters, problem)
            if candidate is None:
                raise self._unsupported(problem, f"the choice {algorithm.kernel}{algorithm.parameters}")
            workspace = self.inventory.workspace(candidate, problem, threads)
            return algorithm._replace(problem=problem, threads=threads, tier="forced", workspace=workspace)
        if not isinstance(algorithm, str):
            raise TypeError(f"algorithm must be a name or a choice from explain, got {type(algorithm).__name__}")
        kernels = [k for k in self.inventory.competitors(problem) if k.family == algorithm]
        kernels = kernels or [k for k in self.inventory.applicable(problem) if k.name == algorithm]
        if not kernels:
            raise self._unsupported(problem, repr(algorithm))
        names = {kernel.name for kernel in kernels}
        unbound = constraints._replace(accuracy="fast")
        for answer in self.answers(problem, threads):
            rows = tuple(row for row in answer.ranking.ranked if row.candidate.kernel.name in names)
            best = self.best(answer._replace(ranking=answer.ranking._replace(ranked=rows)), problem, unbound)
            if best is not None:
                return self._measured_choice(problem, threads, answer, best)
        return self._predicted_choice(problem, threads, kernels, unbound)

    def _unsupported(self, problem: Problem, what: str) -> UnsupportedAlgorithmError:
        kernels = self.inventory.applicable(problem)
        families = ", ".join(dict.fromkeys(k.family for k in kernels))
        names = ", ".join(k.name for k in kernels)
        return UnsupportedAlgorithmError(
            f"{what} does not apply to {problem}; families that do: {families}; kernels: {names}"
        )


_selector: Selector | None = None


def selector() -> Selector:
    """The selector of this process."""
    global _selector
    if _selector is None:
        with planning:
            if _selector is None:
                _selector = _default_selector()
    return _selector


def _default_selector() -> Selector:
    from convkit.tuner.evidence.paths import paths
    from convkit.tuner.evidence.shipped import ShippedTier

    found = paths()
    others: list[Tier] = [*(FileTier("site", path) for path in found.sites), ShippedTier()]
    user = UserTier(found.user, found.reason)
    return Selector(core_inventory(), user, others, constants=_stored_constants(found.user))


def _stored_constants(user: str | None) -> Constants | None:
    # Without the file, what reads it need not be imported.
    if user is None or not os.path.exists(os.path.splitext(user)[0] + ".calibration.json"):
        return None
    from convkit.tuner.machine import machine_class
    from convkit.tuner.measuring.calibration import load

    return load(str(machine_class()))


def reset() -> None:
    """Forget everything that was read; the next choice asks anew."""
    global _selector
    with planning:
        _selector = None


def choose(
    problem: Problem, threads: int, *, algorithm: Any = None, accuracy: Any = None, workspace_limit: Any = None
) -> Choice:
    """What `conv2d` would run in replay mode. Times nothing."""
    return selector().choose(problem, threads, algorithm=algorithm, accuracy=accuracy, workspace_limit=workspace_limit)


def is_complete(problem: Problem, threads: int) -> bool:
    """True where the user's database answers and no applicable kernel is left to measure."""
    return selector().complete(problem, threads)
