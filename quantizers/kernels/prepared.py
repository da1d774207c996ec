"""A packed matrix made ready for the kernels: its own buffer, small side tables, everything checked once.

Kernels read raw addresses, so nothing here is taken on trust: every table is recomputed or checked against the buffer's
real length first. Side tables are small: one byte a row and group (zero-points), a few bytes a tile and input.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from nash_swarm.errors import DataError
from nash_swarm.game.layout import HALF, SUPPORTED_WIDTHS, TILE_ROWS, TensorLayout
from nash_swarm.quantizers import grid
from nash_swarm.quantizers.kernels import descriptor
from nash_swarm.quantizers.packing import PackedTensor, n16k32

_LONGEST_GROUP = 1 << 16
"""Up to this group size a sum of 255 * 127 products fits 32 bits."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A packed matrix and the tables its kernels read. Made by `prepare`; arrays are read-only.

    Attributes:
        layout: shape and groups.
        buffer: the packed bytes, shared with the tensor, uint8.
        tiles: first byte of each tile's codes, int64 (row_tiles,).
        cells: group * 32 + width of each stored group, int32 (row_tiles, groups); (1, groups) if all tiles agree.
        zeros: zero-points in stored order, uint8 (row_tiles, groups, 16).
        scale_table: scales of codes 0..15, float32 (16,).
        permutation: int32 (columns,), `None` if columns are stored in the model's order.
        halves: some cell has width 16.
        fields: the table of `kernels.descriptor`, int64.
        input_key: matrices with equal keys may share `Activations`.
    """

    layout: TensorLayout
    buffer: npt.NDArray[np.uint8]
    tiles: npt.NDArray[np.int64]
    cells: npt.NDArray[np.int32]
    zeros: npt.NDArray[np.uint8]
    scale_table: npt.NDArray[np.float32]
    permutation: npt.NDArray[np.int32] | None
    halves: bool
    fields: npt.NDArray[np.int64] = field(repr=False)
    input_key: Hashable

    @property
    def table_bytes(self) -> int:
        """Memory of everything but the buffer."""
        tables = (self.tiles, self.cells, self.zeros, self.scale_table, self.permutation, self.fields)
        return sum(table.nbytes for table in tables if table is not None)

    @cached_property
    def address(self) -> int:
        """Where `fields` stands."""
        return self.fields.ctypes.data


def prepare(tensor: PackedTensor) -> Prepared:
    """Check a packed matrix and make the tables of its kernels.

    Raises:
        DataError: it has a width for every weight, or its tables do not fit each other and its buffer.
    """
    layout, name = tensor.layout, tensor.layout.name
    if layout.per_weight:
        raise DataError(f"{name}: matrices with a width for every weight have no kernels; unpack them")
    if layout.group_size > _LONGEST_GROUP:
        raise DataError(
            f"{name}: groups of {layout.group_size} columns are too long for the kernels; unpack the matrix"
        )
    shape = (layout.row_tiles, layout.groups)
    buffer = _checked(name, "buffer", tensor.buffer, np.uint8, None)
    if not buffer.flags.c_contiguous:
        raise DataError(f"{name}: the buffer is not one run of memory")
    widths = _checked(name, "widths", tensor.widths, np.uint8, shape)
    zeros = _checked(name, "zero-points", tensor.zeros, np.uint8, (shape[0] * TILE_ROWS, shape[1]))
    if not np.isin(widths, SUPPORTED_WIDTHS).all():
        raise DataError(f"{name}: widths outside {SUPPORTED_WIDTHS}")
    if not 0 < tensor.base <= grid.LARGEST_BASE:
        raise DataError(f"{name}: the scale base {tensor.base} is not a plausible number")
    offsets, code_bytes = n16k32.group_offsets(widths, layout)
    wide = widths.astype(np.int64)
    scale_start = code_bytes + int(np.where(wide == HALF, 0, wide * TILE_ROWS // 8).sum())
    if tensor.code_bytes != code_bytes or scale_start + widths.size * TILE_ROWS > len(buffer):
        raise DataError(f"{name}: {len(buffer)} bytes are too few for the widths")
    order = np.argsort(-wide, axis=1, kind="stable")
    cells = (order << descriptor.WIDTH_BITS | np.take_along_axis(wide, order, axis=1)).astype(np.int32)
    by_tile = zeros.reshape(shape[0], TILE_ROWS, shape[1])
    if (cells == cells[0]).all():
        cells = cells[:1].copy()
    permutation = _permutation(name, tensor.permutation, layout)
    halves = bool((widths == HALF).any())
    tables: dict[str, Any] = {
        "tiles": offsets.min(axis=1),
        "cells": cells,
        "zeros": np.ascontiguousarray(np.take_along_axis(by_tile, order[:, None], axis=2).transpose(0, 2, 1)),
        "scale_table": grid.scale_table(tensor.base)[:16].copy(),
    }
    values = {
        "codes": buffer.ctypes.data,
        **{key: table.ctypes.data for key, table in tables.items()},
        "cells_stride": cells.strides[0] if len(cells) > 1 else 0,
        "scale_codes": buffer.ctypes.data + scale_start,
        "permutation": 0 if permutation is None else permutation.ctypes.data,
        "groups": layout.groups,
        "group_size": layout.group_size,
        "columns": layout.columns,
        "rows": layout.rows,
        "halves": int(halves),
    }
    fields = np.array([values[key] for key in descriptor.FIELDS], np.int64)
    for table in (*tables.values(), fields):
        table.flags.writeable = False
    digest = b"" if permutation is None else hashlib.blake2b(permutation.tobytes(), digest_size=16).digest()
    key = (layout.group_size, layout.columns, digest, halves)
    return Prepared(layout, buffer, **tables, permutation=permutation, halves=halves, fields=fields, input_key=key)


def _checked(name: str, what: str, array: Any, kind: Any, shape: tuple[int, ...] | None) -> Any:
    fits = isinstance(array, np.ndarray) and array.dtype == kind
    if not fits or (array.ndim != 1 if shape is None else array.shape != shape):
        raise DataError(f"{name}: the {what} have the wrong type or shape")
    return array


def _permutation(name: str, permutation: Any, layout: TensorLayout) -> npt.NDArray[np.int32] | None:
    order = _checked(name, "column order", permutation, np.int64, (layout.columns,))
    identity = np.arange(layout.columns)
    if np.array_equal(order, identity):
        return None
    if not np.array_equal(np.sort(order), identity):
        raise DataError(f"{name}: the column order is no permutation")
    result = order.astype(np.int32)
    result.flags.writeable = False
    return result
