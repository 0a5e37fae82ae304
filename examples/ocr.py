"""Read the text of a page: RapidOCR's pipeline of three ONNX models, its ONNX Runtime replaced by `convkit.onnx`.

    python -m examples.ocr                         # a page that is drawn here
    python -m examples.ocr page.png --boxes boxes.png --threads 2

The pipeline and its models (PP-OCRv4, detection, direction, recognition) come with the package `rapidocr-onnxruntime`.
Nothing of it is changed: it imports `onnxruntime`, and finds convkit under that name.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

__all__ = ["LINES", "boxes_drawn", "page", "read", "replaced_runtime"]

LINES = (
    "Convolution of small images",
    "1024 filters in 35 milliseconds",
    "Invoice No. 2026-11-28",
    "Total: 1,234.50 EUR",
)


def page(lines: Sequence[str] = LINES, size: int = 36) -> Any:
    """A page with lines of text, as an array of bytes (H, W, 3)."""
    image = Image.new("RGB", (900, 60 + 2 * size * len(lines)), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size)
    for i, line in enumerate(lines):
        draw.text((40, 40 + 2 * size * i), line, fill="black", font=font)
    return np.asarray(image)


@contextmanager
def replaced_runtime() -> Iterator[None]:
    """Within the block, who imports onnxruntime gets `convkit.onnx`; modules of RapidOCR are imported anew."""
    import convkit.onnx

    def dropped() -> dict[str, Any]:
        names = [name for name in sys.modules if name.partition(".")[0] in ("onnxruntime", "rapidocr_onnxruntime")]
        return {name: sys.modules.pop(name) for name in names}

    before = dropped()
    sys.modules["onnxruntime"] = convkit.onnx
    try:
        yield
    finally:
        dropped()
        sys.modules.update(before)


def read(image: Any, threads: int = -1) -> list[tuple[Any, str, float]]:
    """Lines of a page from top to bottom: four corners, text, confidence. Runs on the onnxruntime that is imported."""
    from rapidocr_onnxruntime import RapidOCR

    found, _ = RapidOCR(intra_op_num_threads=threads)(image)
    return [(np.array(corners), text, float(score)) for corners, text, score in found or []]


def boxes_drawn(image: Any, lines: Sequence[tuple[Any, str, float]]) -> Any:
    """The page with a box around each line and its text below it."""
    picture = Image.fromarray(image)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(16)
    for corners, text, score in lines:
        draw.polygon([tuple(corner) for corner in corners.tolist()], outline="red", width=2)
        left, bottom = corners[:, 0].min(), corners[:, 1].max()
        draw.text((left, bottom + 2), f"{text} ({score:.2f})", fill="blue", font=font)
    return picture


def main() -> None:
    """Read a page and print its lines."""
    parser = argparse.ArgumentParser(description="Read a page's text by convkit.onnx.")
    parser.add_argument("picture", nargs="?", type=Path, help="a picture; without one a page is drawn")
    parser.add_argument("--boxes", type=Path, help="write the page with boxes around its lines")
    parser.add_argument("--threads", type=int, default=-1, help="team size; -1: convkit's default")
    words = parser.parse_args()
    image = page() if words.picture is None else np.asarray(Image.open(words.picture).convert("RGB"))
    with replaced_runtime():
        begin = time.perf_counter()
        lines = read(image, words.threads)
        seconds = time.perf_counter() - begin
    for _, text, score in lines:
        print(f"{score:.3f}  {text}")
    print(f"{len(lines)} lines, {seconds:.2f} s with loading")
    if words.boxes is not None:
        boxes_drawn(image, lines).save(words.boxes)


if __name__ == "__main__":
    main()
