"""The example that reads a page: the same text by convkit as by ONNX Runtime, through a pipeline that is not ours."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx_ir", reason="onnx-ir is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("PIL", reason="Pillow is not installed")
# Its OpenCV needs libraries of the system that a server may lack.
pytest.importorskip("cv2", reason="OpenCV is not installed or cannot be loaded", exc_type=ImportError)

ROOT = Path(__file__).parent.parent
PROGRAM = """
import contextlib, json, sys
from examples import ocr
image = ocr.page()
with ocr.replaced_runtime() if sys.argv[1] == "convkit" else contextlib.nullcontext():
    lines = ocr.read(image, 1)
    home = sys.modules["onnxruntime"].__name__
print(json.dumps([home, [(corners.tolist(), text, score) for corners, text, score in lines]]))
"""


def process(*words: str) -> str:
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


def lines(runtime: str) -> tuple[str, list[Any]]:
    home, found = json.loads(process("-c", PROGRAM, runtime).splitlines()[-1])
    return home, found


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    import importlib.util

    if importlib.util.find_spec("rapidocr_onnxruntime") is None:
        pytest.skip("rapidocr-onnxruntime is not installed")


def test_the_same_text_as_by_onnx_runtime() -> None:
    (home, ours), (other, theirs) = lines("convkit"), lines("onnxruntime")
    assert (home, other) == ("convkit.onnx", "onnxruntime")
    assert [text for _, text, _ in ours] == [text for _, text, _ in theirs]
    assert "Convolution of small images" in [text for _, text, _ in ours]
    assert len(ours) == 4
    for (corners, _, score), (expected, _, wanted) in zip(ours, theirs, strict=True):
        assert score == pytest.approx(wanted, abs=1e-3)
        for a, b in zip(corners, expected, strict=True):
            assert a == pytest.approx(b, abs=1)


def test_the_command_draws_boxes(tmp_path: Path) -> None:
    from PIL import Image

    said = process("-m", "examples.ocr", "--boxes", str(tmp_path / "boxes.png"), "--threads", "1")
    assert said.splitlines()[-1].startswith("4 lines, ")
    with Image.open(tmp_path / "boxes.png") as picture:
        assert picture.size == (900, 348)
        assert any(red > 200 and green < 60 and blue < 60 for _, (red, green, blue) in picture.getcolors(1 << 20) or [])
