"""Kernels of rounding: scale search, error-compensated rounding of one group of columns, damage of every width.

The kernels only see arrays whose shapes `rounding.columns.check_rounding` held.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from nash_swarm.compiling import njit
from nash_swarm.quantizers.formats.native.kernels.codebook_fitting import fit_levels, nearest_code, scale_code

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Longs = npt.NDArray[np.int64]

_OPTIONS = {"nogil": True, "cache": True, "fastmath": {"reassoc", "contract", "nsz", "arcp"}, "error_model": "numpy"}


@njit(inline="always", **_OPTIONS)
def whole(x: np.float32) -> int:
    """The whole number nearest to x, the larger one of two."""
    return math.floor(x + np.float32(0.5))


@njit(**_OPTIONS)
def fit_grid(
    x: Floats, weight: Floats, top: int, base: np.float32, table: Floats, lowest: int, stride: int, places: int,
    shrinks: Floats,
) -> tuple[int, int, np.float32]:  # fmt: skip
    """Scale code and zero-point of the grid of `top + 1` levels with the least weighted squared error.

    x, weight: float32 (group,). base, table: the tensor's scales. lowest, stride, places: the codes that are allowed,
    see `scale_code`. shrinks: shares of the full range that are tried.
    Returns (scale code, zero-point, error).
    """
    low = np.float32(0.0)
    high = np.float32(0.0)
    for j in range(x.size):
        low = min(low, x[j])
        high = max(high, x[j])
    best_code, best_zero, best = lowest + stride * (places - 1), 0, np.float32(np.inf)
    if high == low:
        return best_code, best_zero, np.float32(0.0)
    levels = np.float32(top)
    tried, tried_zero = -1, np.float32(0.0)
    for i in range(0 if stride == 1 else -1, shrinks.size):
        shrink = shrinks[max(0, i)]
        code = scale_code((high - low) * shrink / levels, base, lowest, stride, places)
        if i < 0:  # the nearest of coarse steps may clip: one up does not
            code, shrink = max(lowest, code - stride), np.float32(1.0)
        scale = table[code]
        inverse = np.float32(1.0) / scale
        zero = min(levels, max(np.float32(0.0), np.float32(whole(-low * shrink * inverse))))
        if code == tried and zero == tried_zero:
            continue
        tried, tried_zero = code, zero
        error = np.float32(0.0)
        for j in range(x.size):
            v = np.float32(whole(x[j] * inverse)) + zero
            v = min(levels, max(np.float32(0.0), v))
            d = (v - zero) * scale - x[j]
            error += weight[j] * d * d
        if error < best:
            best_code, best_zero, best = code, int(zero), error
    return best_code, best_zero, best


@njit(inline="always", **_OPTIONS)
def fit_scale(
    x: Floats, weight: Floats, bits: int, base: np.float32, table: Floats, lowest: int, stride: int, places: int,
    shrinks: Floats, zero_levels: Floats, closest: Floats, spread: Floats,
) -> tuple[int, int, np.float32]:  # fmt: skip
    """`fit_levels` or `fit_grid`, whichever the width's levels ask for.

    zero_levels, closest, spread: of `codebooks.LevelTables`.
    """
    top = (1 << bits) - 1
    if spread[bits] > 0:
        return fit_levels(
            x, weight, top, base, table, lowest, stride, places, zero_levels[bits], closest[bits], spread[bits]
        )
    return fit_grid(x, weight, top, base, table, lowest, stride, places, shrinks)


@njit(inline="always", **_OPTIONS)
def pass_on(x: Floats, j: int, rounded: np.float32, start: int, factor: Floats) -> np.float32:
    """Pass the error of a group's column j on to its later ones; returns it divided by the factor's diagonal."""
    error = (x[j] - rounded) / factor[start + j, start + j]
    for k in range(j + 1, x.size):
        x[k] -= error * factor[start + j, start + k]
    return error


@njit(**_OPTIONS)
def round_group(
    work: Floats,
    start: int,
    stop: int,
    factor: Floats,
    weight: Floats,
    widths: Bytes,
    base: np.float32,
    table: Floats,
    shrinks: Floats,
    code_levels: Floats,
    zero_levels: Floats,
    nearest: Bytes,
    closest: Floats,
    spread: Floats,
    lowest: Longs,
    strides: Longs,
    offsets: Longs,
    most_places: int,
    feedback: bool,
    codes: Bytes,
    scale_codes: Bytes,
    zeros: Bytes,
    group: int,
    errors: Floats,
    first: int,
    past: int,
) -> None:
    """Round columns `start:stop` of rows `first:past` one column after the other.

    work: float32 (rows, columns), holds the rounded weights afterwards. factor: upper Cholesky factor of the inverse
    Hessian, float32 (columns, columns). weight: float32 (columns,) of the scale search. widths: uint8 (rows,).
    code_levels, zero_levels, nearest, closest, spread: of `codebooks.LevelTables`. lowest, strides, offsets,
    most_places: of `scale_ranges.ScaleRanges`.
    feedback: pass each column's error on to the group's later columns (GPTQ). errors: float32 (rows, stop - start),
    what the columns after the group still have to take up, divided by the factor's diagonal.
    """
    x = np.empty(stop - start, np.float32)
    for n in range(first, past):
        bits = widths[n]
        if bits == 16:
            errors[n, :] = np.float32(0.0)
            continue
        for j in range(stop - start):
            x[j] = work[n, start + j]
        lowest_code = min(255, lowest[n] + offsets[bits])
        places = min(most_places, (255 - lowest_code) // strides[n] + 1)
        code, zero, _ = fit_scale(
            x, weight[start:stop], bits, base, table, lowest_code, strides[n], places, shrinks, zero_levels, closest,
            spread,
        )  # fmt: skip
        scale_codes[n, group] = code
        zeros[n, group] = zero
        scale = table[code]
        inverse = np.float32(1.0) / scale
        z = zero_levels[bits, zero]
        levels = np.float32((1 << bits) - 1)
        for j in range(stop - start):
            if spread[bits] > 0:
                chosen = nearest_code(x[j] * inverse + z, nearest[bits])
                codes[n, start + j] = np.uint8(chosen)
                v = code_levels[bits, chosen]
            else:
                v = min(levels, max(np.float32(0.0), np.float32(whole(x[j] * inverse)) + z))
                codes[n, start + j] = np.uint8(v)
            rounded = (v - z) * scale
            work[n, start + j] = rounded
            if feedback:
                errors[n, j] = pass_on(x, j, rounded, start, factor)


@njit(**_OPTIONS)
def tile_damage(
    weights: Floats,
    rows: Floats,
    columns: Floats,
    group_size: int,
    tops: npt.NDArray[np.int64],
    base: np.float32,
    table: Floats,
    shrinks: Floats,
    zero_levels: Floats,
    closest: Floats,
    spread: Floats,
    out: npt.NDArray[np.float64],
    first: int,
    past: int,
) -> None:
    """Weighted squared rounding error of every tile with every width.

    shrinks: as `fit_grid`; at 8 bits only the first two, clipping more never pays.
    weights: float32 (rows, columns). rows: float32 (terms, rows) and columns: float32 (terms, columns), the error of
    weight (n, k) counts `sum_t rows[t, n] * columns[t, k]`. tops: int64 (strategies,), levels - 1, 0 for "exact".
    zero_levels, closest, spread: of `codebooks.LevelTables`.
    out: float64 (row_tiles, groups, strategies), added to. Tiles `first:past`.
    """
    terms = rows.shape[0]
    total = weights.shape[1]
    weight = np.empty(group_size, np.float32)
    for tile in range(first, past):
        for n in range(tile * 16, min(tile * 16 + 16, weights.shape[0])):
            for g in range(out.shape[1]):
                start = g * group_size
                stop = min(start + group_size, total)
                w = weight[: stop - start]
                w[:] = rows[0, n] * columns[0, start:stop]
                for t in range(1, terms):
                    w += rows[t, n] * columns[t, start:stop]
                x = weights[n, start:stop]
                for s in range(tops.size):
                    bits = 0
                    while tops[s] >> bits:
                        bits += 1
                    if bits > 0:
                        search = shrinks if bits < 8 else shrinks[:2]
                        out[tile, g, s] += fit_scale(
                            x, w, bits, base, table, 0, 1, 256, search, zero_levels, closest, spread
                        )[2]
