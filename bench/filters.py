"""Image filters: convkit.ndimage beside SciPy and OpenCV, in turns in one process.

    python bench/filters.py [--only gaussian,7x7] [--threads 1,2] [--against scipy,opencv] [--seconds 2]
    python bench/filters.py --draw            only the page, from what is stored

Results go to ``bench/results/<machine>/filters.json`` and from there into docs/ndimage.md; ``--json FILE`` writes them
elsewhere and leaves the page alone. Times are medians. Errors are the largest difference from SciPy's result in double
precision, relative to its largest value. Run it from a clone on a machine that does nothing else; needs SciPy, and
OpenCV (``pip install opencv-python-headless``) for its column.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import convkit as ck
from convkit import ndimage
from convkit.tuner import machine

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = ROOT / "bench" / "results", ROOT / "docs" / "ndimage.md"
STORED = "filters.json"
TITLES = {"scipy": "SciPy", "opencv": "OpenCV", "convkit": "convkit"}
LEAST_ROUNDS = 3

Array = NDArray[Any]
Calls = dict[str, Callable[[], Any]]


def image(size: int, dtype: str, *colours: int) -> Array:
    """Noise; a filter's time does not depend on what it sees."""
    return np.random.default_rng(size).integers(0, 255, (size, size, *colours)).astype(dtype)


def gaussian(x: Array, sigma: float, axes: tuple[int, ...] | None = None) -> Calls:
    """A Gaussian; OpenCV's of the same length."""
    scipy, cv2 = others()
    side = 2 * int(4 * sigma + 0.5) + 1
    return {
        "scipy": partial(scipy.gaussian_filter, x, sigma, axes=axes),
        "opencv": lambda: cv2.GaussianBlur(x, (side, side), sigma, borderType=cv2.BORDER_REFLECT),
        "convkit": partial(ndimage.gaussian_filter, x, sigma, axes=axes),
    }


def dense(x: Array, side: int) -> Calls:
    """A filter that is no product. SciPy sums up small filters and transforms large ones."""
    scipy, cv2 = others()
    w = np.random.default_rng(side).standard_normal((side, side))
    narrow = w.astype(np.float32)
    theirs: Callable[[], Any] = partial(scipy.correlate, x, w)
    if side > 13:
        from scipy.signal import oaconvolve

        half = side // 2
        theirs = lambda: oaconvolve(np.pad(x, half, mode="symmetric"), narrow[::-1, ::-1], mode="valid")  # noqa: E731
    return {
        "scipy": theirs,
        "opencv": lambda: cv2.filter2D(x, -1, narrow, borderType=cv2.BORDER_REFLECT),
        "convkit": partial(ndimage.correlate, x, w),
    }


def bank(x: Array, count: int, side: int) -> Calls:
    """Many filters on one image, which SciPy takes one by one, for many seconds."""
    _, cv2 = others()
    w = np.random.default_rng(side).standard_normal((count, side, side))
    narrow = w.astype(np.float32)
    return {
        "opencv": lambda: [cv2.filter2D(x, -1, one, borderType=cv2.BORDER_REFLECT) for one in narrow],
        "convkit": partial(ndimage.correlate_bank, x, w),
    }


def named(x: Array, name: str, opencv: Callable[[Any], Any] | None, *arguments: Any) -> Calls:
    """A function that SciPy and convkit have by the same name."""
    scipy, cv2 = others()
    calls: Calls = {"scipy": partial(getattr(scipy, name), x, *arguments)}
    if opencv is not None:
        calls["opencv"] = lambda: opencv(cv2)
    return calls | {"convkit": partial(getattr(ndimage, name), x, *arguments)}


def others() -> tuple[Any, Any]:
    """SciPy's filters and OpenCV, or None for it."""
    import scipy.ndimage

    try:
        import cv2
    except ImportError:
        cv2 = None
    return scipy.ndimage, cv2


def cases() -> dict[str, Callable[[], Calls]]:
    """What is measured, made when it is needed."""
    found: dict[str, Callable[[], Calls]] = {}
    for sigma in (1, 5):
        for dtype in ("float32", "uint8", "float64"):
            found[f"gaussian {sigma}, 4096x4096 {dtype}"] = lambda s=sigma, d=dtype: gaussian(image(4096, d), s)
    for side in (3, 5, 7):
        found[f"{side}x{side}, 2048x2048 float32"] = lambda k=side: dense(image(2048, "float32"), k)
    found["7x7, 2048x2048 uint8"] = lambda: dense(image(2048, "uint8"), 7)
    for side in (11, 15, 21, 31):
        found[f"{side}x{side}, 2048x2048 float32"] = lambda k=side: dense(image(2048, "float32"), k)
    found["bank of 32 7x7, 2048x2048 float32"] = lambda: bank(image(2048, "float32"), 32, 7)
    x, stack = image(2048, "float32"), np.random.default_rng(0).random((64, 256, 256), np.float32)
    found["uniform 9, 2048x2048 float32"] = lambda: named(x, "uniform_filter", lambda cv2: cv2.blur(x, (9, 9)), 9)
    found["sobel, 2048x2048 float32"] = lambda: named(x, "sobel", lambda cv2: cv2.Sobel(x, -1, 1, 0))
    found["laplace, 2048x2048 float32"] = lambda: named(x, "laplace", lambda cv2: cv2.Laplacian(x, -1))
    found["gradient of gaussian 2, 2048x2048 float32"] = lambda: named(x, "gaussian_gradient_magnitude", None, 2)
    found["gaussian 2, 2048x2048x3 uint8"] = lambda: gaussian(image(2048, "uint8", 3), 2, (0, 1))
    found["gaussian 1.5, 64x256x256 float32"] = lambda: named(stack, "gaussian_filter", None, 1.5)
    return found


