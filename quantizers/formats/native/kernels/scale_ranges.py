"""Kernels that choose the range of scale codes of each row, see `formats.native.scale_ranges`.

They only see arrays whose shapes `formats.native.range_search` made.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nash_swarm.compiling import njit
from nash_swarm.quantizers.formats.native.kernels.codebook_fitting import level_error
from nash_swarm.quantizers.formats.native.kernels.rounding import fit_scale
from nash_swarm.quantizers.formats.native.layout import HALF
from nash_swarm.quantizers.formats.native.scale_ranges import LAST

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Longs = npt.NDArray[np.int64]

_OPTIONS = {"nogil": True, "cache": True, "fastmath": {"reassoc", "contract", "nsz", "arcp"}, "error_model": "numpy"}

NEAR = 2
"""Zero-points to either side of those that a scale is judged with."""


@njit(**_OPTIONS)
def errors_by_code(
    x: Floats, weight: Floats, top: int, table: Floats, zeros: Floats, closest: Floats, code: int, zero: int,
    first: int, errors: Floats,
) -> None:  # fmt: skip
    """The weighted squared error of a group with each of the scale codes from `first` on.

    From the best one they are walked to code by code, and the zero-point follows: next to the one before, or to where
    the middle of the levels stays at the same weight.

    x, weight: float32 (group,). top: largest code of a weight. table: the tensor's scales, float32 (256,). zeros,
    closest: the width's rows of `codebooks.LevelTables`. code, zero: the best scale code and zero-point that are known.
    errors: float32 (codes,), written; codes past the last one are as bad as that one.
    """
    largest = closest[511]
    centre = (largest * np.float32(0.5) - zeros[zero]) * table[code]
    for step in (-1, 1):
        followed = zero
        at = max(0, min(errors.size - 1, code - first)) + max(0, step)
        while 0 <= at < errors.size:
            scale = table[min(LAST, first + at)]
            level = largest * np.float32(0.5) - centre / scale
            kept = max(0, min(top, round((level - zeros[0]) / (zeros[1] - zeros[0]))))
            best, before = np.float32(np.inf), followed
            for again, start in enumerate((before, kept)):
                if again and kept == before:
                    break
                for tried in range(max(0, start - NEAR), min(top, start + NEAR) + 1):
                    error = level_error(x, weight, scale, zeros[tried], closest)
                    if error < best:
                        best, followed = error, tried
            errors[at] = best
            at += step


@njit(**_OPTIONS)
def best_range(errors: Floats, starts: int, even: int, coarse: int, places: int) -> tuple[int, int]:
    """Where the range begins, and its stride, that leave the least error in sum.

    errors: float32 (groups, codes), of each group with each code. starts: ranges begin before it, at multiples of
    `even`. coarse: the stride other than 1. places: codes of a range; those past the last one of `errors` count as
    that one.
    Returns (first code, stride), the earliest of equals, of stride 1 rather than `coarse`.
    """
    groups, codes = errors.shape
    start, chosen, least = 0, 1, np.inf
    for stride in (1, coarse):
        for first in range(0, starts, even):
            total = 0.0
            for group in range(groups):
                best = errors[group, first]
                for place in range(1, places):
                    best = min(best, errors[group, min(codes - 1, first + stride * place)])
                total += best
                if total >= least:
                    break
            if total < least:
                start, chosen, least = first, stride, total
    return start, chosen


@njit(**_OPTIONS)
def choose(
    weights: Floats, group_size: int, weight: Floats, widths: Bytes, base: np.float32, table: Floats, shrinks: Floats,
    zero_levels: Floats, closest: Floats, spread: Floats, offsets: Longs, even: int, coarse: int, places: int,
    lowest: Longs, strides: Longs, first: int, past: int,
) -> None:  # fmt: skip
    """Ranges of rows `first:past`.

    weights: float32 (rows, columns). weight: float32 (columns,), what squared errors cost. widths: uint8
    (rows, groups). base, table, shrinks, zero_levels, closest, spread: as `rounding.round_group`. offsets: of
    `scale_ranges.ScaleRanges`. even, coarse, places: as `best_range`. lowest, strides: int64 (rows,), written.
    """
    groups, columns = widths.shape[1], weights.shape[1]
    codes, zeros = np.empty(groups, np.int64), np.empty(groups, np.int64)
    latest = LAST - offsets.max()
    span = coarse * places + places
    errors = np.empty((groups, span), np.float32)
    for n in range(first, past):
        least, most = LAST, 0
        for group in range(groups):
            start, bits = group * group_size, widths[n, group]
            stop = min(start + group_size, columns)
            codes[group] = -1
            if bits == HALF or not weights[n, start:stop].any():
                continue
            code, zero, _ = fit_scale(
                weights[n, start:stop], weight[start:stop], bits, base, table, 0, 1, LAST + 1, shrinks, zero_levels,
                closest, spread,
            )  # fmt: skip
            codes[group], zeros[group] = max(0, code - offsets[bits]), zero
            least, most = min(least, codes[group]), max(most, codes[group])
        begin = max(0, min(latest, least)) // even * even
        lowest[n], strides[n] = begin, 1
        if most < begin + places:
            continue
        begin = max(0, begin - coarse) // even * even
        counted = 0
        for group in range(groups):
            if codes[group] >= 0:
                start, bits = group * group_size, widths[n, group]
                stop = min(start + group_size, columns)
                errors_by_code(
                    weights[n, start:stop], weight[start:stop], (1 << bits) - 1, table, zero_levels[bits],
                    closest[bits], codes[group] + offsets[bits], zeros[group], begin + offsets[bits], errors[counted],
                )  # fmt: skip
                counted += 1
        place, strides[n] = best_range(errors[:counted], min(span, latest - begin + 1), even, coarse, places)
        lowest[n] = begin + place
