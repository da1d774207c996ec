"""Where the values of codes lie: evenly, or closer together where weights are dense.

A weight is `scale * (level of its code - level of its group's zero-point)`; levels are whole numbers from 0 to 255, as
kernels multiply them. Evenly spaced levels are the codes and zero-points themselves. Those for normal distributions
are, up to 5 bits, the quantizer of least squared error for one (Max 1960, "Quantizing for minimum distortion", table I;
Lloyd 1982): groups of weights are nearly normal, and then have a sixth to a quarter less squared error than the same
bits with even levels. Their zero-points, as many bits as ever, move the levels by up to half a standard deviation.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from nash_swarm.names import Levels

Floats = npt.NDArray[np.float32]

MOST = 255
"""The largest level."""
_WIDEST = 8
_HALVES: dict[int, tuple[float, ...]] = {
    2: (0.4528, 1.510),
    3: (0.2451, 0.7560, 1.344, 2.152),
    4: (0.1284, 0.3881, 0.6568, 0.9424, 1.256, 1.618, 2.069, 2.733),
    5: (
        0.0659, 0.1981, 0.3314, 0.4668, 0.6050, 0.7473, 0.8947, 1.049, 1.212, 1.387, 1.577, 1.788, 2.029, 2.319, 2.692,
        3.263,
    ),
}  # fmt: skip
"""Positive levels by width, in standard deviations; the others are their negatives."""
_ZEROS: dict[int, tuple[int, int]] = {2: (82, 28), 3: (97, 8), 4: (106, 3), 5: (112, 1)}
"""Level of the first zero-point, and steps between them. One of each width's is a level of a code: zero can be said."""
NORMAL_WIDTHS = tuple(_HALVES)
"""Widths whose levels are not even where they are for normal distributions."""


ROW = 32
"""Bytes of a width in `level_bytes`."""


@dataclass(frozen=True, eq=False)
class LevelTables:
    """Levels of all widths; rows that are no width's are zero.

    Attributes:
        codes: float32 (9, 256), level of each code.
        zeros: float32 (9, 256), level of each zero-point.
        nearest: uint8 (9, 512), the code whose level is nearest to x, at floor(2 x).
        closest: float32 (9, 512), the level itself of that code.
        spread: float32 (9,), levels in a standard deviation of what a width's are best for; 0 if they are even.
    """

    codes: Floats
    zeros: Floats
    nearest: npt.NDArray[np.uint8]
    closest: Floats
    spread: Floats


def code_levels(width: int, levels: Levels) -> npt.NDArray[np.int64]:
    """Levels of the codes of a width, rising, (2**width,)."""
    if levels == "uniform" or width not in _HALVES:
        return np.arange(2**width)
    positive = np.array(_HALVES[width])
    upper = np.floor(MOST / 2 * (1 + positive / positive[-1]) + 0.5).astype(np.int64)
    return np.concatenate([MOST - upper[::-1], upper])


def zero_levels(width: int, levels: Levels) -> npt.NDArray[np.int64]:
    """Levels of the zero-points of a width, rising in even steps, (2**width,)."""
    first, step = (0, 1) if levels == "uniform" or width not in _ZEROS else _ZEROS[width]
    return first + step * np.arange(2**width)


@cache
def level_tables(levels: Levels) -> LevelTables:
    """The tables that kernels look levels up in; read-only."""
    codes, zeros = np.zeros((_WIDEST + 1, 256), np.float32), np.zeros((_WIDEST + 1, 256), np.float32)
    nearest = np.zeros((_WIDEST + 1, 512), np.uint8)
    places = np.arange(512) / 2 + 0.25
    for width in range(1, _WIDEST + 1):
        values = code_levels(width, levels)
        codes[width, : len(values)], zeros[width, : len(values)] = values, zero_levels(width, levels)
        nearest[width] = np.searchsorted((values[1:] + values[:-1]) / 2, places)
    spread = np.zeros(_WIDEST + 1, np.float32)
    for width, positive in _HALVES.items():
        spread[width] = 0 if levels == "uniform" else MOST / 2 / positive[-1]
    closest = np.take_along_axis(codes, nearest.astype(np.int64), axis=1)
    tables = LevelTables(codes, zeros, nearest, closest, spread)
    for table in (codes, zeros, nearest, closest, spread):
        table.flags.writeable = False
    return tables


@cache
def level_bytes(levels: Levels) -> npt.NDArray[np.uint8] | None:
    """What kernels multiply with: levels of each width's codes, uint8 (6, ROW); `None` if they are the codes."""
    if levels == "uniform":
        return None
    table = np.zeros((max(NORMAL_WIDTHS) + 1, ROW), np.uint8)
    for width in NORMAL_WIDTHS:
        table[width, : 2**width] = code_levels(width, levels)
    table.flags.writeable = False
    return table
