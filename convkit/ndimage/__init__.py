"""Image filters: SciPy's calls on NumPy arrays, with convkit's kernels."""

from __future__ import annotations

from convkit.ndimage.correlation import convolve, convolve1d, correlate, correlate1d, correlate_bank
from convkit.ndimage.derivatives import gaussian_gradient_magnitude, gaussian_laplace, laplace, prewitt, sobel
from convkit.ndimage.patching import patch_scipy, unpatch_scipy
from convkit.ndimage.smoothing import gaussian_filter, gaussian_filter1d, uniform_filter, uniform_filter1d

__all__ = [
    "convolve", "convolve1d", "correlate", "correlate1d", "correlate_bank", "gaussian_filter", "gaussian_filter1d",
    "gaussian_gradient_magnitude", "gaussian_laplace", "laplace", "patch_scipy", "prewitt", "sobel",
    "uniform_filter", "uniform_filter1d", "unpatch_scipy",
]  # fmt: skip
