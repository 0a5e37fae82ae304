"""``convkit db``: look at the tuning database, check it, carry it between machines."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer
from rich.table import Table
from rich.text import Text

from convkit.commands.failing import CommandError
from convkit.commands.outputs import STDOUT, Outputs
from convkit.commands.terminal import console, error_console
from convkit.commands.watching import Watch
from convkit.tables import aligned, bytes_text, threads_text, time_text

if TYPE_CHECKING:
    from convkit.tuner.evidence.records import Session, Trial

    Condition = Callable[[Session, Trial], bool]

__all__ = ["app"]

app = typer.Typer(help="The database of measurements: show, check, merge, export.", no_args_is_help=True)


@app.command()
def path() -> None:
    """Print where the database is, whether it exists or not."""
    from convkit.tuner.evidence.paths import paths

    found = paths()
    print(found.user if found.user else f"none: {found.reason}")
    for site in found.sites:
        print(f"site: {site}")


@app.command()
def ls() -> None:
    """List the sessions of measurements."""
    from convkit.tuner.evidence.database import open_user

    database = open_user()
    sessions = list(database.sessions())
    trials = Counter(trial.session for trial in database.trials())
    table = Table(title=Text(str(database.path)))
    for column in ("started (UTC)", "machine class", "threads", "affinity", "trials", "convkit", "contended"):
        table.add_column(column, overflow="fold")
    for session in sessions:
        table.add_row(
            session.started[:19].replace("T", " "),
            session.machine,
            str(session.threads),
            session.affinity,
            str(trials[session.uuid]),
            str(session.versions.get("convkit", "")),
            "yes" if session.contended else "",
        )
    console.print(table)


@app.command()
def show(
    problem: Annotated[str, typer.Argument(help="Part of a problem's text; empty: all.")] = "",
    everything: Annotated[
        bool, typer.Option("--all", help="Every trial, not only the fastest of each problem.")
    ] = False,
) -> None:
    """Show what was measured: the fastest trial of each problem, or all of them."""
    from convkit.tuner.evidence.database import open_user

    database = open_user()
    counted, size = database.counts(), database.path.stat().st_size
    sessions = {session.uuid: session for session in database.sessions()}
    trials = [trial for trial in database.trials() if problem in trial.problem and trial.session in sessions]
    console.print(f"{database.path} ({bytes_text(size)})", highlight=False, markup=False, soft_wrap=True)
    shown: dict[str, list[Trial]] = {}
    for trial in trials if everything else _fastest(trials, sessions):
        shown.setdefault(trial.problem, []).append(trial)
    for text, own in shown.items():
        console.print(text, style="bold", highlight=False, markup=False, soft_wrap=True)
        for trial in own:
            console.print(_line(sessions[trial.session], trial), highlight=False, markup=False, soft_wrap=True)
    console.print(", ".join(f"{count} {name}" for name, count in counted.items()), highlight=False)


def _line(session: Session, trial: Trial) -> str:
    error = "" if trial.error is None else f", RMS error {trial.error:.1e}"
    doubt = ", contended" if session.contended else ""
    outcome = trial.status if not trial.reason else f"{trial.status}: {trial.reason}"
    return (
        f"  {threads_text(session.threads):10} {time_text(trial.median):>9}  "
        f"{trial.kernel}({','.join(map(str, trial.parameters))}), {trial.n} samples{error}, {outcome}{doubt}"
    )


def _fastest(trials: list[Trial], sessions: dict[str, Session]) -> list[Trial]:
    best: dict[tuple[str, str, int], Trial] = {}
    for trial in trials:
        session = sessions[trial.session]
        key = trial.problem, session.machine, session.threads
        if trial.median is not None and (key not in best or trial.median < (best[key].median or 0.0)):
            best[key] = trial
    return list(best.values())


@app.command()
def verify() -> None:
    """Check the file and every record in it; exit status 1 if anything is wrong."""
    from convkit.tuner.evidence.database import open_user

    database = open_user()
    found = database.verify()
    for sentence in found:
        console.print(sentence, style="red", highlight=False, markup=False, soft_wrap=True)
    if found:
        raise typer.Exit(1)
    console.print(f"{database.path} is sound", highlight=False, markup=False, soft_wrap=True)


@app.command()
def merge(
    files: Annotated[
        list[Path], typer.Argument(help="Databases of other machines or users.", exists=True, dir_okay=False)
    ],
) -> None:
    """Add everything that other databases hold; repeating it changes nothing."""
    from convkit.tuner.evidence.database import Database, open_user

    for file in files:
        Database(file, owned=False).counts()  # one that cannot be read leaves all of them out
    database = open_user(create=True)
    with Watch("databases", len(files), console) as watch:
        for file in files:
            merged = database.merge(file)
            watch.tell(f"{file}: {merged.sessions} sessions and {merged.trials} trials are new")
            watch.advance()


@app.command("export")
def export_(
    file: Annotated[Path, typer.Argument(help="File of JSON lines; -: standard output.")] = STDOUT,
    contended: Annotated[bool, typer.Option(help="Also measurements of a machine that was busy.")] = False,
    package: Annotated[
        bool, typer.Option("--package", help="Write the file that convkit ships for such machines.")
    ] = False,
) -> None:
    """Write all records as text, one JSON object a line."""
    from convkit.tuner.evidence.database import open_user

    if package:
        if file != STDOUT or contended:
            raise typer.BadParameter("--package names its file itself and leaves contended sessions out: give it alone")
        _export_package()
        return
    database = open_user()
    if file == STDOUT:
        database.export(sys.stdout, contended=contended)
        return
    with Outputs() as outputs, outputs.file(file).open("w", encoding="utf-8") as stream:
        written = database.export(stream, contended=contended)
    console.print(f"{written.sessions} sessions and {written.trials} trials", highlight=False)


def _export_package() -> None:
    from convkit.tuner.evidence.database import open_user
    from convkit.tuner.evidence.shipped import DIRECTORY, write
    from convkit.tuner.inventory import core_inventory
    from convkit.tuner.machine import machine_class

    with Outputs() as outputs:
        staged = outputs.folder(Path(DIRECTORY))
        written = write(open_user(), machine_class(), core_inventory(), str(staged))
    console.print(f"{written.sessions} sessions and {written.trials} trials", highlight=False)


@app.command()
def shipped() -> None:
    """Say what comes with the package: of each machine class how many problems, and how completely they are answered.

    A problem is answered completely if every kernel that takes it was measured at its current revision. Where the best
    one was measured at an older revision, that trial counts until somebody measures anew.
    """
    from convkit.report.coverage import coverage
    from convkit.tuner.evidence.shipped import DIRECTORY
    from convkit.tuner.inventory import core_inventory

    inventory = core_inventory()
    table = Table(title="Measurements shipped with convkit")
    table.add_column("machine class", overflow="fold")
    for column in ("problems", "trials", "complete", "outdated", "of no use"):
        table.add_column(column, justify="right", overflow="fold")
    for path in sorted(Path(DIRECTORY).glob("*.trials")):
        if not _judged(path):
            table.add_row(path.stem, *["needs its CPU"] * 5)
            continue
        found = coverage(path, inventory)
        table.add_row(
            path.stem,
            str(found.problems),
            str(found.trials),
            f"{100 * found.complete / max(found.problems, 1):.0f}%",
            f"{100 * found.outdated / max(found.problems, 1):.0f}%",
            str(found.useless),
        )
    console.print(table)


def _judged(path: Path) -> bool:
    """Whether the kernels that a shipped file is about are in this process's inventory."""
    from convkit import _core
    from convkit.tuner.evidence.shipped import machine_of

    return machine_of(path.name).isa == _core.active_isa()


