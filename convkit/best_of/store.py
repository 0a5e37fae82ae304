"""Settled results of `BestOf` in the tuning database: sessions and trials under the selector's name."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

from convkit.tuner import machine
from convkit.tuner.evidence.records import BEST_OF, Session, Trial
from convkit.tuner.locks import planning
from convkit.tuner.measuring.rounds import Outcome


def problem_text(name: str, key: str) -> str:
    """What stands for a key in the column of problems; long keys are represented by their digest."""
    from convkit.best_of.selector import slug

    text = f"{BEST_OF}{slug(name)}-{key}"
    return text if len(text) <= 400 else f"{text[:300]}-{hashlib.sha256(text.encode()).hexdigest()}"


def save(name: str, key: str, threads: int, alternatives: Sequence[str], outcomes: Sequence[Outcome]) -> None:
    """Write what a problem has settled on."""
    from convkit.best_of.selector import slug

    here = machine.context(threads)
    with planning:
        from convkit.tuner.measuring.tune import recorder

        writer, versions = recorder(), machine.versions()
    session = Session(
        uuid.uuid4().hex, str(here.machine), here.machine.isa, threads, here.affinity,
        f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}Z", versions=versions, policy={"operands": "real calls"},
    )  # fmt: skip
    text = problem_text(name, key)
    trials = [
        Trial(session.uuid, text, slug(alternatives[o.number]), 0, (), o.status, o.n, o.median, o.ratio, o.low, o.high,
              reason=o.reason)
        for o in outcomes
    ]  # fmt: skip
    writer.record(session, trials)


def load(name: str, key: str, threads: int, alternatives: Sequence[str]) -> int | None:
    """The alternative that won before in this context; None where it must be found out (again).

    A result counts only where every alternative of today took part.
    """
    from convkit.best_of.selector import slug
    from convkit.tuner.choosing.selector import selector

    evidence = selector().evidence_of(problem_text(name, key), threads)
    by_session: dict[str, dict[str, Trial]] = {}
    for session, trial in evidence:
        by_session.setdefault(session.uuid, {})[trial.kernel] = trial
    names = [slug(alternative) for alternative in alternatives]
    for trials in reversed(by_session.values()):
        if set(names) <= set(trials):
            able = {kernel: trial.ratio for kernel, trial in trials.items() if trial.ratio and trial.status != "failed"}
            best = min((kernel for kernel in able if kernel in names), key=lambda kernel: able[kernel], default=None)
            if best is not None:
                return names.index(best)
    return None
