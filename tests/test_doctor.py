"""The doctor: what each situation means, what it says to do, and the command's exit status."""

from __future__ import annotations

import ctypes.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_cli import run

from convkit.doctor import situation
from convkit.doctor.findings import Finding, findings
from convkit.doctor.situation import Facts, Measurement, TierFacts, gather, openmp_runtimes
from convkit.problem import Problem
from convkit.tuner import tune_problem

GOMP = "/lib/x86_64-linux-gnu/libgomp.so.1"
SPEED = Measurement(
    seconds=5.0, peak=100e9, team_peak=395e9, layer=90e9, team_layer=300e9, kernel="f32_direct__avx512", contended=""
)
HEALTHY = Facts(
    cpu="A CPU", machine="AuthenticAMD-26-2-1-avx512-l1d48k-l21024k-l332768k", isa="avx512",
    usable=("avx512", "avx2", "portable"), cpus=4, bound=4, quota=None, threads=4, available=4, runtime=GOMP,
    runtimes=[GOMP], tiers=[TierFacts("user", "/db", 900, 20, 20), TierFacts("shipped", "")],
    cost_model="calibrated 2026-01-01", calibrated=101e9, measurement=SPEED,
)  # fmt: skip


def told(**changes: Any) -> list[Finding]:
    """What is found beside what is fine."""
    return [one for one in findings(replace(HEALTHY, **changes)) if one.level != "ok"]


def test_a_healthy_machine_has_nothing_to_do() -> None:
    assert told() == []
    assert not any(one.todo for one in findings(HEALTHY))
    assert told(measurement=None) == []
    assert told(threads=1, available=1, cpus=1, bound=1) == []


SITUATIONS: list[tuple[dict[str, Any], str, str, str, str]] = [
    ({"isa": "avx2", "variables": {"CONVKIT_ISA": "avx2"}}, "slow", "CPU", "this CPU has avx512", "Unset CONVKIT_ISA"),
    ({"isa": "portable", "usable": ["portable"], "virtual": True}, "slow", "CPU", "virtual machine", "passthrough"),
    ({"isa": "portable", "usable": ["portable"]}, "hint", "CPU", "has no AVX2", ""),
    ({"quota": 0.5, "threads": 1, "available": 1}, "slow", "threads", "0.5 of a CPU", "--cpus 1"),
    (
        {"threads": 4, "available": 2, "quota": 2.0, "variables": {"OMP_NUM_THREADS": "4"}},
        "slow", "threads", "quota is 2 CPUs", "CONVKIT_NUM_THREADS=2 instead of OMP_NUM_THREADS=4",
    ),
    (
        {"threads": 1, "variables": {"CONVKIT_NUM_THREADS": "1"}, "measurement": None},
        "hint", "threads", "1 thread of 4", "Raise CONVKIT_NUM_THREADS=1",
    ),
    ({"threads": 1, "measurement": None}, "hint", "threads", "1 thread of 4", "Set CONVKIT_NUM_THREADS"),
    ({"runtimes": [GOMP, "/x/libiomp5.so"]}, "slow", "OpenMP", "gnu/libgomp.so.1, x/libiomp5.so", "before the first"),
    ({"runtime": "", "runtimes": []}, "hint", "OpenMP", "threads of its own", "libgomp1"),
    ({"runtime": "", "variables": {"CONVKIT_OPENMP": "none"}}, "hint", "OpenMP", "its own", "Unset CONVKIT_OPENMP"),
    ({"variables": {"OMP_WAIT_POLICY": "PASSIVE"}}, "hint", "OpenMP", "sleep between calls", "OMP_WAIT_POLICY"),
    ({"tiers": [TierFacts("user", "/db", 90, 9, 9, 3)]}, "hint", "user database", "9 problems", "tune --stale"),
    (
        {"tiers": [TierFacts("user", "/db", 9, 3, 3), TierFacts("site", "/s", trouble="/s: damaged")]},
        "slow", "site database", "damaged", "convkit db verify",
    ),
    (
        {"tiers": [TierFacts("user", "", trouble="set HOME"), TierFacts("shipped", "f", problems=5, here=5)]},
        "hint", "user database", "set HOME", "nothing that is measured is kept",
    ),
    ({"variables": {"CONVKIT_MODE": "off"}}, "slow", "mode", "ignores", "Unset CONVKIT_MODE"),
    ({"variables": {"CONVKIT_MODE": "online"}}, "hint", "mode", "measures in your calls", "Unset CONVKIT_MODE"),
    ({"variables": {"CONVKIT_ACCURACY": "strict"}}, "hint", "accuracy", "no Winograd", "Unset CONVKIT_ACCURACY"),
    ({"calibrated": None, "cost_model": "CPUID defaults"}, "hint", "cost model", "CPUID", "convkit calibrate"),
    ({"calibrated": 150e9}, "slow", "FMA peak", "67% of what was calibrated", "power profile"),
    ({"measurement": replace(SPEED, team_peak=210e9)}, "slow", "team", "2.10 times one", "number of cores"),
    ({"measurement": replace(SPEED, layer=20e9)}, "slow", "a 3x3 layer", "20% of the FMA peak", "convkit explain"),
    ({"measurement": replace(SPEED, team_layer=50e9)}, "slow", "a 3x3 layer", "slower than one thread", "=1"),
    ({"measurement": replace(SPEED, contended="3 of 4")}, "slow", "neighbours", "3 of 4", "top"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "level", "about", "what", "todo"), SITUATIONS)
