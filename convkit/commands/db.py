"""``convkit db``: look at the tuning database, check it, carry it between machines."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from convkit.commands import arguments
from convkit.commands.terminal import console
from convkit.tables import bytes_text, threads_text, time_text

if TYPE_CHECKING:
    from convkit.tuner.evidence.records import Session, Trial

__all__ = ["app"]

app = typer.Typer(help="The database of measurements: show, check, merge, export.", no_args_is_help=True)


@contextlib.contextmanager
def _reported() -> Iterator[None]:
    """Database errors are one sentence and exit status 1."""
    from convkit.tuner.evidence.database import DatabaseError

    try:
        yield
    except DatabaseError as error:
        console.print(str(error), style="red", highlight=False)
        raise typer.Exit(1) from None


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

    with _reported():
        database = open_user()
        sessions = list(database.sessions())
        trials: dict[str, int] = {}
        for trial in database.trials():
            trials[trial.session] = trials.get(trial.session, 0) + 1
    table = Table(title=str(database.path))
    for column in ("started (UTC)", "machine class", "threads", "affinity", "trials", "convkit", "contended"):
        table.add_column(column, overflow="fold")
    for session in sessions:
        table.add_row(
            session.started[:19].replace("T", " "),
            session.machine,
            str(session.threads),
            session.affinity,
            str(trials.get(session.uuid, 0)),
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

    with _reported():
        database = open_user()
        counted, size = database.counts(), database.path.stat().st_size
        sessions = {session.uuid: session for session in database.sessions()}
        trials = [trial for trial in database.trials() if problem in trial.problem and trial.session in sessions]
    console.print(f"{database.path} ({bytes_text(size)})", highlight=False, soft_wrap=True)
    shown = trials if everything else _fastest(trials, sessions)
    for text in dict.fromkeys(trial.problem for trial in shown):
        console.print(f"[bold]{text}[/bold]", highlight=False, soft_wrap=True)
        for trial in shown:
            if trial.problem == text:
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

    with _reported():
        database = open_user()
        found = database.verify()
    for sentence in found:
        console.print(sentence, style="red", highlight=False)
    if found:
        raise typer.Exit(1)
    console.print(f"{database.path} is sound", highlight=False)


@app.command()
def merge(
    files: Annotated[list[Path], typer.Argument(help="Databases of other machines or users.", exists=True)],
) -> None:
    """Add everything that other databases hold; repeating it changes nothing."""
    from convkit.tuner.evidence.database import open_user

    with _reported():
        database = open_user(create=True)
        for file in files:
            merged = database.merge(file)
            console.print(f"{file}: {merged.sessions} sessions and {merged.trials} trials are new", highlight=False)


@app.command("export")
def export_(
    file: Annotated[Path | None, typer.Argument(help="File of JSON lines; none: standard output.")] = None,
    contended: Annotated[bool, typer.Option(help="Also measurements of a machine that was busy.")] = False,
    package: Annotated[
        bool, typer.Option("--package", help="Write the file that convkit ships for such machines.")
    ] = False,
) -> None:
    """Write all records as text, one JSON object a line."""
    from convkit.tuner.evidence.database import open_user

    if package and (file or contended):
        raise typer.BadParameter("--package names its file itself and leaves contended sessions out: give it alone")
    with _reported(), contextlib.ExitStack() as stack:
        database = open_user()
        if package:
            from convkit.tuner.evidence.shipped import write
            from convkit.tuner.inventory import core_inventory
            from convkit.tuner.machine import machine_class

            written = write(database, machine_class(), core_inventory())
            console.print(f"{written.sessions} sessions and {written.trials} trials", highlight=False)
            return
        stream = stack.enter_context(file.open("w", encoding="utf-8")) if file else sys.stdout
        database.export(stream, contended=contended)


@app.command("import")
def import_(file: Annotated[Path, typer.Argument(help="What export wrote.", exists=True)]) -> None:
    """Add the records of an export; a wrong line adds nothing."""
    from convkit.tuner.evidence.database import open_user

    with _reported(), file.open(encoding="utf-8") as stream:
        merged = open_user(create=True).import_lines(stream)
    console.print(f"{merged.sessions} sessions and {merged.trials} trials are new", highlight=False)


@app.command()
def prune(
    older: Annotated[str, typer.Option(help="Trials older than so many days.")] = "",
    contended: Annotated[bool, typer.Option("--contended", help="Trials of a machine that was busy.")] = False,
    machine: Annotated[str, typer.Option(help="Trials of machine classes whose text contains this.")] = "",
    kernel: Annotated[str, typer.Option(help="Trials of kernels whose name contains this.")] = "",
) -> None:
    """Delete trials that match any of the options. Nothing else ever deletes one."""
    from convkit.tuner.evidence.database import open_user

    if not (older or contended or machine or kernel):
        raise typer.BadParameter("say what to delete: --older, --contended, --machine or --kernel")
    before = ""
    if older:
        days = arguments.counts(older)[0]
        before = (datetime.now(UTC) - timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")

    def drop(session: Session, trial: Trial) -> bool:
        return bool(
            session.started < before
            or (contended and session.contended)
            or (machine and machine in session.machine)
            or (kernel and kernel in trial.kernel)
        )

    with _reported():
        dropped = open_user().prune(drop)
    console.print(f"deleted {dropped.trials} trials and {dropped.sessions} sessions left empty", highlight=False)


@app.command()
def freeze(file: Annotated[Path, typer.Argument(help="A new file.")]) -> None:
    """Write a read-only copy; CONVKIT_DB set to it pins every choice."""
    from convkit.tuner.evidence.database import open_user

    with _reported():
        merged = open_user().freeze(file)
    console.print(
        f"{file}: {merged.sessions} sessions, {merged.trials} trials; pin them with CONVKIT_DB={file}", highlight=False
    )
