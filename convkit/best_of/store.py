"""Settled results of `BestOf` in the tuning database: sessions and trials under the selector's name."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence

from convkit.tuner import machine
from convkit.tuner.choosing.selector import selector
from convkit.tuner.evidence.records import BEST_OF, Result, Session, Trial
from convkit.tuner.process import planning


def slug(text: str) -> str:
    """A name as the database stores it: letters, digits and underscores."""
    return re.sub(r"\W+", "_", text, flags=re.ASCII)[:120] or "_"


def problem_text(name: str, key: str) -> str:
    """What stands for a key in the column of problems; long keys are represented by their digest."""
    text = f"{BEST_OF}{slug(name)}-{key}"
    return text if len(text) <= 400 else f"{text[:300]}-{hashlib.sha256(text.encode()).hexdigest()}"


def save(name: str, key: str, threads: int, alternatives: Sequence[str], results: Mapping[int, Result]) -> None:
    """Write what a problem has settled on."""
    with planning:
        session = Session.begin(machine.context(threads), {"operands": "real calls"})
        user = selector().user
    text = problem_text(name, key)
    user.record(session, [Trial.of(session, text, (slug(alternatives[i]), 0, ()), r) for i, r in results.items()])


def load(name: str, key: str, threads: int, alternatives: Sequence[str]) -> int | None:
    """The alternative that won before in this context; None if it must be found out (again).

    A result counts only if every alternative of today took part.
    """
    evidence = selector().user.evidence([problem_text(name, key)], machine.context(threads))
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
