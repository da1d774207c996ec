"""Kernels of tuning: weights from real-valued scale codes and zero-points, and steps of Adam on these.

The forward pass rounds both to whole numbers; gradients ignore the rounding (the straight-through estimator, Bengio,
Leonard & Courville 2013, arXiv 1308.3432). The kernels are called only with arrays of `latent.LatentMatrix`.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from nash_swarm.compiling import njit

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]

_OPTIONS = {"nogil": True, "cache": True, "fastmath": {"reassoc", "contract", "nsz", "arcp"}, "error_model": "numpy"}

OCTAVE = np.float32(math.log(2) / 16)
"""Magnitude of the derivative of log(scale) with respect to a scale code, a sixteenth of an octave."""


@njit(inline="always", **_OPTIONS)
def _whole(x: np.float32, top: np.float32) -> np.float32:
    return min(top, max(np.float32(0.0), np.float32(math.floor(x + np.float32(0.5)))))


@njit(inline="always", **_OPTIONS)
def _scale(
    code: np.float32, table: Floats, lowest: int, stride: int, places: int, whole: bool
) -> np.float32:  # fmt: skip
    if whole:
        place = (code - np.float32(lowest)) / np.float32(stride)
        return table[min(255, lowest + stride * int(_whole(place, np.float32(places - 1))))]
    return table[0] * np.float32(2.0) ** (code * np.float32(-1 / 16))


@njit(**_OPTIONS)
def weights(
    codes: Bytes, halves: Floats, scale_codes: Floats, zeros: Floats, widths: Bytes, table: Floats, levels: Floats,
    zero_levels: Floats, lowest: Longs, strides: Longs, places: int, whole: bool, group_size: int, stored: Ints,
    out: Floats, first: int, past: int,
) -> None:  # fmt: skip
    """Weights of rows `first:past` in the model's column order.

    codes: uint8 (rows, columns), stored order. halves: float32 (rows, columns), the weights where the width is 16; of
    no rows where it never is. scale_codes, zeros: float32 (rows, groups). widths: uint8 (rows, groups). table: float32
    (256,), the tensor's scales. levels, zero_levels: of `codebooks.LevelTables`. lowest: int64 (rows, groups), each
    group's first scale code; strides, places: of `scale_ranges.ScaleRanges`. whole: round scale codes. stored: int32
    (columns,), where each of the model's columns is stored. out: float32 (rows, columns).
    """
    columns = codes.shape[1]
    row = np.empty(columns, np.float32)
    for n in range(first, past):
        for g in range(widths.shape[1]):
            start, stop = g * group_size, min((g + 1) * group_size, columns)
            if widths[n, g] == 16:
                for k in range(start, stop):
                    row[k] = halves[n, k]
                continue
            scale = _scale(scale_codes[n, g], table, lowest[n, g], strides[n], places, whole)
            values = levels[widths[n, g]]
            zero = zero_levels[widths[n, g], int(_whole(zeros[n, g], np.float32((1 << widths[n, g]) - 1)))]
            for k in range(start, stop):
                row[k] = (values[codes[n, k]] - zero) * scale
        for k in range(columns):
            out[n, k] = row[stored[k]]


@njit(**_OPTIONS)
def add_slopes(
    codes: Bytes, widths: Bytes, levels: Floats, group_size: int, order: Ints, gradient: Floats, slopes: Floats,
    first: int, past: int,
) -> None:  # fmt: skip
    """Add rows `first:past` of a gradient with respect to the weights to its sums over groups.

    codes, widths, levels: as `weights`. order: int32 (columns,), the model's column of each stored one. gradient:
    float32 (rows, columns), in the model's column order. slopes: float32 (rows, groups, 2), the gradient summed over
    the levels of each group's codes, and over ones; not changed where the width is 16.
    """
    columns = codes.shape[1]
    row = np.empty(columns, np.float32)
    for n in range(first, past):
        for k in range(columns):
            row[k] = gradient[n, order[k]]
        for g in range(widths.shape[1]):
            if widths[n, g] == 16:
                continue
            values = levels[widths[n, g]]
            by_level = np.float32(0.0)
            by_one = np.float32(0.0)
            for k in range(g * group_size, min((g + 1) * group_size, columns)):
                by_level += row[k] * values[codes[n, k]]
                by_one += row[k]
            slopes[n, g, 0] += by_level
            slopes[n, g, 1] += by_one


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
    scale_codes: Floats, scale_moments: Floats, zeros: Floats, zero_moments: Floats, widths: Bytes, table: Floats,
    zero_levels: Floats, lowest: Longs, strides: Longs, places: int, whole: bool, slopes: Floats, rates: Floats,
    settings: Floats,
) -> None:  # fmt: skip
    """One step of Adam (Kingma & Ba 2015, arXiv 1412.6980).

    scale_codes, zeros, widths, table, zero_levels, lowest, strides, places, whole: as `weights`; the first two change
    in place, scale codes stay in their range and zero-points within half a step of a whole number in their range.
    scale_moments, zero_moments: float32 (rows, groups, 2). slopes: as `add_slopes` left them. rates: learning rates of
    scale codes and zero-points, in their own units. settings: beta1, beta2, 1 / (1 - beta1^t), 1 / (1 - beta2^t),
    epsilon.
    """
    half = np.float32(0.5)
    for n in range(widths.shape[0]):
        for g in range(widths.shape[1]):
            if widths[n, g] == 16:
                continue
            top = np.float32((1 << widths[n, g]) - 1)
            scale = _scale(scale_codes[n, g], table, lowest[n, g], strides[n], places, whole)
            zero = zero_levels[widths[n, g], int(_whole(zeros[n, g], top))]
            zero_step = zero_levels[widths[n, g], 1] - zero_levels[widths[n, g], 0]
            along_scale = scale * (slopes[n, g, 0] - zero * slopes[n, g, 1])
            along_zero = scale * slopes[n, g, 1]
            moved = _adam(scale_codes[n, g], scale_moments[n, g], -OCTAVE * along_scale, rates[0], settings)
            highest = min(255, lowest[n, g] + strides[n] * (places - 1))
            scale_codes[n, g] = min(np.float32(highest), max(np.float32(lowest[n, g]), moved))
            moved = _adam(zeros[n, g], zero_moments[n, g], -along_zero * zero_step, rates[1], settings)
            zeros[n, g] = min(top + half, max(-half, moved))