def test_each_situation_is_told_with_what_to_do(
    changes: dict[str, Any], level: str, about: str, what: str, todo: str
) -> None:
    (found,) = told(**changes)
    assert (found.level, found.about) == (level, about)
    assert what in found.what
    assert todo in found.todo


def test_a_winograd_kernel_may_pass_the_peak() -> None:
    fast = replace(SPEED, layer=290e9, team_layer=500e9, kernel="f32_winograd_4x4_3x3__avx512")
    layer = findings(replace(HEALTHY, measurement=fast))[-1]
    assert layer.what.endswith("by f32_winograd_4x4_3x3__avx512 (Winograd; counted as direct summation)")
    assert "Winograd" not in findings(HEALTHY)[-1].what


def test_nobody_has_measured_for_machines_like_this() -> None:
    found = told(tiers=[TierFacts("user", "/db", 90, 9), TierFacts("shipped", "")])
    assert [one.about for one in found] == ["user database", "shipped trials", "measurements"]
    assert "9 for others" in found[0].what
    assert "convkit tune" in found[-1].todo


def test_openmp_runtimes_are_found_by_their_names(tmp_path: Path) -> None:
    names = [
        "libgomp-a34b3233.so.1.0.0",
        "libiomp5.so",
        "libomp.so.5",
        "libcomposite.so",
        "libgomposter.so",
        "libm.so.6",
    ]
    lines = [f"7f00-7f01 r-xp 00000000 08:01 {i} {tmp_path}/{name}\n" for i, name in enumerate(names)]
    maps = tmp_path / "maps"
    maps.write_text("".join(lines * 2) + "7f02-7f03 rw-p 00000000 00:00 0 \n7f04-7f05 rw-p 0 00:00 0 [heap]\n")
    assert [Path(path).name for path in openmp_runtimes(str(maps))] == names[:3]
    assert openmp_runtimes(str(tmp_path / "absent")) == []


@pytest.mark.skipif(ctypes.util.find_library("gomp") is None, reason="there is no libgomp")
def test_the_runtimes_of_a_process_are_seen() -> None:
    code = (
        "import ctypes; from convkit.doctor.situation import openmp_runtimes as found; print(len(found()));"
        "ctypes.CDLL('libgomp.so.1'); print(len(found()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["0", "1"]


def test_gather_tells_this_process(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tune_problem(Problem(n=1, c=4, h=8, w=8, o=4, kh=3, kw=3), 1, budget=0.05)
    monkeypatch.setenv("CONVKIT_MODE", "require")
    facts = gather(0.1)
    assert facts.variables["CONVKIT_MODE"] == "require"
    user = facts.tiers[0]
    assert (user.name, user.path, user.problems, user.here) == ("user", str(database), 1, 1)
    assert facts.measurement is not None
    assert facts.measurement.peak > facts.measurement.layer / 10 > 0
    database.write_bytes(b"not a database" * 100)
    (user, *_) = gather(0.0).tiers
    assert "not" in user.trouble


@pytest.mark.usefixtures("database")
def test_the_command_says_what_to_do_and_exits_with_what_it_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(situation, "gather", lambda seconds: HEALTHY)
    assert run("doctor", "--measure", "0s").endswith("Nothing to do.\n")
    monkeypatch.setattr(situation, "gather", lambda seconds: replace(HEALTHY, calibrated=None, isa="avx2"))
    text = run("doctor", "--measure", "0s", code=1)
    assert "SLOW  CPU" in text
    assert "  1. Unset CONVKIT_ISA" in text
    assert "  2. Run `convkit calibrate`" in text
    assert max(map(len, text.splitlines())) <= 80
    value = json.loads(run("doctor", "--measure", "0s", "--json", code=1))
    assert value["slow"] is True
    assert {one["about"] for one in value["findings"] if one["level"] == "slow"} == {"CPU"}
    assert value["facts"]["isa"] == "avx2"


@pytest.mark.usefixtures("database")
def test_the_command_imports_what_it_is_told_and_refuses_what_says_nothing() -> None:
    run("doctor", "--measure", "1ms", code=2)
    assert "no_such_module" in run("doctor", "--measure", "0s", "--with", "no_such_module", code=2)
    text = json.loads(run("doctor", "--measure", "0s", "--with", "colorsys,wave", "--json", code=json_code()))
    assert text["facts"]["measurement"] is None
    assert {"colorsys", "wave"} <= set(sys.modules)


def json_code() -> int:
    """The exit status that this machine gets without a measurement."""
    return int(any(one.level == "slow" for one in findings(gather(0.0))))
