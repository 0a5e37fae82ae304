"""BestOf: alternatives compete on the calls that a program makes anyway, and the fastest stays.

    transpose = BestOf("transpose", [("numpy", with_numpy), ("convkit", with_convkit)])
    y = transpose(x)

Every call runs exactly one alternative and returns its result, so all alternatives must do the same. Sizes of arguments
and the thread count decide which calls belong together. See `BestOf` for pipelines, nesting and persistence.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from convkit import _core
from convkit.tuner.measuring.nested import Sample, current_sample, discount
from convkit.tuner.measuring.rounds import Rounds
from convkit.tuner.process import notice_once, planning

if TYPE_CHECKING:
    from convkit.best_of.report import BestOfReport

Stage = Callable[..., Any]


@dataclass(slots=True)
class _Problem:
    """What is known of one key."""

    key: Hashable
    threads: int
    rounds: Rounds
    from_database: bool = False


class BestOf:
    """Selects among alternatives by timing them on real calls.

    Parameters
    ----------
    name : str
        Names the selector in reports and in the database.
    alternatives : sequence of (str, callable) or (str, sequence of callable)
        Callables that take the same arguments and give the same results, or pipelines of stages; all must have the same
        number of stages.
    key : callable, optional
        ``key(*args, **kwargs)`` gives what, together with the thread count, makes calls comparable. By default the
        shapes and dtypes of arrays and the values of everything else. Its result must be hashable; its ``repr`` is
        what the database stores.
    rounds : int
        Rounds before it settles at the latest; losers leave earlier.
    threads : callable, optional
        Gives the thread count; by default that of convkit's calls.
    store : bool
        Keep settled results in the user's tuning database under `name`, and take them from there.
    clock : callable
        Seconds; injected in tests.

    Notes
    -----
    Stages of a pipeline are timed together, for what one stage leaves to the next belongs to its price: call `start`
    once for each pass and the object that it returns once for each stage.

    Alternatives may use other `BestOf` objects, and convkit in online mode. A time counts for an outer selector only
    if nothing inside it was still exploring. An alternative that raises is dropped and the next one answers the
    call; if all raise, the arguments are to blame: the first exception goes to the caller and nobody is dropped.
    Once settled, exceptions are the caller's. Calls may come from many threads. `copy.deepcopy` gives a selector that
    has measured nothing yet; so does `pickle`, if the alternatives and the key can be pickled.
    """

    def __init__(
        self,
        name: str,
        alternatives: Sequence[tuple[str, Stage | Sequence[Stage]]],
        *,
        key: Callable[..., Hashable] | None = None,
        rounds: int = 8,
        threads: Callable[[], int] | None = None,
        store: bool = False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if not alternatives:
            raise ValueError(f"BestOf {name!r} needs at least one alternative")
        self.name = name
        self._stages = [(label, [stages] if callable(stages) else list(stages)) for label, stages in alternatives]
        if len({label for label, _ in self._stages}) != len(self._stages):
            raise ValueError(f"BestOf {name!r}: names of alternatives must differ")
        counts = {len(stages) for _, stages in self._stages}
        if len(counts) != 1 or not all(callable(stage) for _, stages in self._stages for stage in stages):
            raise ValueError(f"BestOf {name!r}: alternatives must be callables or pipelines of equally many callables")
        self.stage_count: int = counts.pop()
        self._key = key
        self._rounds = rounds
        self._threads = threads or _core.default_threads
        self._store = store
        self._clock = clock
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._problems: dict[Hashable, _Problem] = {}
        self._settled: dict[Hashable, Stage] = {}
        self._unknown: set[Hashable] = set()
        self._children: dict[str, dict[str, BestOf]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """What was asked for: a copy has measured nothing, and nothing is nested in it yet."""
        measured = ("_problems", "_settled", "_unknown", "_children")
        return {name: value for name, value in self.__dict__.items() if name not in measured}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin_anew()

    @property
    def alternatives(self) -> list[str]:
        """Names of the alternatives."""
        return [label for label, _ in self._stages]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run one alternative; only for alternatives of a single stage."""
        key: Hashable
        if kwargs or self._key is not None:
            key = self._full_key(args, kwargs)
            known = self._settled.get(key)
        else:
            key = (self._threads(), *map(_size_of, args))
            try:
                known = self._settled.get(key)
            except TypeError:
                # Seldom; asking each value beforehand whether it can be hashed would cost every call.
                key = self._full_key(args, kwargs)
                known = self._settled.get(key)
        if known is not None:
            return known(*args, **kwargs)
        if self.stage_count != 1:
            raise TypeError(f"BestOf {self.name!r} is a pipeline of {self.stage_count} stages: use start()")
        return Pipeline(self, self._problem(key))(*args, **kwargs)

    def start(self, *args: Any, **kwargs: Any) -> Pipeline:
        """Begin a pass of a pipeline; the arguments only give the key, by default those of the first stage.

        Parameters
        ----------
        *args, **kwargs
            What `key` takes.

        Returns
        -------
        Pipeline
            Call it once for each stage, with the arguments of that stage.
        """
        return Pipeline(self, self._problem(self._full_key(args, kwargs)))

    def settled(self, *args: Any, **kwargs: Any) -> str | None:
        """The alternative that calls with these arguments have settled on.

        Parameters
        ----------
        *args, **kwargs
            As for a call.

        Returns
        -------
        str or None
            Its name; None while they have not.
        """
        key = self._full_key(args, kwargs)
        # Of what was asked about, but is neither stored nor run, nothing but the key is kept.
        if self._store and key not in self._problems and (key in self._unknown or self._load(key) is None):
            self._unknown.add(key)
            return None
        winner = self._problem(key).rounds.winner
        return None if winner is None else self.alternatives[winner]

    def report(self) -> BestOfReport:
        """What was tried and found.

        Returns
        -------
        BestOfReport
            A tree with its nested selectors, as text, rich or JSON.
        """
        return self._report(frozenset())

    def to_json(self) -> str:
        """The report as JSON.

        Returns
        -------
        str
            One object.
        """
        return self.report().to_json()

    def __repr__(self) -> str:
        return f"<BestOf {self.name!r}: {', '.join(self.alternatives)}; {len(self._problems)} problems>"

    def _full_key(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
        if self._key is not None:
            return self._threads(), self._key(*args, **kwargs)
        sizes = [_size_of(value) for value in args]
        sizes += [(name, _size_of(value)) for name, value in sorted(kwargs.items())]
        return (self._threads(), *(size if _hashable(size) else repr(size) for size in sizes))

    def _problem(self, key: Hashable) -> _Problem:
        problem = self._problems.get(key)
        if problem is None:
            fresh = _Problem(key, _threads_in(key), Rounds(self.alternatives, rounds=self._rounds))
            winner = self._load(key) if self._store else None
            if winner is not None:
                fresh.rounds.winner = winner
                fresh.from_database = True
            problem = self._problems.setdefault(key, fresh)
            self._note(problem)
        outer = current_sample.get()
        if outer is not None:
            outer.owner._children.setdefault(outer.alternative, {})[self.name] = self
        return problem

    def _timed(
        self, label: str, stage: Stage, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, float, Sample]:
        sample = Sample(self, label, current_sample.get())
        token = current_sample.set(sample)
        try:
            begin = self._clock()
            result = stage(*args, **kwargs)
            seconds = self._clock() - begin
        finally:
            current_sample.reset(token)
        return result, seconds, sample

    def _note(self, problem: _Problem) -> None:
        """Remember, log and store what was decided."""
        rounds = problem.rounds
        if rounds.winner is not None and self.stage_count == 1:
            self._settled[problem.key] = self._stages[rounds.winner][1][0]
        for arm in rounds.arms:
            if arm.failed:
                cause = f"best of {self.name} {arm.name}"
                notice_once(cause, f"BestOf {self.name}: {arm.name} was dropped: {arm.out}")
        results = rounds.harvest() if self._store else {}
        if results:
            key = repr(problem.key)
            with planning:
                from convkit.best_of.store import save
            save(self.name, key, problem.threads, self.alternatives, results)

    def _load(self, key: Hashable) -> int | None:
        with planning:
            from convkit.best_of.store import load

            return load(self.name, repr(key), _threads_in(key), self.alternatives)

    def _report(self, above: frozenset[int]) -> BestOfReport:
        with planning:
            from convkit.best_of.report import BestOfReport
        problems = [
            replace(p.rounds.report(), key=repr(p.key), threads=p.threads, from_database=p.from_database)
            for p in list(self._problems.values())
        ]
        above = above | {id(self)}
        children = {
            label: tuple(child._report(above) for child in list(below.values()) if id(child) not in above)
            for label, below in list(self._children.items())
        }
        return BestOfReport(self.name, tuple(problems), {label: below for label, below in children.items() if below})


class Pipeline:
    """One pass of a `BestOf` pipeline: call it once for each stage."""

    __slots__ = ("_counts", "_index", "_owner", "_problem", "_round", "_seconds", "_stage")

    def __init__(self, owner: BestOf, problem: _Problem) -> None:
        self._owner = owner
        self._problem = problem
        self._index, self._round = problem.rounds.next()
        self._stage = 0
        self._seconds = 0.0
        self._counts = True

    def __del__(self) -> None:
        # A pass that is never finished must not keep its round open; no lock may be taken here.
        if getattr(self, "_round", -1) >= 0 and self._stage < self._owner.stage_count:
            self._problem.rounds.abandon(self._index)

    @property
    def alternative(self) -> str:
        """The alternative that this pass runs."""
        return self._owner.alternatives[self._index]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the next stage with its arguments."""
        owner, rounds = self._owner, self._problem.rounds
        if self._stage >= owner.stage_count:
            raise RuntimeError(f"BestOf {owner.name!r}: all {owner.stage_count} stages of this pass have run")
        settled = rounds.settled
        if not settled:
            discount()
        raised: dict[int, tuple[int, Exception]] = {}
        while True:
            label, stages = owner._stages[self._index]
            try:
                result, seconds, sample = owner._timed(label, stages[self._stage], args, kwargs)
                break
            except Exception as error:
                raised[self._index] = self._round, error
            if not self._pass_on(raised, settled):
                raise next(error for _, error in raised.values())
        self._stage += 1
        self._seconds += seconds
        self._counts &= sample.counts
        for index, (number, reason) in raised.items():
            rounds.drop(index, number, f"{type(reason).__name__}: {reason}")
        if self._stage == owner.stage_count:
            rounds.add(self._index, self._round, self._seconds, counts=self._counts)
        if raised or self._stage == owner.stage_count:
            owner._note(self._problem)
        return result

    def _pass_on(self, raised: dict[int, tuple[int, Exception]], settled: bool) -> bool:
        """Turn to another alternative after one raised; where none may answer, end as if the call had not been."""
        rounds = self._problem.rounds
        left = [index for index in rounds.alive if index not in raised]
        # Later stages need what the first left behind; once settled, exceptions are the caller's.
        if left and not settled and not self._stage:
            self._index, self._round = left[0], -1
            return True
        for index, (number, _) in raised.items():
            if number >= 0:
                rounds.give_back(index)
        self._stage = self._owner.stage_count
        return False


def _threads_in(key: Hashable) -> int:
    return key[0] if isinstance(key, tuple) and isinstance(key[0], int) else 1


def _size_of(value: Any) -> Any:
    dtype = getattr(value, "dtype", None)
    # A number is hashed faster than a NumPy dtype; other libraries' dtypes have none.
    return value if dtype is None else (value.shape, getattr(dtype, "num", dtype))


def _hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True
