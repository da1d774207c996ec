"""N16K32 as a format: blocks of 16 rows x 32 inputs, a scale and zero-point per row and group, a width per tile."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from nash_swarm import arguments
from nash_swarm.errors import DataError, UsageError
from nash_swarm.names import LEVELS, Granularity, Levels
from nash_swarm.quantizers.formats.base import Bytes, Floats, Format, Grid, Kind, Longs, Share, alone
from nash_swarm.quantizers.formats.native.codebooks import level_tables
from nash_swarm.quantizers.formats.native.grid import SHRINKS, Rounded, layout_base, row_widths, scale_table
from nash_swarm.quantizers.formats.native.layout import BLOCK_COLUMNS, HALF, SUPPORTED_WIDTHS, TILE_ROWS, TensorLayout
from nash_swarm.quantizers.formats.native.tensor import PackedTensor

_EMBEDDING_BAND = 128
"""Rows of a `block` agent of a token matrix: its rows differ far more (token frequency) than its columns do."""


@dataclass(frozen=True)
class N16K32(Format[TensorLayout]):
    """The native format.

    Attributes:
        group_size: columns that share one scale and zero-point per row, a multiple of 32.
        levels: the codebook, see `formats.native.codebooks`.
    """

    name: ClassVar[str] = "n16k32"
    strategies: ClassVar[tuple[int, ...]] = SUPPORTED_WIDTHS
    permutes: ClassVar[bool] = True
    layout: ClassVar[type[TensorLayout]] = TensorLayout

    group_size: int = 64
    levels: Levels = "uniform"

    def __post_init__(self) -> None:
        if self.levels not in LEVELS:
            raise UsageError(f"unknown levels {self.levels!r}; choose one of {', '.join(LEVELS)}")
        check_group_size(self.group_size)

    def cut(
        self, name: str, kind: Kind, shape: tuple[int, int], granularity: Granularity, *, ordered: bool = False,
        start: int = 0,
    ) -> TensorLayout:  # fmt: skip
        """See `Format.cut`: agents are whole matrices, bands of groups, or tiles of one group."""
        rows, columns = shape
        padded_rows = -(-rows // TILE_ROWS) * TILE_ROWS
        groups = -(-columns // self.group_size)
        if granularity == "tile":
            cell = (TILE_ROWS, 1)
        elif granularity == "block" and kind in ("embedding", "tied"):
            cell = (min(padded_rows, _EMBEDDING_BAND), groups)
        elif granularity == "block":
            cell = (padded_rows, 1)
        elif granularity == "layer":
            cell = (padded_rows, groups)
        else:
            raise UsageError(f"format {self.name} has no cells of granularity {granularity!r}")
        return TensorLayout(
            name, kind, rows, columns, self.group_size, *cell, ordered=ordered, start=start, levels=self.levels,
            scale_bits=4,
        )  # fmt: skip

    def errors(
        self, weight: Floats, rows: Floats, columns: Floats, layout: TensorLayout, strategies: tuple[int, ...],
        share: Share = alone,
    ) -> Floats:  # fmt: skip
        """See `Format.errors`; 16 bits cost nothing."""
        from nash_swarm.quantizers.formats.native.kernels import rounding

        base, levels = layout_base(weight, layout), level_tables(layout.levels)
        tops = np.array([0 if bits == HALF else 2**bits - 1 for bits in strategies], np.int64)
        tiles = np.zeros((layout.row_tiles, layout.groups, len(strategies)))
        grid = np.float32(base), scale_table(base), np.array(SHRINKS, np.float32)
        codebook = levels.zeros, levels.closest, levels.spread
        share(
            layout.row_tiles,
            lambda first, past: rounding.tile_damage(
                weight, rows, columns, layout.group_size, tops, *grid, *codebook, tiles, first, past
            ),
        )
        return layout.gather(tiles).astype(np.float32)

    def grid(
        self, weight: Floats, widths: Bytes, layout: TensorLayout, costs: Floats, shrinks: tuple[float, ...],
        share: Share = alone,
    ) -> Grid:  # fmt: skip
        """See `Format.grid`."""
        return NativeGrid(weight, widths, layout, costs, shrinks, share)

    def pack(
        self, rounded: Rounded, agent_widths: Bytes, layout: TensorLayout, permutation: Longs | None,
        strategies: tuple[int, ...],
    ) -> PackedTensor:  # fmt: skip
        """See `Format.pack`."""
        return PackedTensor.pack(rounded, agent_widths, layout, permutation, strategies)

    def read(self, buffer: Bytes, layout: TensorLayout, strategies: tuple[int, ...]) -> PackedTensor:
        """See `Format.read`."""
        return PackedTensor.read(buffer, layout, strategies)


class NativeGrid(Grid):
    """Scales from the range of each row, zero-points and codes, as they are found."""

    def __init__(
        self, weight: Floats, widths: Bytes, layout: TensorLayout, costs: Floats, shrinks: tuple[float, ...],
        share: Share,
    ) -> None:  # fmt: skip
        from nash_swarm.quantizers.formats.native.range_search import search_ranges

        self.group_size, self._layout, self._share = layout.group_size, layout, share
        self._costs, self._shrinks = costs, np.array(shrinks, np.float32)
        self._base = layout_base(weight, layout)
        self._table, self._levels = scale_table(self._base), level_tables(layout.levels)
        self._widths = row_widths(widths, layout)
        self._ranges = search_ranges(weight, self._widths, layout, self._base, costs, shrinks, share)
        self._codes = np.zeros((layout.rows, layout.columns), np.uint8)
        self._scale_codes, self._zeros = np.zeros((2, layout.rows, layout.groups), np.uint8)

    def round_group(self, work: Floats, start: int, stop: int, factor: Floats | None, errors: Floats) -> None:
        """See `Grid.round_group`."""
        from nash_swarm.quantizers.formats.native.kernels import rounding

        group, levels, ranges = start // self.group_size, self._levels, self._ranges
        bits = np.ascontiguousarray(self._widths[:, group])
        upper = np.ones((1, 1), np.float32) if factor is None else factor
        kernel = partial(
            rounding.round_group, work, start, stop, upper, self._costs, bits, np.float32(self._base), self._table,
            self._shrinks, levels.codes, levels.zeros, levels.nearest, levels.closest, levels.spread, ranges.lowest,
            ranges.strides, ranges.offsets, ranges.places, factor is not None, self._codes, self._scale_codes,
            self._zeros, group, errors,
        )  # fmt: skip
        self._share(len(work), kernel)

    def rounded(self, work: Floats) -> Rounded:
        """See `Grid.rounded`."""
        halves = None
        if (self._widths == HALF).any():
            exact = np.repeat(self._widths == HALF, self.group_size, axis=1)[:, : work.shape[1]]
            with np.errstate(over="ignore"):
                halves = np.where(exact, work, 0).astype(np.float16)
            if not np.isfinite(halves).all():
                name = self._layout.name
                raise DataError(f"{name}: weights beyond the range of half precision cannot be left at 16 bits")
        return Rounded(self._codes, self._scale_codes, self._zeros, self._base, halves)


def check_group_size(group_size: int) -> None:
    """Refuse groups that are not whole blocks.

    Raises:
        UsageError: it is no positive multiple of 32.
    """
    if arguments.whole("group_size", group_size, -(1 << 62)) <= 0 or group_size % BLOCK_COLUMNS:
        raise UsageError(f"group_size must be a positive multiple of {BLOCK_COLUMNS}, not {group_size}")
