"""What all pictures have in common: colours and the frame around a plot."""

from __future__ import annotations

from matplotlib.axes import Axes

__all__ = ["FAMILIES", "GRID", "INK", "LIMIT", "OURS", "QUIET", "THEIRS", "frame"]

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
FAMILIES = (
    "#2f6fb0",
    "#e07b39",
    "#6b9e5b",
    "#8d6bb0",
    "#d4ac2b",
    "#c8553d",
    "#4fa3a5",
    "#9c6644",
    "#b56592",
    "#7b8794",
)


def frame(axes: Axes, title: str, subtitle: str, grid: str = "y") -> None:
    """Title, subtitle and grid; an empty title leaves the first two out."""
    if title:
        axes.set_title(title, fontsize=14, color=INK, loc="left", pad=26)
        axes.text(0.0, 1.02, subtitle, transform=axes.transAxes, fontsize=9.5, color=QUIET)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color=GRID, linewidth=0.8)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
