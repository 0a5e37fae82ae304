"""The tuning report as one self-contained page: the text of ``convkit report``, its plots, and every choice."""

from __future__ import annotations

from html import escape
from pathlib import Path

from convkit.pictures.tuning import figures
from convkit.report.summary import Summary, summarise
from convkit.tuner.choosing.selector import Selector, selector

__all__ = ["write"]


def write(path: Path | str, choosing: Selector | None = None, summary: Summary | None = None) -> None:
    """Write one self-contained page with plots.

    Parameters
    ----------
    path : Path or str
        The file; it is replaced.
    """
    choosing = choosing or selector()
    found = summary or summarise(choosing)
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>convkit: tuning report</title>",
        "<style>body{font:15px/1.5 sans-serif;max-width:72em;margin:2em auto;padding:0 1em}"
        "pre{background:#f4f4f4;padding:1em;overflow:auto}img{max-width:100%}</style>",
        f"<h1>convkit: tuning report</h1><pre>{escape(str(found))}</pre>",
    ]
    for title, explanation, picture in figures(found.measured, found.regrets):
        parts.append(
            f"<h2>{escape(title)}</h2><p>{escape(explanation)}</p>"
            f"<img alt='{escape(title)}' src='data:image/png;base64,{picture}'>"
        )
    parts.append("<h2>Choices</h2><pre>")
    parts += [escape(f"{case.choose()}  {case.task}\n") for case in found.measured]
    parts.append("</pre></html>")
    Path(path).write_text("".join(parts), encoding="utf-8")
