"""Trials that come with the package: written from a database, found again by machines like it."""

from __future__ import annotations

import json
import random
import zlib
from pathlib import Path

import pytest
from stand_ins import MACHINE, StandInCore, context_of, selector_over
from test_database import make_session, make_trial

from convkit.problem import Problem
from convkit.report.summary import measured_cases
from convkit.tuner.evidence.database import Database
from convkit.tuner.evidence.shipped import DIRECTORY, ShippedTier, file_name, write
from convkit.tuner.inventory import Inventory
from convkit.tuner.machine import Context, MachineClass

PROBLEM = Problem(n=1, c=8, h=16, w=16, o=8, kh=3, kw=3)
CORE = StandInCore(gemm={"seconds": 2e-3}, other={"seconds": 1e-3})


def shipped(directory: Path) -> ShippedTier:
    database = Database(directory / "trials")
    for number, changes in enumerate(({}, {"contended": True}, {"machine": str(MACHINE._replace(model=1))}), 1):
        session = make_session(number, facts={"host": "secret"}, **changes)
        trials = [
            make_trial(
                session, kernel=f"f32_{family}__avx2", parameters=(8,), ratio=ratio, ratio_low=None, ratio_high=None
            )
            for family, ratio in (("gemm", 1.0), ("other", 2.0))
        ]
        database.append(session, trials)
    merged = write(database, MACHINE, Inventory(CORE), str(directory))
    assert (merged.sessions, merged.trials) == (1, 2)
    index, dictionary, held = parts_of(directory / file_name(MACHINE))
    assert all(b"secret" not in part for part in (index, dictionary, *held))
    return ShippedTier(str(directory))


def test_machines_like_it_find_the_trials(tmp_path: Path) -> None:
    tier = shipped(tmp_path)
    for machine in (MACHINE, MACHINE._replace(stepping=9, l3=0, l1d=65536)):
        selector = selector_over(CORE, None, tier, context_of=lambda threads, m=machine: Context(m, threads, "cores"))
        choice = selector.choose(PROBLEM, 1)
        assert (choice.tier, choice.family) == ("shipped", "gemm")
    assert tier.problems(context_of(1)) == [(str(PROBLEM), 1)]
    assert measured_cases(selector) == []
    assert tier.outcome() == file_name(MACHINE)


def test_other_machines_and_problems_do_not(tmp_path: Path) -> None:
    tier = shipped(tmp_path)
    for machine in (MACHINE._replace(model=1), MACHINE._replace(isa="avx512"), MACHINE._replace(l2=1)):
        selector = selector_over(
            CORE, None, tier, context_of=lambda threads, m=machine: Context(m, threads, "unpinned")
        )
        assert selector.choose(PROBLEM, 1).tier == "model"
    assert tier.evidence([str(PROBLEM.replace(c=800))], context_of(1)) == []


def parts_of(path: Path) -> tuple[bytes, bytes, list[bytes]]:
    """Index, dictionary and the trials of each problem, unpacked."""
    head, _, rest = path.read_bytes().partition(b"\n")
    sizes = json.loads(head)
    index = zlib.decompress(rest[: sizes["index"]])
    blocks = rest[sizes["index"] :]
    dictionary = zlib.decompress(blocks[: sizes["dictionary"]])
    blocks = blocks[sizes["dictionary"] :]
    trials = []
    for size, problems in json.loads(index):
        trials += zlib.decompressobj(zdict=dictionary).decompress(blocks[:size]).split(b"\n")
        blocks = blocks[size:]
        assert len(problems) <= 8
    assert not blocks
    return index, dictionary, trials


def test_a_damaged_file_is_ignored(tmp_path: Path) -> None:
    shipped(tmp_path)
    path = tmp_path / file_name(MACHINE)
    whole = path.read_bytes()
    generator = random.Random(2)
    damaged = [whole[:size] for size in range(0, len(whole), 97)]
    damaged += [
        bytes(99),
        b"\xff\xfe" * 50,
        b"[" * 9000,
        b"{}\n",
        b'{"convkit": "trials", "version": 1}\n',
        whole[:9] * 99,
    ]
    for _ in range(200):
        changed = bytearray(whole)
        changed[generator.randrange(len(whole))] = generator.randrange(256)
        damaged.append(bytes(changed))
    for data in damaged:
        path.write_bytes(data)
        tier = ShippedTier(str(tmp_path))
        assert len(tier.evidence([str(PROBLEM)], context_of(1))) <= 2
        tier.problems(context_of(1))
    path.write_bytes(whole)
    assert len(ShippedTier(str(tmp_path)).evidence([str(PROBLEM)], context_of(1))) == 2


def test_what_the_package_ships_is_read(log: pytest.LogCaptureFixture) -> None:
    files = sorted(Path(DIRECTORY).glob("*.trials"))
    assert files
    for path in files:
        index, _, held = parts_of(path)
        vendor, family, model, isa, l2 = path.stem.split("-")
        machine = MachineClass(vendor, int(family), int(model), 0, isa, 0, 1024 * int(l2[2:-1]), 0)
        tier = ShippedTier()
        problems = tier.problems(Context(machine, 1, "unpinned"))
        assert len({text for text, _ in problems}) == sum(len(block[1]) for block in json.loads(index)) == len(held)
        for text, threads in problems:
            pairs = tier.evidence([text], Context(machine, threads, "unpinned"))
            assert pairs
            assert all(trial.problem == text and session.threads == threads for session, trial in pairs)
            Problem.parse(text)
    assert log.records == []


def test_losers_and_old_revisions_stay_behind(tmp_path: Path) -> None:
    blocks = tuple(range(8, 16))
    core = StandInCore(gemm={"seconds": 2e-3, "blocks": blocks}, fast={"seconds": 1e-3, "direct": False})
    database = Database(tmp_path / "trials")
    session = make_session(1)
    trials = [
        make_trial(session, kernel="f32_gemm__avx2", parameters=(block,), ratio=block / 8, revision=1)
        for block in blocks
    ]
    trials += [
        make_trial(session, kernel="f32_fast__avx2", parameters=(8,), ratio=0.5, revision=1),
        make_trial(session, kernel="f32_fast__portable", parameters=(8,), ratio=0.1, revision=0),
    ]
    database.append(session, trials)
    write(database, MACHINE, Inventory(core), str(tmp_path))
    kept = ShippedTier(str(tmp_path)).evidence([trials[0].problem], context_of(1))
    fastest = {("f32_gemm__avx2", block) for block in blocks[:3]}
    assert {(t.kernel, t.parameters[0]) for _, t in kept} == fastest | {("f32_fast__avx2", 8)}


def test_trials_without_a_ratio_are_held_against_the_others_in_seconds(tmp_path: Path) -> None:
    database = Database(tmp_path / "trials")
    session = make_session(1)
    figures = {"gemm": (1e-3, 1.0), "other": (9e-3, None)}
    database.append(
        session,
        [
            make_trial(
                session, kernel=f"f32_{family}__avx2", parameters=(block,), median=seconds, ratio=ratio,
                ratio_low=None, ratio_high=None,
            )
            for family, (seconds, ratio) in figures.items()
            for block in range(8, 8 + (4 if ratio else 1))
        ],
    )  # fmt: skip
    core = StandInCore(gemm={"seconds": 1e-3, "blocks": (8, 9, 10, 11)}, other={"seconds": 9e-3})
    write(database, MACHINE, Inventory(core), str(tmp_path))
    kept = ShippedTier(str(tmp_path)).evidence([str(PROBLEM)], context_of(1))
    assert [trial.kernel for _, trial in kept] == ["f32_gemm__avx2"] * 3