def measure(name: str, make: Callable[[], Calls], threads: int, against: list[str], seconds: float) -> dict[str, Any]:
    """One row: the middle of each one's seconds, taken in turns."""
    _, cv2 = others()
    if cv2 is not None:
        cv2.setNumThreads(threads)
    every = make()
    keywords: dict[str, Any] = {"num_threads": threads}
    calls: Calls = {key: call for key, call in every.items() if key in against and (key != "opencv" or cv2 is not None)}
    calls["convkit"] = partial(every["convkit"], **keywords)
    times: dict[str, list[float]] = {key: [] for key in calls}
    results = {key: call() for key, call in calls.items()}
    begin = time.perf_counter()
    while len(times["convkit"]) < LEAST_ROUNDS or time.perf_counter() - begin < seconds:
        for key in calls if len(times["convkit"]) % 2 else reversed(calls):
            start = time.perf_counter()
            calls[key]()
            times[key].append(time.perf_counter() - start)
    row: dict[str, Any] = {"case": name, "threads": threads}
    row["seconds"] = {key: statistics.median(found) for key, found in times.items()}
    if "scipy" in results:
        exact = np.asarray(results["scipy"], dtype=np.float64)
        row["error"] = float(np.abs(results["convkit"] - exact).max() / np.abs(exact).max())
    return row


def told(row: dict[str, Any]) -> str:
    """A row for the terminal."""
    own = row["seconds"]["convkit"]
    parts = [f"{TITLES[key]} {1e3 * value:.2f} ms ({value / own:.1f}x)" for key, value in row["seconds"].items()]
    return f"{row['case']}, {row['threads']} threads: {', '.join(parts)}; error {row.get('error', 0):.0e}"


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as a Markdown table."""
    lines = ["| filter | threads | SciPy | OpenCV | convkit | beside SciPy | beside OpenCV | error |"]
    lines.append("|---" + "|---:" * 7 + "|")
    for row in rows:
        seconds, own = row["seconds"], row["seconds"]["convkit"]
        times = [f"{1e3 * seconds[key]:.1f}" if key in seconds else "-" for key in ("scipy", "opencv", "convkit")]
        ratios = [f"{seconds[key] / own:.1f}x" if key in seconds else "-" for key in ("scipy", "opencv")]
        error = f"{row['error']:.0e}" if "error" in row else "-"
        lines.append(f"| {row['case']} | {row['threads']} | {' | '.join(times)} | {' | '.join(ratios)} | {error} |")
    return "\n".join(lines)


def rewritten(page: str, folders: list[Path]) -> str:
    """The page with what the folders hold between its marks."""
    begin, end = "<!-- by bench/filters.py -->", "<!-- until here -->"
    parts = []
    for folder in folders:
        stored = json.loads((folder / STORED).read_text(encoding="utf-8"))
        versions = ", ".join(f"{name} {number}" for name, number in stored["versions"].items())
        about = (
            f"`python bench/filters.py`, {stored['cpu']} ({folder.name}), {stored['when']}; {versions}. Milliseconds."
        )
        parts += [about, table(stored["rows"])]
    inner = "\n\n".join(parts) if parts else "Nothing is stored yet: `python bench/filters.py` measures."
    head, _, rest = page.partition(begin)
    return f"{head}{begin}\n\n{inner}\n\n{end}{rest.partition(end)[2]}"


def main() -> None:
    """Measure, store and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="parts of the cases' names")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--against", default="scipy,opencv", help="scipy, opencv; empty: nothing")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each case")
    parser.add_argument("--json", type=Path, help="store the rows here and leave the page alone")
    parser.add_argument("--draw", action="store_true")
    arguments = parser.parse_args()
    kind = machine.machine_class()
    path = arguments.json or RESULTS / f"{kind.vendor}-{kind.family}-{kind.model}-{kind.isa}" / STORED
    if not arguments.draw:
        import scipy

        _, cv2 = others()
        versions = {"scipy": scipy.__version__} | ({"opencv": cv2.__version__} if cv2 is not None else {})
        stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"rows": []}
        kept = {(row["threads"], row["case"]): row for row in stored["rows"]}
        known = cases()
        for threads in map(int, arguments.threads.split(",")):
            for name, make in known.items():
                if any(part in name for part in arguments.only.split(",")):
                    row = measure(name, make, threads, arguments.against.split(","), arguments.seconds)
                    kept[threads, name] = row
                    print(told(row), flush=True)
        order = list(known)
        rows = sorted(kept.values(), key=lambda row: (row["threads"], order.index(row["case"])))
        about = {"cpu": str(ck._core.cpu().get("brand", "")).strip(), "when": time.strftime("%Y-%m-%d")}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**about, "versions": versions, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    if not arguments.json:
        folders = sorted(found.parent for found in RESULTS.glob(f"*/{STORED}"))
        PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8"), folders), encoding="utf-8")


if __name__ == "__main__":
    main()