def _prune_package(dry_run: bool) -> None:
    """Rewrite the shipped files without what no current kernel can use."""
    from convkit.report.coverage import prune as pruned
    from convkit.tuner.evidence.shipped import DIRECTORY
    from convkit.tuner.inventory import core_inventory

    inventory = core_inventory()
    with Outputs() as outputs:
        staged = outputs.folder(Path(DIRECTORY))
        for path in sorted(Path(DIRECTORY).glob("*.trials")):
            if not _judged(path):
                console.print(f"{path.name}: left alone, for it takes a CPU with its instruction set", markup=False)
                continue
            gone = pruned(path, inventory, staged / path.name)
            if dry_run or not gone:
                (staged / path.name).unlink()
            told = f"{'would leave' if dry_run else 'left'} out {gone} trials that no current kernel can use"
            console.print(f"{path.name}: {told}", highlight=False, markup=False, soft_wrap=True)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="What export wrote; -: standard input.")],
) -> None:
    """Add the records of an export; a wrong line adds nothing."""
    from rich import progress

    from convkit.tuner.evidence.database import Database
    from convkit.tuner.evidence.paths import paths

    # The file is made with its first records, not before them.
    found = paths()
    if found.user is None:
        raise CommandError(f"there is no database file: {found.reason}")
    with contextlib.ExitStack() as stack:
        if file == STDOUT:
            stream: TextIO = sys.stdin
        else:
            bar = progress.open(
                file, "r", encoding="utf-8", description="reading", console=error_console, transient=True,
                disable=not error_console.is_terminal,
            )  # fmt: skip
            stream = stack.enter_context(bar)
        try:
            merged = Database(found.user).import_lines(stream)
        except UnicodeDecodeError as error:
            raise CommandError(f"{file} is not an export: {error}") from None
    console.print(f"{merged.sessions} sessions and {merged.trials} trials are new", highlight=False)


