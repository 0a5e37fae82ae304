"""Trials that come with the package: a file for each class of machine, named after what must match.

A file begins with a line of JSON: how long the two parts behind it are. They are an index, which gives for each block
its length, its problems and the team sizes they were measured with, and a dictionary for the compressor. Then come the
blocks, each compressed by itself, with a line of trials for each problem: a question unpacks a few problems' trials.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from convkit.tuner.evidence.tiers import Evidence, counts_here, machine_counts
from convkit.tuner.machine import Context, MachineClass
from convkit.tuner.process import notice_once

if TYPE_CHECKING:
    from convkit.tuner.evidence.database import Database, Merged
    from convkit.tuner.evidence.records import Session, Trial
    from convkit.tuner.inventory import Inventory

DIRECTORY = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(__file__))), "data")
_LONGEST = 2**26
_DAMAGE = (OSError, ValueError, TypeError, LookupError, RecursionError, zlib.error)
_WINDOW = 2**15
_TOGETHER = 8  # problems in a block
# Of each session and problem as many trials, and kernels no slower than this many times the fastest.
_FASTEST = 3
_NEAR = 1.5


class _Contents(NamedTuple):
    places: dict[str, tuple[slice, int, list[Any]]]  # of each problem its block, its line there, and the team sizes
    dictionary: bytes
    blocks: bytes


def file_name(machine: MachineClass) -> str:
    """The name of the file for machines like this one."""
    return f"{machine.vendor}-{machine.family}-{machine.model}-{machine.isa}-l2{machine.l2 // 1024}k.trials"


def machine_of(name: str) -> MachineClass:
    """The class of machines that a file is for, as far as its name tells: the rest is 0."""
    vendor, family, model, isa, l2 = name.removesuffix(".trials").split("-")
    return MachineClass(vendor, int(family), int(model), 0, isa, 0, 1024 * int(l2[2:-1]), 0)


class ShippedTier:
    """Trials of the package's data files. They are unpacked only if they are asked for.

    Parameters
    ----------
    directory : str
        Where the files are; injected in tests.
    """

    name = "shipped"

    def __init__(self, directory: str = DIRECTORY) -> None:
        self._directory = directory
        self._read: dict[str, _Contents] = {}
        self._outcome = "no file for machines like this"

    def evidence(self, problems: Collection[str], context: Context) -> Evidence:
        """Trials of any of the problems, given by their texts, that count in this context."""
        contents = self._contents(context.machine)
        try:
            return [pair for text in problems if text in contents.places for pair in _unpacked(contents, text, context)]
        except _DAMAGE as error:
            self._ignore(context.machine, error)
            return []

    def problems(self, context: Context) -> list[tuple[str, int]]:
        """Problems with trials for machines like this one, as (text, threads)."""
        places = self._contents(context.machine).places
        return [(problem, threads) for problem, (_, _, teams) in places.items() for threads in teams]

    def outcome(self) -> str:
        """What `explain` says of it."""
        return self._outcome

    def _contents(self, machine: MachineClass) -> _Contents:
        name = file_name(machine)
        known = self._read.get(name)
        if known is None:
            known = _Contents({}, b"", b"")
            try:
                known = _read(os.path.join(self._directory, name))
                self._outcome = name
            except FileNotFoundError:
                pass
            except _DAMAGE as error:
                self._ignore(machine, error)
            self._read[name] = known
        return known

    def _ignore(self, machine: MachineClass, error: Exception) -> None:
        path = os.path.join(self._directory, file_name(machine))
        notice_once(f"shipped {path}", f"shipped trials are ignored: {path}: {error}")


def write(database: Database, machine: MachineClass, inventory: Inventory, directory: str = DIRECTORY) -> Merged:
    """Write what a database has measured on machines like this one to a file for the package.

    Contended sessions stay behind, and so do the facts of a session, which may name a host's parts, and candidates that
    no call would choose.
    """
    from convkit.tuner.evidence.database import Merged
    from convkit.tuner.evidence.records import BEST_OF

    kept = {
        session.uuid: session
        for session in database.sessions()
        if not session.contended and machine_counts(session.machine, machine, False)
    }
    found = [t for t in database.trials() if t.session in kept and not t.problem.startswith(BEST_OF)]
    trials = _choosable(found, inventory)
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, file_name(machine)), "wb") as stream:
        stream.write(packed(kept, trials))
    return Merged(len({trial.session for trial in trials}), len(trials))


def packed(sessions: dict[str, Session], trials: Iterable[Trial]) -> bytes:
    """The content of a file with these trials, and with those of the sessions, given by uuid, that they belong to."""
    from dataclasses import replace

    groups: dict[str, dict[str, list[tuple[Any, ...]]]] = {}
    for trial in trials:
        # The group says which session and problem it is, the ratio why it was raced out; more digits would be noise.
        row = [float(f"{value:.4g}") if isinstance(value, float) else value for value in trial.row()[2:-1]]
        groups.setdefault(trial.problem, {}).setdefault(trial.session, []).append(tuple(row))
    plain = {
        problem: json.dumps([(replace(sessions[uuid], facts={}).row(), rows) for uuid, rows in sorted(group.items())])
        for problem, group in sorted(groups.items())
    }
    dictionary = "".join(plain.values()).encode()[:_WINDOW]
    blocks, index = b"", []
    for problems in [list(plain)[first : first + _TOGETHER] for first in range(0, len(plain), _TOGETHER)]:
        compressor = zlib.compressobj(9, zdict=dictionary)
        block = compressor.compress("\n".join(map(plain.__getitem__, problems)).encode()) + compressor.flush()
        index.append((len(block), {p: sorted({sessions[uuid].threads for uuid in groups[p]}) for p in problems}))
        blocks += block
    parts = zlib.compress(json.dumps(index).encode(), 9), zlib.compress(dictionary, 9)
    head = {"convkit": "shipped trials", "version": 2, "index": len(parts[0]), "dictionary": len(parts[1])}
    return b"".join([json.dumps(head).encode(), b"\n", *parts, blocks])


def _read(path: str) -> _Contents:
    if os.path.getsize(path) > _LONGEST:
        raise ValueError("it is too large")
    with open(path, "rb") as stream:
        head = json.loads(stream.readline(1000))
        if (head["convkit"], head["version"]) != ("shipped trials", 2):
            raise ValueError("it is of another version")
        places, end = dict[str, Any](), 0
        for size, problems in json.loads(_inflated(stream.read(head["index"]))):
            begin, end = end, end + int(size)
            places |= {name: (slice(begin, end), line, list(problems[name])) for line, name in enumerate(problems)}
        return _Contents(places, _inflated(stream.read(head["dictionary"])), stream.read())


def _unpacked(contents: _Contents, problem: str, context: Context) -> Evidence:
    from convkit.tuner.evidence.records import Session, Trial

    place, line, teams = contents.places[problem]
    if context.threads not in teams:
        return []
    found: Evidence = []
    for session_row, rows in json.loads(_inflated(contents.blocks[place], contents.dictionary).split(b"\n")[line]):
        session = Session.from_row(session_row)
        if counts_here(session, context, exact=False):
            found += [(session, Trial.from_row((session.uuid, problem, *row, ""))) for row in rows]
    return found


def _inflated(data: bytes, dictionary: bytes = b"") -> bytes:
    return zlib.decompressobj(zdict=dictionary).decompress(data, _LONGEST)


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
