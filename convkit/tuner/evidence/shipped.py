"""Trials that come with the package: export files, one for each class of machine, named after what must match."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import convkit
from convkit.tuner.evidence.tiers import Evidence, counts_here
from convkit.tuner.machine import Context, MachineClass
from convkit.tuner.notices import notice_once

if TYPE_CHECKING:
    from collections.abc import Iterable

    from convkit.tuner.evidence.database import Database, Merged
    from convkit.tuner.evidence.records import Trial
    from convkit.tuner.inventory import Inventory

DIRECTORY = os.path.join(os.path.dirname(convkit.__file__), "data")
_LONGEST = 2**26
# Of each session and problem as many trials, and kernels no slower than this many times the fastest.
_FASTEST = 3
_NEAR = 1.5
# Beside the trials: a line of threads and problem for each, so that neighbours are found without reading all records.
_INDEX = ".problems"


def file_name(machine: MachineClass) -> str:
    """The name of the file for machines like this one."""
    return f"{machine.vendor}-{machine.family}-{machine.model}-{machine.isa}-l2{machine.l2 // 1024}k.jsonl"


class ShippedTier:
    """Trials of the package's data files. Lines are parsed only where they are asked for.

    Parameters
    ----------
    directory : str
        Where the files are; injected in tests.
    """

    name = "shipped"

    def __init__(self, directory: str = DIRECTORY) -> None:
        self._directory = directory
        self._texts: dict[str, str] = {}
        self._outcome = "no file for machines like this"

    def evidence(self, problem: str, context: Context) -> Evidence:
        """Trials of a problem, given by its text, that count in this context."""
        text = self._text(context.machine)
        if not text:
            return []
        # Without any trials, what reads them need not be imported.
        from convkit.tuner.evidence.records import RecordError, Session, Trial, from_line

        sessions: dict[str, Session] = {}
        found: Evidence = []
        for line in _lines_with(text, f'"problem": "{problem}"'):
            try:
                trial = from_line(line)
                if not isinstance(trial, Trial) or trial.problem != problem:
                    continue
                if trial.session not in sessions:
                    for candidate in _lines_with(text, f'"uuid": "{trial.session}"'):
                        session = from_line(candidate)
                        if isinstance(session, Session):
                            sessions[trial.session] = session
                session_ = sessions[trial.session]
            except (RecordError, KeyError) as error:
                notice_once(f"shipped {line[:200]}", f"a shipped trial is ignored: {error}")
                continue
            if counts_here(session_, context, exact=False):
                found.append((session_, trial))
        return found

    def problems(self, context: Context) -> list[tuple[str, int]]:
        """Problems with trials for machines like this one, as (text, threads)."""
        found = set()
        for line in self._text(context.machine, _INDEX).splitlines():
            threads, _, problem = line.partition(" ")
            if threads.isdecimal() and len(threads) < 6:
                found.add((problem, int(threads)))
        return sorted(found)

    def outcome(self) -> str:
        """What `explain` says of it."""
        return self._outcome

    def _text(self, machine: MachineClass, suffix: str = "") -> str:
        name = file_name(machine) + suffix
        known = self._texts.get(name)
        if known is None:
            known = ""
            path = os.path.join(self._directory, name)
            try:
                if os.path.getsize(path) <= _LONGEST:
                    with open(path, encoding="utf-8") as stream:
                        known = stream.read()
                    self._outcome = file_name(machine)
            except FileNotFoundError:
                pass
            except (OSError, UnicodeError) as error:
                notice_once(f"shipped {path}", f"shipped trials are ignored: {path}: {error}")
            self._texts[name] = known
        return known


def write(database: Database, machine: MachineClass, inventory: Inventory, directory: str = DIRECTORY) -> Merged:
    """Write what a database has measured on machines like this one to a file for the package.

    Contended sessions stay behind, and so do the facts of a session, which may name a host's parts, and candidates that
    no call would choose.
    """
    from dataclasses import replace

    from convkit.tuner.evidence.database import EXPORT_HEADER, Merged
    from convkit.tuner.evidence.records import BEST_OF, to_line
    from convkit.tuner.evidence.tiers import machine_counts

    kept = {
        session.uuid: replace(session, facts={})
        for session in database.sessions()
        if not session.contended and machine_counts(session.machine, machine, False)
    }
    trials = _choosable(
        [t for t in database.trials() if t.session in kept and not t.problem.startswith(BEST_OF)], inventory
    )
    used = {trial.session for trial in trials}
    sessions = [session for uuid, session in kept.items() if uuid in used]
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, file_name(machine)), "w", encoding="utf-8") as stream:
        stream.write(EXPORT_HEADER + "\n")
        stream.writelines(to_line(session) + "\n" for session in sessions)
        stream.writelines(to_line(trial) + "\n" for trial in trials)
    problems = sorted({(kept[trial.session].threads, trial.problem) for trial in trials})
    with open(os.path.join(directory, file_name(machine) + _INDEX), "w", encoding="utf-8") as stream:
        stream.writelines(f"{threads} {problem}\n" for threads, problem in problems)
    return Merged(len(sessions), len(trials))


def _choosable(trials: Iterable[Trial], inventory: Inventory) -> list[Trial]:
    """The trials that some accuracy might choose, and what neighbours need to know of the other kernels.

    A kernel that is not direct summation is never the answer to a strict call, so the direct ones have a race of their
    own.
    """
    groups: dict[tuple[str, str, bool], list[Trial]] = {}
    for trial in trials:
        kernel = inventory.by_name.get(trial.kernel)
        if trial.median and kernel is not None and trial.revision == kernel.revision:
            groups.setdefault((trial.session, trial.problem, kernel.direct), []).append(trial)
    kept = []
    for group in groups.values():
        # Ratios are the sharper figures, but seconds are nothing to hold against them.
        paired = all(trial.ratio for trial in group)
        times = {trial: (trial.ratio if paired else trial.median) or 0.0 for trial in group}
        fastest = sorted(group, key=times.__getitem__)
        near = [trial for trial in fastest if times[trial] <= _NEAR * times[fastest[0]]]
        of_kernels = {trial.kernel: trial for trial in reversed(near)}.values()
        kept += list(dict.fromkeys([*fastest[:_FASTEST], *of_kernels]))
    return kept


def _lines_with(text: str, needle: str) -> list[str]:
    found = []
    at = text.find(needle)
    while at >= 0:
        begin, end = text.rfind("\n", 0, at) + 1, text.find("\n", at)
        end = len(text) if end < 0 else end
        found.append(text[begin:end])
        at = text.find(needle, end)
    return found
