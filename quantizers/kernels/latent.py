"""Kernels of tuning: the weights that latent codes stand for, and one step of Adam on all that they are made of.

A latent matrix is a rounded one whose codes, scale codes and zero-points are real numbers. What the model multiplies
with are their nearest whole numbers; gradients pass through the rounding as if it were not there (the straight-through
estimator, Bengio, Leonard & Courville 2013, arXiv 1308.3432). The kernels see only arrays that `latent.LatentMatrix`
made.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numba import njit

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

_OPTIONS = {"nogil": True, "cache": True, "fastmath": {"reassoc", "contract", "nsz", "arcp"}, "error_model": "numpy"}

OCTAVE = np.float32(math.log(2) / 16)
"""Derivative of log(scale) by a scale code, but for its sign: a code is a sixteenth of an octave."""


@njit(inline="always", **_OPTIONS)
def _whole(x: np.float32, top: np.float32) -> np.float32:
    return min(top, max(np.float32(0.0), np.float32(math.floor(x + np.float32(0.5)))))


@njit(inline="always", **_OPTIONS)
def _scale(code: np.float32, table: Floats, whole: bool) -> np.float32:
    if whole:
        return table[int(_whole(code, np.float32(255)))]
    return table[0] * np.float32(2.0) ** (code * np.float32(-1 / 16))


@njit(**_OPTIONS)
def weights(
    codes: Floats, scale_codes: Floats, zeros: Floats, widths: Bytes, table: Floats, levels: Floats,
    zero_levels: Floats, whole: bool, group_size: int, order: npt.NDArray[np.int64], out: Floats, first: int, past: int,
) -> None:  # fmt: skip
    """Weights of rows `first:past` in the model's column order.

    codes: float32 (rows, columns), stored order; where the width is 16 the weights themselves. scale_codes, zeros:
    float32 (rows, groups). widths: uint8 (rows, groups). table: float32 (256,), the tensor's scales. levels,
    zero_levels: of `levels.LevelTables`. whole: round scale codes. order: int64 (columns,), the model's column of each
    stored one. out: float32 (rows, columns).
    """
    columns = codes.shape[1]
    for n in range(first, past):
        for g in range(widths.shape[1]):
            start, stop = g * group_size, min((g + 1) * group_size, columns)
            if widths[n, g] == 16:
                for k in range(start, stop):
                    out[n, order[k]] = codes[n, k]
                continue
            top = np.float32((1 << widths[n, g]) - 1)
            scale = _scale(scale_codes[n, g], table, whole)
            values = levels[widths[n, g]]
            zero = zero_levels[widths[n, g], int(_whole(zeros[n, g], top))]
            for k in range(start, stop):
                out[n, order[k]] = (values[int(_whole(codes[n, k], top))] - zero) * scale


@njit(inline="always", **_OPTIONS)
def _adam(
    value: np.float32, moments: Floats, gradient: np.float32, rate: np.float32, settings: Floats
) -> np.float32:  # fmt: skip
    first = settings[0] * moments[0] + (np.float32(1.0) - settings[0]) * gradient
    second = settings[1] * moments[1] + (np.float32(1.0) - settings[1]) * gradient * gradient
    moments[0], moments[1] = first, second
    return value - rate * first * settings[2] / (math.sqrt(second * settings[3]) + settings[4])


@njit(**_OPTIONS)
def step(
    codes: Floats, code_moments: Floats, scale_codes: Floats, scale_moments: Floats, zeros: Floats,
    zero_moments: Floats, widths: Bytes, table: Floats, levels: Floats, zero_levels: Floats, whole: bool,
    group_size: int, order: npt.NDArray[np.int64], gradient: Floats, rates: Floats, settings: Floats, first: int,
    past: int,
) -> None:  # fmt: skip
    """One step of Adam (Kingma & Ba 2015, arXiv 1412.6980) on rows `first:past`.

    codes, scale_codes, zeros, widths, table, levels, zero_levels, whole, order: as `weights`; the first three change in
    place and stay within half a step of a whole number in their range. code_moments: float32 (2, rows, columns);
    scale_moments, zero_moments: float32 (rows, groups, 2). gradient: float32 (rows, columns), of the loss by the
    weights, in the model's column order. rates: learning rates of codes, scale codes and zero-points, in their own
    units; with the first 0, codes stay. settings: beta1, beta2, 1 / (1 - beta1^t), 1 / (1 - beta2^t), epsilon.
    """
    columns = codes.shape[1]
    half = np.float32(0.5)
    one = np.float32(1.0)
    local = np.empty(group_size, np.float32)
    for n in range(first, past):
        for g in range(widths.shape[1]):
            if widths[n, g] == 16:
                continue
            start, stop = g * group_size, min((g + 1) * group_size, columns)
            top = np.float32((1 << widths[n, g]) - 1)
            scale = _scale(scale_codes[n, g], table, whole)
            values = levels[widths[n, g]]
            last = int(top)
            zero = zero_levels[widths[n, g], int(_whole(zeros[n, g], top))]
            zero_step = zero_levels[widths[n, g], 1] - zero_levels[widths[n, g], 0]
            along_scale = np.float32(0.0)
            along_zero = np.float32(0.0)
            for k in range(start, stop):
                local[k - start] = gradient[n, order[k]] * scale
            for k in range(start, stop):
                along_scale += local[k - start] * (values[int(_whole(codes[n, k], top))] - zero)
                along_zero += local[k - start]
            if rates[0] > 0:
                for k in range(start, stop):
                    at = int(_whole(codes[n, k], top))
                    before, after = max(0, at - 1), min(last, at + 1)
                    slope = local[k - start] * (values[after] - values[before]) / np.float32(after - before)
                    m = settings[0] * code_moments[0, n, k] + (one - settings[0]) * slope
                    v = settings[1] * code_moments[1, n, k] + (one - settings[1]) * slope * slope
                    code_moments[0, n, k] = m
                    code_moments[1, n, k] = v
                    moved = codes[n, k] - rates[0] * m * settings[2] / (np.sqrt(v * settings[3]) + settings[4])
                    codes[n, k] = min(top + half, max(-half, moved))
            moved = _adam(scale_codes[n, g], scale_moments[n, g], -OCTAVE * along_scale, rates[1], settings)
            scale_codes[n, g] = min(np.float32(255), max(np.float32(0), moved))
            moved = _adam(zeros[n, g], zero_moments[n, g], -along_zero * zero_step, rates[2], settings)
            zeros[n, g] = min(top + half, max(-half, moved))
