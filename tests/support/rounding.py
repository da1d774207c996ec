"""What the rounding kernels compute, written down in plain float32 NumPy, one weight after the other."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nash_swarm.quantizers.formats.native.scale_ranges import ScaleRanges

Floats = npt.NDArray[np.float32]
ONE = np.float32(1)


def nearest(x: Any) -> Any:
    """To the nearest integer, halves upward."""
    return np.floor(np.float32(x) + np.float32(0.5)).astype(np.float32)


class Grid(NamedTuple):
    code: int
    zero: int
    error: float


def grid_error(x: Floats, weight: Floats, top: int, scale: Any, zero: int) -> float:
    """Weighted squared error of rounding x to levels `0..top` around `zero`."""
    codes = np.clip(nearest(x * (ONE / scale)) + np.float32(zero), 0, top)
    rounded = (codes - np.float32(zero)) * scale
    return float((weight * np.square(rounded - x)).sum())


Window = tuple[int, int, int]
"""The first scale code, the steps between codes, and how many there are."""
ANYWHERE: Window = (0, 1, 256)


def candidates(
    x: Floats, weight: Floats, top: int, base: Any, table: Floats, shrinks: Floats, window: Window = ANYWHERE
) -> list[Grid]:
    """Every grid of the scale search, in the order of the shrinks; of equal neighbours only the first."""
    lowest, stride, places = window
    low, high = min(np.float32(0), x.min()), max(np.float32(0), x.max())
    if low == high:
        return [Grid(lowest + stride * (places - 1), 0, 0.0)]
    found: list[Grid] = []
    for i, shrink in enumerate(shrinks if stride == 1 else [shrinks[0], *shrinks]):
        wanted = (high - low) * shrink / np.float32(top)
        place = nearest((np.float32(-16) * np.log2(wanted / base) - np.float32(lowest)) / np.float32(stride))
        code = lowest + stride * int(np.clip(place, 0, places - 1))
        if stride > 1 and i == 0:
            code, shrink = max(lowest, code - stride), ONE
        zero = int(np.clip(nearest(-low * shrink * (ONE / table[code])), 0, top))
        if found and (code, zero) == found[-1][:2]:
            continue
        found.append(Grid(code, zero, grid_error(x, weight, top, table[code], zero)))
    return found


def fit_grid(
    x: Floats, weight: Floats, top: int, base: Any, table: Floats, shrinks: Floats, window: Window = ANYWHERE
) -> Grid:
    """The first candidate with the least error."""
    return min(candidates(x, weight, top, base, table, shrinks, window), key=lambda grid: grid.error)


class Group(NamedTuple):
    codes: npt.NDArray[np.uint8]
    scale_codes: npt.NDArray[np.uint8]
    zeros: npt.NDArray[np.uint8]
    errors: Floats
    work: Floats


def round_group(
    work: Floats, factor: Floats, weight: Floats, widths: npt.NDArray[Any], base: Any, table: Floats, shrinks: Floats,
    ranges: ScaleRanges, feedback: bool,
) -> Group:  # fmt: skip
    """One group of columns, (rows, columns), rounded column by column as GPTQ's inner loop does it."""
    rows, columns = work.shape
    codes, errors, work = np.zeros((rows, columns), np.uint8), np.zeros((rows, columns), np.float32), work.copy()
    grids = np.zeros((2, rows), np.uint8)
    for n in range(rows):
        if widths[n] == 16:
            continue
        top = 2 ** int(widths[n]) - 1
        lowest, stride = min(255, int(ranges.lowest[n] + ranges.offsets[widths[n]])), int(ranges.strides[n])
        window = (lowest, stride, min(ranges.places, (255 - lowest) // stride + 1))
        code, zero, _ = fit_grid(work[n], weight, top, base, table, shrinks, window)
        grids[:, n] = code, zero
        scale, x = table[code], work[n].copy()
        for j in range(columns):
            v = np.clip(nearest(x[j] * (ONE / scale)) + np.float32(zero), 0, top)
            codes[n, j] = v
            work[n, j] = (v - np.float32(zero)) * scale
            if feedback:
                errors[n, j] = (x[j] - work[n, j]) / factor[j, j]
                x[j + 1 :] -= errors[n, j] * factor[j, j + 1 :]
    return Group(codes, grids[0], grids[1], errors, work)


def fit_range(x: Floats, base: Any, table: Floats) -> tuple[int, int]:
    """Scale code and zero-point of a group in which every weight has its own width."""
    low, high = min(np.float32(0), x.min()), max(np.float32(0), x.max())
    if low == high:
        return 255, 0
    code = min(255, max(0, math.floor(-16 * math.log2(float(high - low) / 254 / float(base)))))
    return code, int(np.clip(nearest(-low / table[code]), 0, 255))


def round_on_range(x: Floats, bits: npt.NDArray[Any], scale: Any, zero: int) -> tuple[npt.NDArray[Any], Floats]:
    """Codes and values of weights with `bits` each on the range of their group."""
    levels = np.exp2(bits.astype(np.float32)) - ONE
    step = scale * np.float32(255) / levels
    shift = scale * np.float32(zero)
    codes = np.clip(nearest((x + shift) / step), 0, levels).astype(np.float32)
    return codes, codes * step - shift
