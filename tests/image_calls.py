"""Every function of `convkit.images` against NumPy in float64: with tails and without, both types, one thread and two,
NaN, empty windows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from convkit import images

CHANNELS_AND_THREADS = ((1, 1), (3, 2), (16, 1), (37, 2), (130, 1))


def close(found: Any, expected: Any, dtype: Any, what: str) -> None:
    assert found.dtype == dtype, what
    np.testing.assert_allclose(
        found, expected, rtol=2e-5 if dtype == np.float32 else 1e-12, atol=2e-6 if dtype == np.float32 else 1e-13,
        err_msg=what,
    )  # fmt: skip


def pools(random: Any, dtype: Any, channels: int, threads: int) -> None:
    x = random.normal(size=(2, 30, 23, channels)).astype(dtype)
    x[0, 5, 6] = np.nan
    for kernel, stride, dilation, before, after in (
        ((2, 2), (2, 2), (1, 1), (0, 0), (0, 0)),
        ((3, 4), (2, 1), (1, 2), (2, 1), (1, 3)),
        ((5, 5), (1, 1), (1, 1), (2, 2), (2, 2)),
        ((1, 2), (3, 50), (1, 1), (4, 0), (3, 60)),  # some windows lie outside
    ):
        what = f"kernel {kernel} stride {stride} dilation {dilation} {dtype} C={channels} threads={threads}"
        size = tuple(
            (x.shape[1 + i] + before[i] + after[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1
            for i in range(2)
        )
        factors = [random.uniform(0.5, 1, n).astype(dtype) for n in size]
        sums = np.zeros((2, *size, channels))
        best = np.full((2, *size, channels), -np.inf)
        for i, j, a, b in np.ndindex(*size, *kernel):
            p, q = i * stride[0] - before[0] + a * dilation[0], j * stride[1] - before[1] + b * dilation[1]
            if 0 <= p < x.shape[1] and 0 <= q < x.shape[2]:
                sums[:, i, j] += x[:, p, q]
                best[:, i, j] = np.maximum(best[:, i, j], x[:, p, q])
        arguments = (kernel, stride, dilation, before, size)
        found = images.pool(x, *arguments, num_threads=threads)
        np.testing.assert_array_equal(found, best.astype(dtype), err_msg=what)
        found = images.pool(x, *arguments, *factors, num_threads=threads)
        close(found, sums * factors[0][:, None, None] * factors[1][:, None], dtype, what)


def pool_gradients(random: Any, dtype: Any, channels: int, threads: int) -> None:
    x = random.integers(0, 4, (2, 30, 23, channels)).astype(dtype)  # with many equals
    x[0, 5, 6] = np.nan
    for kernel, stride, dilation, before, size in (
        ((2, 2), (2, 2), (1, 1), (0, 0), (15, 11)),
        ((3, 4), (2, 1), (1, 2), (2, 1), (16, 20)),
        ((1, 2), (3, 50), (1, 1), (4, 0), (14, 2)),  # some windows lie outside, some pixels under none
    ):
        y = images.pool(x, kernel, stride, dilation, before, size, num_threads=threads)
        dy = random.normal(size=y.shape).astype(dtype)
        expected = np.zeros(x.shape)
        for i, j in np.ndindex(*size):
            left = dy[:, i, j].astype(float)
            for a, b in np.ndindex(*kernel):
                p, q = i * stride[0] - before[0] + a * dilation[0], j * stride[1] - before[1] + b * dilation[1]
                if 0 <= p < x.shape[1] and 0 <= q < x.shape[2]:
                    hit = ~(x[:, p, q] < y[:, i, j])  # NaN is nowhere below
                    expected[:, p, q] += left * hit
                    left[hit] = 0
        found = images.pool_gradient(dy, x, y, kernel, stride, dilation, before, threads)
        close(found, expected, dtype, f"kernel {kernel} stride {stride} {dtype} C={channels} threads={threads}")


def resizes(random: Any, dtype: Any, channels: int, threads: int) -> None:
    x = random.normal(size=(2, 9, 11, channels)).astype(dtype)
    for height, width in ((18, 22), (5, 40), (0, 3)):
        rows, columns = np.sort(random.integers(0, 9, height)), np.sort(random.integers(0, 11, width))
        found = images.resample(x, rows, columns, num_threads=threads)
        np.testing.assert_array_equal(found, x[:, rows][:, :, columns])
        above, right = np.minimum(rows + 1, 8), np.minimum(columns + 1, 10)
        down, across = random.uniform(size=height).astype(dtype), random.uniform(size=width).astype(dtype)
        found = images.resample(x, rows, columns, above, right, down, across, num_threads=threads)
        a, wide = down[:, None, None].astype(float), across[:, None].astype(float)
        mixed = x[:, rows] * (1 - a) + x[:, above] * a
        close(found, mixed[:, :, columns] * (1 - wide) + mixed[:, :, right] * wide, dtype, f"{height}x{width}")


def moments(random: Any, dtype: Any, inner: int, threads: int) -> None:
    for outer, count in ((1, 1), (3, 500), (2, 40000 // inner)):
        x = (random.normal(size=(outer, count, inner)) + 3).astype(dtype)
        exact = x.astype(float)
        what = f"{outer} {count} {inner} threads={threads}"
        mean, variance = images.moments(x, True, threads)
        close(mean, exact.mean(1), dtype, what)
        close(variance, exact.var(1), dtype, what)
        np.testing.assert_array_equal(images.moments(x, num_threads=threads), mean)


def scales(random: Any, dtype: Any, inner: int, threads: int) -> None:
    for outer, count in ((1, 70), (3, 60000 // inner)):
        x, residual = (random.normal(size=(outer, count, inner)).astype(dtype) for _ in range(2))
        scale, shift = (random.normal(size=(outer, inner)).astype(dtype) for _ in range(2))
        y = x.astype(float)
        for given, expected in (
            ({}, y),
            ({"scale": scale}, y * scale[:, None]),
            ({"scale": scale, "residual": residual}, y * scale[:, None] + residual),
            ({"scale": scale, "shift": shift}, y * scale[:, None] + shift[:, None]),
            ({"shift": shift, "residual": residual}, y + shift[:, None] + residual),
        ):
            close(images.scale_shift(x, **given, num_threads=threads), expected, dtype, str(list(given)))
            found = images.scale_shift(x, **given, activation=("clip", -0.5, 0.75), num_threads=threads)
            close(found, np.clip(expected, -0.5, 0.75), dtype, "clip")
            found = images.scale_shift(x, **given, activation="silu", num_threads=threads)
            close(found, expected / (1 + np.exp(-expected)), dtype, "silu")


def scale_gradients(random: Any, dtype: Any, inner: int, threads: int) -> None:
    for outer, count in ((1, 70), (3, 60000 // inner)):
        # Fractions with few digits: what the clamp is asked about is exact, and its bounds are often met.
        x, dy = (random.integers(-20, 20, (outer, count, inner)).astype(dtype) / 8 for _ in range(2))
        scale, shift, centre, a, b, c = (random.integers(-9, 9, (outer, inner)).astype(dtype) / 8 for _ in range(6))
        exact, given = x.astype(float), dy.astype(float)
        for activation, lo, hi in ((None, -np.inf, np.inf), ("relu", 0, np.inf), (("clip", -0.5, 0.75), -0.5, 0.75)):
            for line in ({}, {"scale": scale, "shift": shift}):
                value = exact * scale[:, None] + shift[:, None] if line else exact
                options: Any = {**line, "activation": activation, "num_threads": threads}
                g = np.where((value > lo) & (value < hi), given, 0)
                total, along = images.gradient_sums(dy, x, centre, **options)
                what = f"{activation} {list(line)} {outer} {count} {inner}"
                close(total, g.sum(1), dtype, what)
                close(along, (g * (exact - centre[:, None])).sum(1), dtype, what)
                close(images.scale_gradient(dy, x, **options), g, dtype, what)
                kept = dy.copy()
                found = images.scale_gradient(kept, x, a, b, c, in_place=True, **options)
                assert found is kept
                close(found, g * a[:, None] + exact * b[:, None] + c[:, None], dtype, what)


def rows(random: Any, dtype: Any, length: int, threads: int) -> None:
    for count in (1, 5, 40000 // length):
        x = (4 * random.normal(size=(count, length)) + 1).astype(dtype)
        exact = x.astype(float)
        power = np.exp(exact - exact.max(1, keepdims=True))
        close(images.softmax(x, threads), power / power.sum(1, keepdims=True), dtype, f"{count} {length}")
        weight, bias = (random.normal(size=length).astype(dtype) for _ in range(2))
        normal = (exact - exact.mean(1, keepdims=True)) / np.sqrt(exact.var(1, keepdims=True) + 0.01)
        close(images.layer_norm(x, weight, bias, 0.01, threads), normal * weight + bias, dtype, "layer norm")
        close(images.layer_norm(x, epsilon=0.01, num_threads=threads), normal, dtype, "layer norm")
    x = np.zeros((4, length), dtype)
    x[1, -1], x[2, 0], x[3] = np.nan, np.inf, -np.inf
    np.testing.assert_array_equal(np.isnan(images.softmax(x)[1:]), True)


def groups(random: Any, dtype: Any, channels: int, threads: int) -> None:
    count = 4 if channels % 4 == 0 else channels
    x = (random.normal(size=(2, 300, channels)) + 2).astype(dtype)
    weight, bias = (random.normal(size=channels).astype(dtype) for _ in range(2))
    exact = x.astype(float).reshape(2, 300, count, -1)
    axes = (1, 3)
    normal = (exact - exact.mean(axes, keepdims=True)) / np.sqrt(exact.var(axes, keepdims=True) + 0.01)
    expected = normal.reshape(x.shape) * weight + bias
    found = images.group_norm(x, count, weight, bias, 0.01, last=True, num_threads=threads)
    close(found, expected, dtype, "group norm")
    first = np.ascontiguousarray(x.transpose(0, 2, 1))
    found = images.group_norm(first, count, weight, bias, 0.01, last=False, num_threads=threads)
    close(found, expected.transpose(0, 2, 1), dtype, "group norm of planes")


def joins(random: Any, dtype: Any, channels: int, threads: int) -> None:
    parts = [random.normal(size=(2, 30, 40, c)).astype(dtype) for c in (channels, 3, 64)]
    parts[1] = np.ascontiguousarray(parts[1].transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    parts.append(parts[2][..., 3:20])
    np.testing.assert_array_equal(images.concatenate(parts, threads), np.concatenate(parts, axis=3))
    many = [parts[0][..., i % channels : i % channels + 1] for i in range(70)]
    np.testing.assert_array_equal(images.concatenate(many, threads), np.concatenate(many, axis=3))
    for lone in (parts[0][:1, :1, :1], parts[0][:, ::2], parts[0][:, :, 3:], parts[3][1:, :, ::-1]):
        np.testing.assert_array_equal(images.concatenate([lone, lone], threads), np.concatenate([lone, lone], axis=3))


def check_all() -> None:
    random = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        for channels, threads in CHANNELS_AND_THREADS:
            for check in (pools, pool_gradients, resizes, moments, scales, scale_gradients, rows, groups, joins):
                check(random, np.dtype(dtype), channels, threads)
