"""The table of addresses and sizes through which kernels see a prepared matrix: int64, one field after the other."""

from __future__ import annotations

FIELDS = (
    "codes",  # address of the first tile's codes
    "tiles",  # address of the first byte of each tile in the codes and in the entries, int64 (row_tiles, 2)
    "cells",  # address of group * 32 + width in stored order, int32 (row_tiles or 1, groups)
    "cells_stride",  # bytes from one tile's cells to the next tile's, 0 if all tiles share one row of cells
    "ends",  # address of the number of stored groups of each of WIDTHS and those before it, int32 (row_tiles or 1, 7)
    "ends_stride",  # bytes from one tile's ends to the next tile's, or 0
    "entries",  # address of the scales and zero-points of stored groups, see `entries`
    "small",  # bytes of the entry of a group of at most 4 bits
    "windows",  # address of the rows' windows of scales, as they are in the file, uint8 (row_tiles, 16)
    "scale_table",  # address of the scales of codes 0..15, float32 (16,)
    "permutation",  # address of int32 (columns,), 0 if columns are stored in the model's order
    "groups",
    "group_size",
    "columns",
    "rows",
    "present",  # sum of 2**width of the widths that there are
    "halves",  # 1 if some cell has width 16
    "levels",  # address of `formats.native.codebooks.level_bytes`, 0 if levels are the codes themselves
)
(
    CODES, TILES, CELLS, CELLS_STRIDE, ENDS, ENDS_STRIDE, ENTRIES, SMALL, WINDOWS, SCALE_TABLE,
    PERMUTATION, GROUPS, GROUP_SIZE, COLUMNS, ROWS, PRESENT, HALVES, LEVELS,
) = range(0, 8 * len(FIELDS), 8)  # fmt: skip
"""Byte offsets of the fields."""

WIDTH_BITS = 5
"""Low bits of a cell that hold its width."""

WIDTHS = (16, 8, 6, 5, 4, 3, 2)
"""In the order in which a tile stores its groups, and `ends` counts them."""
END_16, END_8, END_6, END_5, END_4, END_3, END_2 = range(0, 4 * len(WIDTHS), 4)
"""Byte offsets of their ends."""