@app.command()
def prune(
    older: Annotated[int, typer.Option(help="Trials older than so many days.", min=0, max=100_000)] = 0,
    contended: Annotated[bool, typer.Option("--contended", help="Trials of a machine that was busy.")] = False,
    machine: Annotated[str, typer.Option(help="Trials of machine classes whose text contains this.")] = "",
    kernel: Annotated[str, typer.Option(help="Trials of kernels whose name contains this.")] = "",
    package: Annotated[
        bool, typer.Option("--package", help="Of the files that convkit ships: what no current kernel can use.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and delete nothing.")] = False,
) -> None:
    """Delete the trials that match all of the options given. Nothing else ever deletes one."""
    from convkit.tuner.evidence.database import Merged, open_user

    if package:
        if older or contended or machine or kernel:
            raise typer.BadParameter("--package says itself what goes: give it alone, or with --dry-run")
        _prune_package(dry_run)
        return
    conditions: dict[str, Condition] = {}
    if older:
        before = (datetime.now(UTC) - timedelta(days=older)).strftime("%Y-%m-%dT%H:%M:%SZ")
        conditions[f"older than {older} days"] = lambda session, _: session.started < before
    if contended:
        conditions["of a busy machine"] = lambda session, _: session.contended
    if machine:
        conditions[f"of a machine class with {machine!r}"] = lambda session, _: machine in session.machine
    if kernel:
        conditions[f"of a kernel with {kernel!r}"] = lambda _, trial: kernel in trial.kernel
    if not conditions:
        raise typer.BadParameter("say what to delete: --older, --contended, --machine or --kernel")

    def drop(session: Session, trial: Trial) -> bool:
        return all(condition(session, trial) for condition in conditions.values())

    database = open_user()
    held = database.counts()
    sessions = {session.uuid: session for session in database.sessions()}
    trials = [(sessions[trial.session], trial) for trial in database.trials() if trial.session in sessions]
    kept = [pair for pair in trials if not drop(*pair)]
    rows = [(name, sum(condition(*pair) for pair in trials)) for name, condition in conditions.items()]
    rows.append(("all of that", len(trials) - len(kept)))
    if unreadable := held["trials"] - len(trials):
        rows.append(("unreadable records", unreadable))
    for line in aligned([(name, f"{count} of {held['trials']} trials") for name, count in rows]):
        console.print(line, highlight=False, markup=False)
    if dry_run:
        empty = held["sessions"] - len({session.uuid for session, _ in kept})
        gone = Merged(empty, held["trials"] - len(kept))
    else:
        gone = database.prune(drop)
    console.print(
        f"{'would delete' if dry_run else 'deleted'} {gone.trials} of {held['trials']} trials "
        f"and {gone.sessions} of {held['sessions']} sessions",
        highlight=False,
    )


@app.command()
def freeze(file: Annotated[Path, typer.Argument(help="A new file.")]) -> None:
    """Write a read-only copy; CONVKIT_DB set to it pins every choice."""
    from convkit.tuner.evidence.database import open_user

    merged = open_user().freeze(file)
    console.print(
        f"{file}: {merged.sessions} sessions, {merged.trials} trials; pin them with CONVKIT_DB={file.absolute()}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
