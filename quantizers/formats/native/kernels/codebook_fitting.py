"""Kernel of rounding to uneven levels: the scale and zero-point of a group, and the code of a weight.

It only sees arrays whose shapes `rounding.columns.check_rounding` held, and the tables of `formats.native.codebooks`.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from nash_swarm.compiling import njit

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

_OPTIONS = {"nogil": True, "cache": True, "fastmath": {"reassoc", "contract", "nsz", "arcp"}, "error_model": "numpy"}

NARROWEST, WIDEST = np.float32(0.6), np.float32(1.6)
"""Scales are tried between these multiples of the one that suits a normal distribution, and beyond if outliers ask."""
NEAR = 4
"""Zero-points to either side of the best one that each scale is tried with. Many minima are nearly equal: with one
to either side 4 bits have 6 % more error, with all of them 2 % less, in twice the time."""
STRIDE = 2
"""Scale codes between those tried first; then the neighbours of the best one are."""


@njit(inline="always", **_OPTIONS)
def nearest_code(level: np.float32, nearest: Bytes) -> int:
    """The code whose level is nearest; nearest: a width's row of that table."""
    doubled = min(np.float32(511), max(np.float32(0), np.float32(2) * level))
    return int(np.int64(nearest[int(doubled)]))


@njit(inline="always", **_OPTIONS)
def level_error(x: Floats, weight: Floats, scale: np.float32, zero: np.float32, closest: Floats) -> np.float32:
    """Weighted squared error of a group, float32 (group,); zero: a level. closest: a width's row of that table."""
    # one table of floats, not codes and their levels: compilers make gathers of it
    inverse = np.float32(1.0) / scale
    error = np.float32(0.0)
    for j in range(x.size):
        doubled = min(np.float32(511), max(np.float32(0), np.float32(2) * (x[j] * inverse + zero)))
        d = (closest[np.int32(doubled)] - zero) * scale - x[j]
        error += weight[j] * d * d
    return error


@njit(inline="always", **_OPTIONS)
def scale_code(scale: np.float32, base: np.float32, lowest: int, stride: int, places: int) -> int:
    """The code of the nearest scale among `places` codes from `lowest` on, `stride` apart."""
    code = np.float32(-16.0) * np.log2(scale / base)
    place = math.floor((code - np.float32(lowest)) / np.float32(stride) + np.float32(0.5))
    return lowest + stride * int(max(0, min(places - 1, place)))


@njit(**_OPTIONS)
def fit_levels(
    x: Floats, weight: Floats, top: int, base: np.float32, table: Floats, lowest: int, stride: int, places: int,
    zeros: Floats, closest: Floats, spread: np.float32,
) -> tuple[int, int, np.float32]:  # fmt: skip
    """Scale code and zero-point with the least weighted squared error that a search finds.

    The zero-point is chosen at the scale that suits a normal distribution of the group's spread; then scales are tried,
    each with the best zero-point so far and its neighbours.

    x, weight: float32 (group,). top: largest code. base, table: the tensor's scales. lowest, stride,
    places: the codes that are allowed, see `scale_code`. zeros, closest, spread: the
    rows of the width in `codebooks.LevelTables`.
    Returns (scale code, zero-point, error).
    """
    total = np.float32(0.0)
    squares = np.float32(0.0)
    high = np.float32(0.0)
    low = np.float32(0.0)
    for j in range(x.size):
        total += x[j]
        high = max(high, x[j])
        low = min(low, x[j])
    mean = total / np.float32(x.size)
    for j in range(x.size):
        squares += (x[j] - mean) * (x[j] - mean)
    highest = lowest + stride * (places - 1)
    best_code, best_zero, best = highest, 0, np.float32(np.inf)
    if high == low:
        for zero in range(top + 1):
            if closest[int(2 * zeros[zero])] == zeros[zero]:
                best_zero = zero
        return best_code, best_zero, np.float32(0.0)
    # all of the group inside the levels, with the zero-point that suits it best
    largest = closest[511]
    cover = max((high - low) / largest, high / (largest - zeros[0]), -low / zeros[top])
    deviation = np.float32(np.sqrt(squares / np.float32(x.size)))
    normal = deviation / spread
    narrow = normal * NARROWEST
    if narrow < cover * np.float32(0.25):
        narrow = cover * np.float32(0.25)
    wide = max(normal * WIDEST, cover)
    first = scale_code(wide, base, lowest, stride, places)
    if stride > 1:  # the nearest of coarse steps may clip: one up does not
        first = max(lowest, first - stride)
    last = scale_code(narrow, base, lowest, stride, places)
    middle = min(last, max(first, scale_code(normal, base, lowest, stride, places)))
    for zero in range(top + 1):
        error = level_error(x, weight, table[middle], zeros[zero], closest)
        if error < best:
            best_code, best_zero, best = middle, zero, error
    for close in (False, True):
        step = stride if close else max(STRIDE, stride)
        if close:
            for zero in range(top + 1):
                error = level_error(x, weight, table[best_code], zeros[zero], closest)
                if error < best:
                    best_zero, best = zero, error
            first, last = max(lowest, best_code - stride), min(highest, best_code + stride)
        centre = best_zero
        for code in range(first, last + 1, step):
            for zero in range(max(0, centre - NEAR), min(top, centre + NEAR) + 1):
                if code == best_code and zero == best_zero:
                    continue
                error = level_error(x, weight, table[code], zeros[zero], closest)
                if error < best:
                    best_code, best_zero, best = code, zero, error
            centre = best_zero
    return best_code, best_zero, best
