"""Checks that every link within a built site leads to a file and an anchor that are there: `check_links.py FOLDER`.

Nothing is fetched: links to other sites are only counted.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The anchors of a page, and what it links to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.targets: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember a tag's anchors and targets."""
        for name, value in attrs:
            if name == "id" or (tag == "a" and name == "name"):
                self.anchors.add(value or "")
            elif name in ("href", "src") and value:
                self.targets.add(value)


def broken(folder: Path) -> tuple[list[str], int]:
    """Links that lead nowhere, as lines of text, and how many there are within the site."""
    pages = {path.resolve(): Page(path.read_text(encoding="utf-8")) for path in folder.rglob("*.html")}
    found, count = [], 0
    for path, page in sorted(pages.items()):
        for target in sorted(page.targets):
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            count += 1
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            where = f"{path.relative_to(folder.resolve())}: {target}"
            if not file.exists():
                found.append(f"{where}: no such file")
            elif file in pages and parts.fragment and unquote(parts.fragment) not in pages[file].anchors:
                found.append(f"{where}: no such anchor")
    return found, count


def main() -> int:
    """Print what is broken; exit status 1 if anything is."""
    found, count = broken(Path(sys.argv[1]))
    print(*found, f"{count} links within the site, {len(found)} broken", sep="\n")
    return bool(found) or not count


if __name__ == "__main__":
    sys.exit(main())
