"""Kernels of rounding: scale search, error-compensated rounding of one group of columns, damage of every width.

The kernels only see arrays whose shapes `grid.check_rounding` held.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numba import njit

from nash_swarm.quantizers.kernels.level_fitting import fit_levels, nearest_code

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

_OPTIONS = {"nogil": True, "cache": True, "fastmath": {"reassoc", "contract", "nsz", "arcp"}, "error_model": "numpy"}


@njit(inline="always", **_OPTIONS)
def _nearest(x: np.float32) -> int:
    return math.floor(x + np.float32(0.5))


@njit(**_OPTIONS)
def fit_grid(
    x: Floats, weight: Floats, top: int, base: np.float32, table: Floats, shrinks: Floats
) -> tuple[int, int, np.float32]:
    """Scale code and zero-point of the grid of `top + 1` levels with the least weighted squared error.

    x, weight: float32 (group,). base, table: the tensor's scales. shrinks: shares of the full range that are tried.
    Returns (scale code, zero-point, error).
    """
    low = np.float32(0.0)
    high = np.float32(0.0)
    for j in range(x.size):
        low = min(low, x[j])
        high = max(high, x[j])
    best_code, best_zero, best = 255, 0, np.float32(np.inf)
    if high == low:
        return best_code, best_zero, np.float32(0.0)
    levels = np.float32(top)
    tried = -1
    for i in range(shrinks.size):
        wanted = (high - low) * shrinks[i] / levels
        code = int(_nearest(np.float32(-16.0) * np.log2(wanted / base)))
        code = max(0, min(255, code))
        if code == tried:
            continue
        tried = code
        scale = table[code]
        inverse = np.float32(1.0) / scale
        zero = min(levels, max(np.float32(0.0), np.float32(_nearest(-low * shrinks[i] * inverse))))
        error = np.float32(0.0)
        for j in range(x.size):
            v = np.float32(_nearest(x[j] * inverse)) + zero
            v = min(levels, max(np.float32(0.0), v))
            d = (v - zero) * scale - x[j]
            error += weight[j] * d * d
        if error < best:
            best_code, best_zero, best = code, int(zero), error
    return best_code, best_zero, best


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
    code_levels, zero_levels, nearest, closest, spread: of `levels.LevelTables`.
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
        top = (1 << bits) - 1
        if spread[bits] > 0:
            code, zero, _ = fit_levels(
                x, weight[start:stop], top, base, table, zero_levels[bits], closest[bits], spread[bits]
            )
        else:
            code, zero, _ = fit_grid(x, weight[start:stop], top, base, table, shrinks)
        scale_codes[n, group] = code
        zeros[n, group] = zero
        scale = table[code]
        inverse = np.float32(1.0) / scale
        z = zero_levels[bits, zero]
        levels = np.float32(top)
        for j in range(stop - start):
            if spread[bits] > 0:
                chosen = nearest_code(x[j] * inverse + z, nearest[bits])
                codes[n, start + j] = np.uint8(chosen)
                v = code_levels[bits, chosen]
            else:
                v = min(levels, max(np.float32(0.0), np.float32(_nearest(x[j] * inverse)) + z))
                codes[n, start + j] = np.uint8(v)
            rounded = (v - z) * scale
            work[n, start + j] = rounded
            if feedback:
                error = (x[j] - rounded) / factor[start + j, start + j]
                errors[n, j] = error
                for k in range(j + 1, stop - start):
                    x[k] -= error * factor[start + j, start + k]


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
    zero_levels, closest, spread: of `levels.LevelTables`.
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
                    if spread[bits] > 0:
                        out[tile, g, s] += fit_levels(
                            x, w, tops[s], base, table, zero_levels[bits], closest[bits], spread[bits]
                        )[2]
                    elif tops[s] > 0:
                        search = shrinks if tops[s] < 255 else shrinks[:2]
                        out[tile, g, s] += fit_grid(x, w, tops[s], base, table, search)[2]
