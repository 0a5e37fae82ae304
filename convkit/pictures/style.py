"""What all pictures have in common: colours and the frame around a plot."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from matplotlib.axes import Axes

__all__ = ["GRID", "INK", "LIMIT", "OURS", "QUIET", "THEIRS", "Mark", "family_marks", "frame"]

INK, QUIET, GRID, LIMIT = "#1f2933", "#7b8794", "#e4e7eb", "#c8553d"
# convkit's own contestants are blues, the others keep one colour each in every picture.
OURS = ("#2f6fb0", "#7fb2e5", "#123c69", "#a9c9ea", "#4b8bbe", "#5b7fa6", "#8fa8c4", "#24527a")
THEIRS = {
    "PyTorch": "#e07b39",
    "ONNX Runtime": "#6b9e5b",
    "OpenVINO": "#8d6bb0",
    "ncnn": "#d4ac2b",
    "NumPy": "#c9ced6",
}
# Okabe and Ito's palette, which people who confuse red and green can read; a grey stands for its black, which a dark
# page would swallow. A ninth family begins anew with another marker.
FAMILIES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#8c8c8c")
MARKERS = "osD^"


class Mark(NamedTuple):
    """How one family of kernels is drawn: a colour, and a marker that tells families of one colour apart."""

    colour: str
    marker: str

    @property
    def shared(self) -> bool:
        """Another family had the colour first."""
        return self.marker != MARKERS[0]

    @property
    def ink(self) -> str:
        """Black or white, whichever is read better on the colour."""
        channels = (int(self.colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
        red, green, blue = (
            value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels
        )
        return "#000000" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18 else "#ffffff"


def family_marks(families: Iterable[str]) -> dict[str, Mark]:
    """A mark for each family, in the order given."""
    turns = (Mark(colour, marker) for marker in MARKERS for colour in FAMILIES)
    return dict(zip(dict.fromkeys(families), turns, strict=False))


def frame(axes: Axes, title: str, subtitle: str, grid: str = "y") -> None:
    """Title, subtitle and grid; an empty title leaves the first two out."""
    if title:
        axes.set_title(title, fontsize=14, color=INK, loc="left", pad=26)
        axes.text(0.0, 1.02, subtitle, transform=axes.transAxes, fontsize=9.5, color=QUIET)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color=GRID, linewidth=0.8)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
