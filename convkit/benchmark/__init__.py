"""Side-by-side measurements: convkit, its single kernels and other libraries on the same data, in one process.

The functions behind ``convkit bench`` and the pytest suite in ``bench/``.
"""

from __future__ import annotations

__all__ = ["contestants", "limits", "plots", "race", "results"]
