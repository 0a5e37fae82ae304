"""What the facts mean in plain words, and what to do: each rule looks at one thing and says one thing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from convkit.doctor.situation import Facts
from convkit.tables import threads_text

__all__ = ["Finding", "Level", "findings"]

Level = Literal["ok", "hint", "slow"]
Rule = Callable[[Facts], Iterator["Finding"]]

# Of the calibrated peak, or of one thread's peak times the team: less than this is more than a clock that wanders.
_LEAST_PEAK = 0.85
# Of the FMA peak, as direct summation counts: less than this is no kernel's own fault.
_LEAST_LAYER = 0.4


class Finding(NamedTuple):
    """One thing that was looked at.

    Attributes
    ----------
    level : {"ok", "hint", "slow"}
        "slow": it makes convkit slower than it could be here. "hint": it may, or something is not known yet.
    about, what : str
        What was looked at, and what was found.
    todo : str
        What to do; empty if nothing is to be done.
    """

    level: Level
    about: str
    what: str
    todo: str = ""


def findings(facts: Facts) -> list[Finding]:
    """Everything that was looked at, in the order of the rules."""
    return [finding for rule in _RULES for finding in rule(facts)]


def _instruction_set(facts: Facts) -> Iterator[Finding]:
    best = facts.usable[0]
    if facts.isa != best:
        yield Finding(
            "slow", "CPU", f"{facts.isa} is in force, but this CPU has {best}",
            f"Unset CONVKIT_ISA, which is {facts.variables.get('CONVKIT_ISA', 'set')!r}.",
        )  # fmt: skip
    elif best == "portable":
        where = "this virtual machine shows a CPU without AVX2" if facts.virtual else "this CPU has no AVX2"
        todo = (
            "Let the virtual machine pass the host's CPU through (libvirt: host-passthrough)." if facts.virtual else ""
        )
        yield Finding("slow" if facts.virtual else "hint", "CPU", f"{where}: 4 lanes instead of 8 or 16", todo)
    else:
        yield Finding("ok", "CPU", f"{best}, the best that this CPU has")


def _threads(facts: Facts) -> Iterator[Finding]:
    named = [name for name in ("CONVKIT_NUM_THREADS", "OMP_NUM_THREADS") if name in facts.variables]
    said = " and ".join(f"{name}={facts.variables[name]}" for name in named)
    bounds = []
    if facts.bound < facts.cpus:
        bounds.append(f"this process is bound to {facts.bound} of {facts.cpus} CPUs")
    if facts.quota is not None and facts.quota < facts.bound:
        bounds.append(f"the control group's quota is {facts.quota:g} CPUs")
    why = "; ".join(bounds) or f"all {facts.cpus} CPUs of the machine are there"
    if facts.quota is not None and facts.quota < 1:
        yield Finding(
            "slow", "threads", f"the control group's quota is {facts.quota:g} of a CPU: work stops and waits",
            "Grant the container at least one whole CPU (docker: --cpus 1).",
        )  # fmt: skip
    elif facts.threads > facts.available:
        yield Finding(
            "slow", "threads",
            f"calls use {threads_text(facts.threads)}, but only {facts.available} can work at once ({why})",
            f"Set CONVKIT_NUM_THREADS={facts.available}{f' instead of {said}' if said else ''}.",
        )  # fmt: skip
    elif facts.threads < facts.available:
        yield Finding(
            "hint", "threads", f"calls use {threads_text(facts.threads)} of {facts.available} that can work at once",
            f"Raise {said} if nothing else needs the other CPUs." if said
            else "Set CONVKIT_NUM_THREADS if nothing else needs the other CPUs.",
        )  # fmt: skip
    else:
        yield Finding("ok", "threads", f"{threads_text(facts.threads)} by default; {why}")


def _runtimes(facts: Facts) -> Iterator[Finding]:
    names = ", ".join("/".join(path.split("/")[-2:]) for path in facts.runtimes)
    if len(facts.runtimes) > 1:
        yield Finding(
            "slow", "OpenMP",
            f"{len(facts.runtimes)} runtimes are loaded ({names}): their waiting threads take CPUs from each other",
            "Set OMP_WAIT_POLICY=passive, so that waiting threads sleep, or import only one of the packages that bring "
            "them. If one runtime is the system's, import the packages before the first convolution.",
        )  # fmt: skip
    elif not facts.runtime:
        todo = "Unset CONVKIT_OPENMP." if "CONVKIT_OPENMP" in facts.variables else "Install libgomp (Debian: libgomp1)."
        yield Finding("hint", "OpenMP", "no runtime is used; convkit runs threads of its own", todo)
    elif facts.variables.get("OMP_WAIT_POLICY", "").lower() == "passive":
        yield Finding(
            "hint", "OpenMP",
            f"{facts.runtime}, whose threads sleep between calls: waking them costs some 20 µs a call",
            "Unset OMP_WAIT_POLICY if the calls are short and no other library needs the CPUs meanwhile.",
        )  # fmt: skip
    else:
        yield Finding("ok", "OpenMP", f"one runtime, {facts.runtime}")


def _databases(facts: Facts) -> Iterator[Finding]:
    answered = sum(tier.here for tier in facts.tiers)
    for tier in facts.tiers:
        about = f"{tier.name} database" if tier.name != "shipped" else "shipped trials"
        if tier.trouble:
            todo = "`convkit db verify` tells more." if tier.path else "Until then nothing that is measured is kept."
            yield Finding("slow" if tier.path else "hint", about, tier.trouble, todo)
        elif tier.stale:
            yield Finding(
                "hint", about, f"{tier.here} problems measured on machines like this one, {tier.stale} of them in "
                "doubt or stale: the measurement was short, the machine was busy, or kernels have changed since",
                "Run `convkit tune --stale` while the machine is idle.",
            )  # fmt: skip
        elif tier.here:
            yield Finding("ok", about, f"{tier.here} problems measured on machines like this one")
        else:
            other = f", {tier.problems} for others" if tier.problems else ""
            level: Level = "ok" if answered else "hint"
            yield Finding(level, about, f"nothing for machines like this one{other}")
    if not answered:
        yield Finding(
            "hint", "measurements", "every choice is a prediction of the cost model",
            "Measure your shapes: `convkit tune --network resnet50`, or `--shapes FILE` (docs/tuning.md).",
        )  # fmt: skip


def _settings(facts: Facts) -> Iterator[Finding]:
    mode = facts.variables.get("CONVKIT_MODE", "replay")
    if mode == "off":
        yield Finding("slow", "mode", "CONVKIT_MODE=off ignores what was measured", "Unset CONVKIT_MODE.")
    elif mode in ("tune", "online"):
        yield Finding(
            "hint", "mode", f"CONVKIT_MODE={mode} measures in your calls: the first calls of a shape are slower",
            "Unset CONVKIT_MODE once everything is measured.",
        )  # fmt: skip
    if facts.variables.get("CONVKIT_ACCURACY") == "strict":
        yield Finding(
            "hint", "accuracy", "CONVKIT_ACCURACY=strict allows no Winograd kernel, which may be twice as fast",
            "Unset CONVKIT_ACCURACY if an error of up to 4 times direct summation's is fine.",
        )  # fmt: skip


def _calibration(facts: Facts) -> Iterator[Finding]:
    if facts.calibrated is None:
        yield Finding(
            "hint", "cost model", f"constants are {facts.cost_model}, not measured on this machine",
            "Run `convkit calibrate` while the machine is idle (20 seconds).",
        )  # fmt: skip
    else:
        yield Finding("ok", "cost model", facts.cost_model)


def _speed(facts: Facts) -> Iterator[Finding]:
    found = facts.measurement
    if found is None:
        return
    giga = 1e-9
    if found.contended:
        yield Finding(
            "slow", "neighbours", f"something else used the CPUs while we measured ({found.contended})",
            "See what runs (`top`). On a virtual machine it may be another guest: `st` in `top` shows it.",
        )  # fmt: skip
    one = f"{found.peak * giga:.0f} GFLOP/s of one thread"
    if facts.calibrated is None:
        yield Finding("ok", "FMA peak", one)
    elif found.peak < _LEAST_PEAK * facts.calibrated:
        yield Finding(
            "slow", "FMA peak", f"{one}, {found.peak / facts.calibrated:.0%} of what was calibrated",
            "The clock is lower than it was: look at the power profile and the temperature "
            "(`cpupower frequency-info`), and at neighbours. If this is the machine's speed now, run "
            "`convkit calibrate` again.",
        )  # fmt: skip
    else:
        yield Finding("ok", "FMA peak", f"{one}, {found.peak / facts.calibrated:.0%} of what was calibrated")
    if facts.threads > 1:
        gained = found.team_peak / found.peak
        what = f"{found.team_peak * giga:.0f} GFLOP/s of {threads_text(facts.threads)}, {gained:.2f} times one thread"
        if gained < _LEAST_PEAK * facts.threads * 0.9:
            yield Finding(
                "slow", "team", what,
                "The threads share cores, or something else uses them: with hyper-threads, set CONVKIT_NUM_THREADS to "
                "the number of cores.",
            )  # fmt: skip
        else:
            yield Finding("ok", "team", what)
    share = found.layer / found.peak
    what = (
        f"{found.layer * giga:.0f} GFLOP/s of one thread, {found.team_layer * giga:.0f} of the team, by {found.kernel}"
    )
    if "winograd" in found.kernel:
        what += " (Winograd; counted as direct summation)"
    if share < _LEAST_LAYER:
        yield Finding(
            "slow", "a 3x3 layer", f"{what}: {share:.0%} of the FMA peak",
            "See why this kernel was chosen: `convkit explain 1x64x56x56 64x64x3x3 --padding 1`. Then measure: "
            "`convkit tune`.",
        )  # fmt: skip
    elif facts.threads > 1 and found.team_layer < found.layer:
        yield Finding(
            "slow", "a 3x3 layer", f"{what}: the team is slower than one thread",
            "Something else uses the CPUs, so that threads wait for each other. Stop it, or set CONVKIT_NUM_THREADS=1.",
        )  # fmt: skip
    else:
        yield Finding("ok", "a 3x3 layer", what)


_RULES: tuple[Rule, ...] = (_instruction_set, _threads, _runtimes, _databases, _settings, _calibration, _speed)
