"""Settled results of `BestOf` in the tuning database: sessions and trials under the selector's name."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

from convkit.tuner import machine
from convkit.tuner.evidence.records import BEST_OF, Session, Trial
from convkit.tuner.measuring.rounds import Rounds


def problem_text(name: str, key: str) -> str:
    """What stands for a key in the column of problems; long keys are represented by their digest."""
    from convkit.best_of.selector import slug

    text = f"{BEST_OF}{slug(name)}-{key}"
    return text if len(text) <= 400 else f"{text[:300]}-{hashlib.sha256(text.encode()).hexdigest()}"


def save(name: str, key: str, threads: int, rounds: Rounds) -> None:
    """Write what a problem has settled on."""
    from convkit.best_of.selector import slug
    from convkit.tuner.measuring.tune import recorder

    winner = rounds.winner
    if winner is None or not rounds.arms[winner].samples:
        return
    here = machine.context(threads)
    session = Session(
        uuid.uuid4().hex, str(here.machine), here.machine.isa, threads, here.affinity,
        f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}Z", versions=machine.versions(), policy={"operands": "real calls"},
    )  # fmt: skip
    for index, arm in enumerate(rounds.arms):
        ratio, low, high = rounds.figures(index, winner) or (None, None, None)
        status = "failed" if arm.failed else "raced out" if arm.out else "complete"
        if not arm.samples and not arm.failed:
            continue
        recorder().add(
            session,
            Trial(
                session.uuid,
                problem_text(name, key),
                slug(arm.name),
                0,
                (),
                status,
                len(arm.counted),
                arm.median,
                ratio,
                low,
                high,
                reason=arm.out[:400],
            ),
        )


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
