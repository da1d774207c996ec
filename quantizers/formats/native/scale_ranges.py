"""Which scale codes the groups of a row may have: sixteen neighbours, so that four bits tell which one.

Scales of a row's groups hardly differ by more than an octave once it is known what each width makes of the same
weights. A row therefore has a range: its first code and the steps between its sixteen. In layouts of 8-bit scales
every code may be anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nash_swarm.errors import DataError
from nash_swarm.names import Levels
from nash_swarm.quantizers.formats.native.layout import HALF, TILE_ROWS, TensorLayout

Bytes = npt.NDArray[np.uint8]
Longs = npt.NDArray[np.int64]

PLACES = 16
"""Codes of a range."""
COARSE = 4
"""Steps between the codes of a row whose groups differ too much for neighbours."""
EVEN = 2
"""Ranges begin at its multiples."""
ANYWHERE = 256
"""Codes that eight bits tell apart."""
LAST = ANYWHERE - 1
"""The largest code."""
_OFFSETS: dict[Levels, dict[int, int]] = {
    "uniform": {2: 0, 3: 14, 4: 28, 5: 44, 6: 60, 8: 92},
    "normal": {2: 42, 3: 35, 4: 32, 5: 28, 6: 0, 8: 32},
}
"""By how many codes the best scale of 64 normally distributed weights lies below that of the width with the largest."""


@dataclass(frozen=True, eq=False)
class ScaleRanges:
    """The scale codes that each row of a matrix may have.

    Place p of a group of width b in row n is code `min(255, lowest[n] + offsets[b] + strides[n] * p)`.

    Attributes:
        lowest: int64 (rows,), even, from 0 on.
        strides: int64 (rows,), 1 or `COARSE`.
        offsets: int64 (9,), by width.
        places: 16, or 256 where any code may be.
    """

    lowest: Longs
    strides: Longs
    offsets: Longs
    places: int = PLACES

    @classmethod
    def anywhere(cls, rows: int) -> ScaleRanges:
        """No range: scale codes of eight bits."""
        return cls(np.zeros(rows, np.int64), np.ones(rows, np.int64), np.zeros(9, np.int64), ANYWHERE)

    @classmethod
    def holding(cls, codes: Bytes, widths: Bytes, layout: TensorLayout) -> ScaleRanges:
        """Ranges that have these codes among theirs, as near their middle as it goes.

        Args:
            codes: uint8 (rows, groups); where the width is 16 they mean nothing.
            widths: uint8 (rows, groups).
            layout: where its scales have eight bits, any code may be anywhere.

        Raises:
            DataError: there are none; round with those of `range_search.search_ranges`.
        """
        if layout.scale_bits == 8:
            return cls.anywhere(layout.rows)
        offsets = scale_offsets(layout.levels)
        relative = codes.astype(np.int64) - offsets[np.minimum(widths, 8)]
        counted = widths != HALF
        lowest = np.min(relative, axis=1, where=counted, initial=LAST - int(offsets.max())) // EVEN * EVEN
        beyond = np.where(counted, relative - lowest[:, None], 0)
        strides = np.where((beyond < PLACES).all(axis=1), 1, COARSE)
        highest = (beyond // strides[:, None]).max(axis=1)
        if (lowest < 0).any() or (beyond % strides[:, None]).any() or (highest >= PLACES).any():
            raise DataError(
                f"{layout.name}: the scale codes of a row do not fit a range of {PLACES}; round with those of "
                "formats.native.range_search.search_ranges"
            )
        # room for scales that are tuned
        step = np.maximum(EVEN, strides)
        spare = strides * (PLACES - 1 - highest) // 2
        return cls(lowest - np.minimum(spare, lowest) // step * step, strides, offsets)

    @classmethod
    def read(cls, section: Bytes, levels: Levels) -> ScaleRanges:
        """Inverse of `section`, uint8 (rows,)."""
        wide = section.astype(np.int64)
        return cls(wide // 2 * 2, np.where(wide % 2, COARSE, 1), scale_offsets(levels))

    def section(self) -> Bytes:
        """A byte a row: half of `lowest` in the upper seven bits, and whether steps are coarse."""
        return (self.lowest + (self.strides == COARSE)).astype(np.uint8)

    def first(self, widths: Bytes) -> Longs:
        """The first code of every group, int64 (rows, groups); widths: uint8 (rows, groups)."""
        return np.minimum(LAST, self.lowest[:, None] + self.offsets[np.minimum(widths, 8)])

    def codes(self, places: Bytes, widths: Bytes) -> Bytes:
        """Scale codes, uint8 (rows, groups), of places and widths, uint8 (rows, groups)."""
        return np.minimum(LAST, self.first(widths) + self.strides[:, None] * places).astype(np.uint8)

    def placed(self, codes: Bytes, widths: Bytes) -> Bytes:
        """Inverse of `codes`; 0 where the width is 16."""
        places = (codes - self.first(widths)) // self.strides[:, None]
        return np.where(widths == HALF, 0, places).astype(np.uint8)


def scale_offsets(levels: Levels) -> Longs:
    """Codes by which the ranges of each width lie behind the first one's, int64 (9,)."""
    offsets = np.zeros(9, np.int64)
    for width, offset in _OFFSETS[levels].items():
        offsets[width] = offset
    return offsets


def pack_places(places: Bytes) -> Bytes:
    """Places (row_tiles, groups, 16) as half-bytes, two rows of a tile a byte, the first one low."""
    return (places[:, :, ::2] | places[:, :, 1::2] << 4).astype(np.uint8)


def unpack_places(section: Bytes) -> Bytes:
    """Inverse of `pack_places`, from uint8 (row_tiles, groups, 8)."""
    places = np.empty((*section.shape[:2], TILE_ROWS), np.uint8)
    places[:, :, ::2], places[:, :, 1::2] = section & 15, section >> 4
    return places
