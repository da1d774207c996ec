"""Kernels of `parameter` granularity: every weight of a group has a width of its own on one shared range.

A group spans `[-zero * scale, (255 - zero) * scale]`; a weight of b bits has `2**b` evenly spaced levels on that range.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from nash_swarm.compiling import njit
from nash_swarm.quantizers.formats.native.kernels.rounding import pass_on, whole

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

_OPTIONS = {"nogil": True, "cache": True, "error_model": "numpy"}


@njit(**_OPTIONS)
def fit_range(x: Floats, base: np.float32, table: Floats) -> tuple[int, int]:
    """Scale code and zero-point of the narrowest range on the grid of scales that holds all of x."""
    low = np.float32(0.0)
    high = np.float32(0.0)
    for j in range(x.size):
        low = min(low, x[j])
        high = max(high, x[j])
    if high == low:
        return 255, 0
    # rounding the zero-point moves the range by up to half a step: leave room for it
    code = math.floor(-16.0 * math.log2((high - low) / 254.0 / base))
    code = max(0, min(255, code))
    zero = int(whole(-low / table[code]))
    return code, max(0, min(255, zero))


@njit(inline="always", **_OPTIONS)
def _round(x: np.float32, bits: int, scale: np.float32, zero: int) -> tuple[np.float32, np.float32]:
    levels = np.float32((1 << bits) - 1)
    step = scale * np.float32(255.0) / levels
    shift = scale * np.float32(zero)
    v = min(levels, max(np.float32(0.0), np.float32(whole((x + shift) / step))))
    return v, v * step - shift


@njit(**_OPTIONS)
def round_group(
    work: Floats,
    start: int,
    stop: int,
    factor: Floats,
    widths: Bytes,
    base: np.float32,
    table: Floats,
    feedback: bool,
    codes: Bytes,
    scale_codes: Bytes,
    zeros: Bytes,
    group: int,
    errors: Floats,
    first: int,
    past: int,
) -> None:
    """As `native.kernels.rounding.round_group`, with widths uint8 (rows, columns)."""
    x = np.empty(stop - start, np.float32)
    for n in range(first, past):
        x[:] = work[n, start:stop]
        code, zero = fit_range(x, base, table)
        scale_codes[n, group] = code
        zeros[n, group] = zero
        for j in range(stop - start):
            v, rounded = _round(x[j], widths[n, start + j], table[code], zero)
            codes[n, start + j] = np.uint8(v)
            work[n, start + j] = rounded
            if feedback:
                errors[n, j] = pass_on(x, j, rounded, start, factor)


@njit(**_OPTIONS)
def weight_damage(
    weights: Floats,
    rows: Floats,
    columns: Floats,
    group_size: int,
    widths: npt.NDArray[np.int64],
    base: np.float32,
    table: Floats,
    out: Floats,
    first: int,
    past: int,
) -> None:
    """Weighted squared rounding error of every weight with every width: out float32 (rows, columns, strategies)."""
    for n in range(first, past):
        for start in range(0, weights.shape[1], group_size):
            stop = min(start + group_size, weights.shape[1])
            code, zero = fit_range(weights[n, start:stop], base, table)
            for k in range(start, stop):
                weight = np.float32(0.0)
                for t in range(rows.shape[0]):
                    weight += rows[t, n] * columns[t, k]
                for s in range(widths.size):
                    _, rounded = _round(weights[n, k], widths[s], table[code], zero)
                    d = rounded - weights[n, k]
                    out[n, k, s] = weight * d * d
