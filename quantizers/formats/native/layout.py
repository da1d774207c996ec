"""How one weight matrix is cut into agents, and what each agent costs on disk to the bit."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Self, cast

import numpy as np
import numpy.typing as npt

from nash_swarm.errors import DataError
from nash_swarm.names import LEVELS, Levels
from nash_swarm.quantizers.formats.base import Kind, Layout

TILE_ROWS = 16
"""Output rows of a tile of the packed format."""
BLOCK_COLUMNS = 32
"""Inputs of a block of the packed format."""
SUPPORTED_WIDTHS = (2, 3, 4, 5, 6, 8, 16)
HALF = 16
"""The strategy that leaves an agent in half precision."""


@dataclass(frozen=True)
class TensorLayout(Layout):
    """A matrix in tiles of 16 rows, and the grid of agents of whole tiles laid over it.

    Each agent is a cell of `rows_per_agent` x (`groups_per_agent` * `group_size`) weights.

    Attributes:
        name, kind, rows, columns, ordered, start: see `Layout`.
        group_size: columns that share one scale and zero-point per row.
        rows_per_agent: a multiple of 16.
        groups_per_agent: quantization groups side by side in one agent.
        levels: where the values of codes lie, see `formats.native.codebooks`.
        scale_bits: bits of a group's scale code: 4 within a range of its row (`formats.native.scale_ranges`), or 8.
    """

    group_size: int
    rows_per_agent: int
    groups_per_agent: int
    levels: Levels = field(default="uniform", kw_only=True)
    scale_bits: int = field(default=8, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if (
            min(self.group_size, self.rows_per_agent, self.groups_per_agent) <= 0
            or self.rows_per_agent % TILE_ROWS
            or self.group_size % BLOCK_COLUMNS
            or self.levels not in LEVELS
            or self.scale_bits not in (4, 8)
        ):
            self.refuse()

    @property
    def row_tiles(self) -> int:
        """Tiles of 16 rows, the last one padded."""
        return -(-self.rows // TILE_ROWS)

    @property
    def groups(self) -> int:
        """Quantization groups along the columns, the last one possibly shorter."""
        return -(-self.columns // self.group_size)

    @property
    def grid(self) -> tuple[int, int]:
        """Agents along rows and along columns."""
        return -(-self.row_tiles * TILE_ROWS // self.rows_per_agent), -(-self.groups // self.groups_per_agent)

    @property
    def unit(self) -> tuple[int, int]:
        """A tile: 16 rows of one group."""
        return TILE_ROWS, self.group_size

    def group_blocks(self) -> npt.NDArray[np.int64]:
        """Blocks of 32 inputs in each group, shape (groups,)."""
        edges = np.minimum(np.arange(self.groups + 1) * self.group_size, self.columns)
        return -(-np.diff(edges) // BLOCK_COLUMNS)

    def expand(self, cells: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Agent values, shape (agents,), spread over tiles, shape (row_tiles, groups)."""
        if cells.shape != (self.agents,):
            raise DataError(f"{self.name}: {cells.shape} values for {self.agents} agents")
        grid = cells.reshape(self.grid)
        rows = np.arange(self.row_tiles) * TILE_ROWS // self.rows_per_agent
        return grid[rows][:, np.arange(self.groups) // self.groups_per_agent]

    def gather(self, tiles: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Sums over the tiles of each agent: (row_tiles, groups, ...) -> (agents, ...)."""
        rows = np.arange(0, self.row_tiles, self.rows_per_agent // TILE_ROWS)
        columns = np.arange(0, self.groups, self.groups_per_agent)
        sums = np.add.reduceat(np.add.reduceat(tiles, rows, axis=0), columns, axis=1)
        return sums.reshape(self.agents, *tiles.shape[2:])

    def memory(self, strategies: tuple[int, ...]) -> npt.NDArray[np.int64]:
        """See `Layout.memory`."""
        tiles = np.stack([self.tile_bytes(np.array(width)) for width in strategies], axis=-1)
        spread = np.broadcast_to(tiles, (self.row_tiles, self.groups, len(strategies)))
        return self.gather(spread) * 8

    def tile_bytes(self, widths: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Bytes of codes, scales and zero-points of tiles with these widths; broadcasts against (row_tiles, groups)."""
        wide = widths.astype(np.int64)
        zeros = np.where(wide == HALF, 0, TILE_ROWS * wide // 8)
        return wide * (TILE_ROWS * BLOCK_COLUMNS // 8) * self.group_blocks() + TILE_ROWS * self.scale_bits // 8 + zeros

    def fixed_bytes(self, strategies: int) -> int:
        """Permutation, width codes, scale base, ranges of scales."""
        ranges = self.rows if self.scale_bits == 4 else 0
        return 4 + self.order_bytes() + ranges + -(-self.agents // 2)

    def text(self, bias: bool = False) -> str:
        """Shape, group size, agents and flags: ordered, bias, normal levels, 4-bit scales."""
        flags = "o" * self.ordered + "b" * bias
        flags = flags + "n" * (self.levels == "normal") + "s" * (self.scale_bits == 4) or "-"
        agents = f"a{self.rows_per_agent}x{self.groups_per_agent}"
        return f"{self.kind} {self.rows}x{self.columns} g{self.group_size} {agents} {flags}"

    @classmethod
    def parse(cls, name: str, text: str) -> tuple[Self, bool]:
        """See `Layout.parse`."""
        match = _LINE.fullmatch(text)
        if match is None:
            raise DataError(f"{text!r} does not describe the layout of {name}")
        kind, flags = match[1], match[7]
        found = cls(
            name, cast(Kind, kind), *map(int, match.groups()[1:6]), ordered="o" in flags,
            levels="normal" if "n" in flags else "uniform", scale_bits=4 if "s" in flags else 8,
        )  # fmt: skip
        return found, "b" in flags

    def values(self) -> dict[str, Any]:
        """See `Layout.values`; `per_weight` tells them from those of single weights."""
        names = "name", "kind", "rows", "columns", "group_size", "rows_per_agent", "groups_per_agent"
        return {name: getattr(self, name) for name in names} | {
            "per_weight": False, "ordered": self.ordered, "start": self.start, "levels": self.levels,
            "scale_bits": self.scale_bits,
        }  # fmt: skip


_LINE = re.compile(
    r"(linear|conv1d|embedding|tied) (\d{1,9})x(\d{1,9}) g(\d{1,6}) a(\d{1,9})x(\d{1,9}) (-|(?=[obns])o?b?n?s?)"
)
