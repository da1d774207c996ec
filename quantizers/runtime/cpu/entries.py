"""What kernels know of a group besides its codes: an entry for each, in stored order.

With a scale of four bits and at most as many for its zero-point, a row's byte has the zero-point in its lower half and
the scale's place in the row's window in its upper one: sixteen bytes for the rows of a tile, as they come from memory
with every token. Other groups have sixteen levels of zero-points, then sixteen scale codes. Half-precision groups have
no entry.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from nash_swarm.names import Levels
from nash_swarm.quantizers.formats.native.codebooks import level_tables, zero_levels
from nash_swarm.quantizers.formats.native.layout import HALF, TILE_ROWS, TensorLayout
from nash_swarm.quantizers.formats.native.scale_ranges import scale_offsets
from nash_swarm.quantizers.formats.native.tensor import PackedTensor

Bytes = npt.NDArray[np.uint8]
Longs = npt.NDArray[np.int64]

SMALL, LARGE = TILE_ROWS, 2 * TILE_ROWS
"""Bytes of an entry."""
MOST_BITS = 4
"""Of the codes, and so of the zero-point, of a group with a small entry."""


def small_entry(layout: TensorLayout) -> int:
    """Bytes of the entry of a group of at most `MOST_BITS` bits."""
    return SMALL if layout.scale_bits == MOST_BITS else LARGE


def entry_sizes(widths: npt.NDArray[Any], layout: TensorLayout) -> Longs:
    """Bytes of the entries of groups of these widths."""
    sizes = np.where(widths <= MOST_BITS, small_entry(layout), LARGE)
    return np.where(widths == HALF, 0, sizes)


@cache
def meanings(levels: Levels) -> npt.NDArray[np.int32]:
    """What the halves of a small entry mean by width, int32 (5, 3).

    That is the first code of a window less that of the row, the level of zero-point 0, and the levels from one
    zero-point to the next.
    """
    table = np.zeros((MOST_BITS + 1, 3), np.int32)
    for width in range(2, MOST_BITS + 1):
        first, second = zero_levels(width, levels)[:2]
        table[width] = scale_offsets(levels)[width], first, second - first
    table.flags.writeable = False
    return table


def make_entries(tensor: PackedTensor, order: Longs) -> tuple[Bytes, Longs]:
    """All entries, uint8, and where those of each tile start, int64 (row_tiles,).

    Args:
        tensor: not of `parameter` granularity.
        order: groups of each tile in stored order, (row_tiles, groups).
    """
    layout = tensor.layout

    def stored(values: Bytes) -> Bytes:
        """(rows, groups) to (row_tiles, groups, 16) in stored order."""
        tiles = values.reshape(layout.row_tiles, TILE_ROWS, layout.groups)
        return np.take_along_axis(tiles, order[:, None], axis=2).transpose(0, 2, 1)

    widths = np.take_along_axis(tensor.widths, order, axis=1)
    sizes = entry_sizes(widths, layout)
    ends = np.cumsum(sizes)
    places = (ends - sizes.ravel()).reshape(sizes.shape) // TILE_ROWS
    entries = np.empty((int(ends[-1]) // TILE_ROWS, TILE_ROWS), np.uint8)
    small, large = sizes == SMALL, sizes == LARGE
    if small.any():
        entries[places[small]] = stored(tensor.zeros | tensor.places << np.uint8(4))[small]
    if large.any():
        levels = level_tables(layout.levels).zeros[widths[large][:, None], stored(tensor.zeros)[large]]
        entries[places[large]] = levels.astype(np.uint8)
        entries[places[large] + 1] = stored(tensor.scale_codes)[large]
    return entries.ravel(), places[:, 0] * TILE_ROWS
