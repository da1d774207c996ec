"""A packed matrix made ready for the kernels: its own buffer, small side tables, everything checked once.

Kernels read raw addresses, so nothing here is taken on trust: every table is checked against the others and against the
buffer's real length before its address is taken. Side tables are small: a byte or two a row and group, see `entries`, a
few bytes a tile and input.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from nash_swarm.errors import DataError
from nash_swarm.quantizers.formats.native import grid, n16k32
from nash_swarm.quantizers.formats.native.codebooks import level_bytes
from nash_swarm.quantizers.formats.native.layout import HALF, SUPPORTED_WIDTHS, TILE_ROWS, TensorLayout
from nash_swarm.quantizers.formats.native.tensor import PackedTensor
from nash_swarm.quantizers.runtime.cpu import descriptor
from nash_swarm.quantizers.runtime.cpu.entries import entry_sizes, make_entries, small_entry

LONGEST_GROUP = 1 << 15
"""Up to this group size a sum of products of 255 and 127 fits 32 bits, and one of 127 an `activations.total_pair`."""
_WIDTH_MASK = 2**descriptor.WIDTH_BITS - 1


@dataclass(frozen=True, eq=False)
class PackedMatrix:
    """A packed matrix and the tables its kernels read, usually made by `prepare`; tables become read-only.

    A copy, or what comes out of a pickle, is checked anew and has addresses of its own.

    Attributes:
        layout: shape and groups.
        buffer: the packed bytes, shared with the tensor, uint8.
        code_bytes: where in the buffer the codes end.
        tiles: first byte of each tile's codes and of its entries, int64 (row_tiles, 2).
        cells: group * 32 + width of each stored group, widest first, int32 (row_tiles, groups); (1, groups) if all
            tiles agree.
        entries: scales and zero-points, see `runtime.cpu.entries`, uint8.
        windows: section of `scale_ranges.ScaleRanges`, uint8 (row_tiles, 16).
        scale_table: scales of codes 0..15, float32 (16,).
        permutation: int32 (columns,), `None` if columns are stored in the model's order.
        rows: outputs.
        columns: inputs.
        halves: some cell has width 16.
        ends: of `cpu.descriptor`, int32 (row_tiles or 1, 7).
        fields: the table of `cpu.descriptor`, int64.
        input_key: matrices with equal keys may share rounded inputs.
        products: the matrix bound to its kernels, by activation mode, see `product.product_of`.

    Raises:
        DataError: the tables do not fit each other or the buffer.
    """

    layout: TensorLayout
    buffer: npt.NDArray[np.uint8]
    code_bytes: int
    tiles: npt.NDArray[np.int64]
    cells: npt.NDArray[np.int32]
    entries: npt.NDArray[np.uint8]
    windows: npt.NDArray[np.uint8]
    scale_table: npt.NDArray[np.float32]
    permutation: npt.NDArray[np.int32] | None
    rows: int = field(init=False, repr=False)
    columns: int = field(init=False, repr=False)
    halves: bool = field(init=False)
    ends: npt.NDArray[np.int32] = field(init=False, repr=False)
    fields: npt.NDArray[np.int64] = field(init=False, repr=False)
    input_key: Hashable = field(init=False)
    products: dict[str, Any] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        _check(self)
        layout, order, table = self.layout, self.permutation, level_bytes(self.layout.levels)
        ends = ((self.cells & _WIDTH_MASK)[:, :, None] >= np.array(descriptor.WIDTHS)).sum(axis=1, dtype=np.int32)
        halves = bool((self.cells & _WIDTH_MASK == HALF).any())
        digest = b"" if order is None else hashlib.blake2b(order.tobytes(), digest_size=16).digest()
        values = {
            "codes": self.buffer.ctypes.data,
            "tiles": self.tiles.ctypes.data,
            "cells": self.cells.ctypes.data,
            "cells_stride": self.cells.strides[0] if len(self.cells) > 1 else 0,
            "ends": ends.ctypes.data,
            "ends_stride": ends.strides[0] if len(ends) > 1 else 0,
            "entries": self.entries.ctypes.data,
            "small": small_entry(layout),
            "windows": self.windows.ctypes.data,
            "scale_table": self.scale_table.ctypes.data,
            "permutation": 0 if order is None else order.ctypes.data,
            "groups": layout.groups,
            "group_size": layout.group_size,
            "columns": layout.columns,
            "rows": layout.rows,
            "present": int((1 << np.unique(self.cells & _WIDTH_MASK).astype(np.int64)).sum()),
            "halves": int(halves),
            "levels": 0 if table is None else table.ctypes.data,
        }
        fields = np.array([values[key] for key in descriptor.FIELDS], np.int64)
        derived = {
            "rows": layout.rows, "columns": layout.columns, "halves": halves, "ends": ends, "fields": fields,
            "input_key": (layout.group_size, layout.columns, digest, halves),
        }  # fmt: skip
        for name, value in derived.items():
            object.__setattr__(self, name, value)
        for table in self._tables():
            table.flags.writeable = False

    def __reduce__(self) -> tuple[Any, ...]:
        given = (self.layout, self.buffer, self.code_bytes, self.tiles, self.cells, self.entries, self.windows)
        return PackedMatrix, (*given, self.scale_table, self.permutation)

    @property
    def table_bytes(self) -> int:
        """Memory of everything but the buffer."""
        return sum(table.nbytes for table in self._tables())

    def _tables(self) -> list[npt.NDArray[Any]]:
        tables: list[npt.NDArray[Any]] = [
            self.tiles, self.cells, self.ends, self.entries, self.windows, self.scale_table, self.fields
        ]  # fmt: skip
        return tables if self.permutation is None else [*tables, self.permutation]


def prepare(tensor: PackedTensor) -> PackedMatrix:
    """Make the tables of a packed matrix's kernels.

    Raises:
        DataError: its tables do not fit each other and its buffer.
    """
    layout, name = tensor.layout, tensor.layout.name
    shape = (layout.row_tiles, layout.groups)
    _expect(name, "widths", tensor.widths, np.uint8, shape)
    for what, codes in (("zero-points", tensor.zeros), ("scales' places", tensor.places)):
        _expect(name, what, codes, np.uint8, (shape[0] * TILE_ROWS, shape[1]))
    _expect(name, "column order", tensor.permutation, np.int64, (layout.columns,))
    if not 0 < tensor.base <= grid.LARGEST_BASE:
        raise DataError(f"{name}: the scale base {tensor.base} is not a plausible number")
    offsets, code_bytes = n16k32.group_offsets(tensor.widths, layout)
    if tensor.code_bytes != code_bytes:
        raise DataError(f"{name}: {tensor.code_bytes} bytes of codes where the widths ask for {code_bytes}")
    wide = tensor.widths.astype(np.int64)
    order = np.argsort(-wide, axis=1, kind="stable")
    cells = (order << descriptor.WIDTH_BITS | np.take_along_axis(wide, order, axis=1)).astype(np.int32)
    if len(tensor.ranges.lowest) != shape[0] * TILE_ROWS:
        raise DataError(f"{name}: {len(tensor.ranges.lowest)} ranges of scales for {layout.rows} rows")
    entries, starts = make_entries(tensor, order)
    identity = np.array_equal(tensor.permutation, np.arange(layout.columns))
    return PackedMatrix(
        layout,
        tensor.buffer,
        code_bytes,
        np.stack([offsets.min(axis=1), starts], axis=1),
        cells[:1].copy() if (cells == cells[0]).all() else cells,
        entries,
        tensor.ranges.section().reshape(-1, TILE_ROWS),
        grid.scale_table(tensor.base)[:16].copy(),
        None if identity else np.clip(tensor.permutation, -1, layout.columns).astype(np.int32),
    )


def _check(matrix: PackedMatrix) -> None:
    """Refuse what would have a kernel read outside its tables or the buffer."""
    layout, cells = matrix.layout, matrix.cells
    name, tiles, groups = layout.name, layout.row_tiles, layout.groups
    if layout.group_size > LONGEST_GROUP:
        raise DataError(f"{name}: groups of {layout.group_size} columns are too long for the kernels")
    _expect(name, "tile offsets", matrix.tiles, np.int64, (tiles, 2))
    _expect(name, "cells", cells, np.int32, (1 if np.shape(cells)[:1] == (1,) else tiles, groups))
    _expect(name, "entries", matrix.entries, np.uint8, np.shape(matrix.entries)[:1])
    _expect(name, "ranges of scales", matrix.windows, np.uint8, (tiles, TILE_ROWS))
    _expect(name, "scales", matrix.scale_table, np.float32, (16,))
    _expect(name, "buffer", matrix.buffer, np.uint8, np.shape(matrix.buffer)[:1])
    tables: list[npt.NDArray[Any]] = [
        matrix.tiles, cells, matrix.entries, matrix.windows, matrix.scale_table, matrix.buffer
    ]  # fmt: skip
    if matrix.permutation is not None:
        tables.append(matrix.permutation)
        _expect(name, "column order", matrix.permutation, np.int32, (layout.columns,))
        if not np.array_equal(np.sort(matrix.permutation), np.arange(layout.columns)):
            raise DataError(f"{name}: the column order is no permutation")
    if not all(table.flags.c_contiguous for table in tables):
        raise DataError(f"{name}: a table or the buffer is not one run of memory")
    widths, group = (cells & _WIDTH_MASK).astype(np.int64), cells >> descriptor.WIDTH_BITS
    if not np.isin(widths, SUPPORTED_WIDTHS).all() or not (np.sort(group, axis=1) == np.arange(groups)).all():
        raise DataError(f"{name}: a width is outside {SUPPORTED_WIDTHS}, or a group is not there once")
    if (np.diff(widths, axis=1) > 0).any():
        raise DataError(f"{name}: a tile's groups are not stored widest first")
    sizes = (64 * widths * layout.group_blocks()[group]).sum(axis=1)
    sizes = np.stack([sizes, entry_sizes(widths, layout).sum(axis=1)], axis=-1)
    room = [matrix.code_bytes, len(matrix.entries)]
    if (matrix.tiles < 0).any() or (matrix.tiles > room - sizes).any():
        raise DataError(f"{name}: a tile is not inside the codes and entries")
    if matrix.code_bytes > len(matrix.buffer):
        raise DataError(f"{name}: {len(matrix.buffer)} bytes are too few for the widths")


def _expect(name: str, what: str, array: Any, kind: Any, shape: tuple[int, ...]) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != kind or array.shape != shape:
        raise DataError(f"{name}: the {what} have the wrong type or shape")
