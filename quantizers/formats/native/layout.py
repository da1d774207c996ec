"""How one weight matrix is cut into agents, and what each agent costs on disk to the bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from nash_swarm import arguments
from nash_swarm.errors import DataError, UsageError
from nash_swarm.names import GRANULARITIES, LEVELS, Granularity, Levels

Kind = Literal["linear", "conv1d", "embedding", "tied"]

TILE_ROWS = 16
"""Output rows of a tile of the packed format."""
BLOCK_COLUMNS = 32
"""Inputs of a block of the packed format."""
SUPPORTED_WIDTHS = (2, 3, 4, 5, 6, 8, 16)
HALF = 16
"""The strategy that leaves an agent in half precision."""
_EMBEDDING_BAND = 128
"""Rows of a `block` agent of a token matrix: its rows differ far more (token frequency) than its columns do."""


@dataclass(frozen=True)
class TensorLayout:
    """One quantized matrix of the model and the grid of agents laid over it.

    Columns are counted in the order in which they are quantized (activation order where `ordered`).
    The agents of a tensor are the cells of a grid of `rows_per_agent` x (`groups_per_agent` * `group_size`) weights,
    numbered row-major from `start`. At `parameter` granularity (`per_weight`) every weight is an agent.

    Attributes:
        name: path of the module in the model, e.g. ``model.layers.0.mlp.up_proj``.
        kind: what the module is; ``tied`` is an embedding that is the output head too.
        rows: outputs (tokens for an embedding).
        columns: inputs.
        group_size: columns that share one scale and zero-point per row.
        rows_per_agent: a multiple of 16.
        groups_per_agent: quantization groups side by side in one agent.
        per_weight: every weight is an agent of its own.
        ordered: columns are stored permuted; the permutation is on disk and paid for.
        levels: where the values of codes lie, see `formats.native.codebooks`; "uniform" at `parameter` granularity.
        scale_bits: bits of a group's scale code: 4 within a window of its row (`formats.native.scale_ranges`); 8 at
            `parameter` granularity and in files of format 2.
        start: index of the first agent in the game.
    """

    name: str
    kind: Kind
    rows: int
    columns: int
    group_size: int
    rows_per_agent: int
    groups_per_agent: int
    per_weight: bool = False
    ordered: bool = False
    start: int = 0
    levels: Levels = "uniform"
    scale_bits: int = 8

    @classmethod
    def cut(
        cls,
        name: str,
        kind: Kind,
        shape: tuple[int, int],
        granularity: Granularity,
        *,
        group_size: int = 64,
        ordered: bool = False,
        start: int = 0,
        levels: Levels = "uniform",
    ) -> TensorLayout:
        """The grid of `granularity` over a matrix of `shape` (rows, columns).

        Raises:
            UsageError: unknown granularity or levels, levels other than even ones at `parameter` granularity, or a
                group size that is no positive multiple of 32.
        """
        check_cut(granularity, levels, group_size)
        rows, columns = shape
        padded_rows = -(-rows // TILE_ROWS) * TILE_ROWS
        groups = -(-columns // group_size)
        if granularity == "tile":
            cell = (TILE_ROWS, 1)
        elif granularity == "block" and kind in ("embedding", "tied"):
            cell = (min(padded_rows, _EMBEDDING_BAND), groups)
        elif granularity == "block":
            cell = (padded_rows, 1)
        else:
            cell = (padded_rows, groups)
        return cls(
            name, kind, rows, columns, group_size, *cell,
            per_weight=granularity == "parameter", ordered=ordered, start=start, levels=levels,
            scale_bits=8 if granularity == "parameter" else 4,
        )  # fmt: skip

    def __post_init__(self) -> None:
        numbers = (self.rows, self.columns, self.group_size, self.rows_per_agent, self.groups_per_agent)
        if (
            min(numbers) <= 0
            or self.start < 0
            or self.rows_per_agent % TILE_ROWS
            or self.group_size % BLOCK_COLUMNS
            or self.kind not in get_args(Kind)
            or self.levels not in LEVELS
            or self.scale_bits not in (4, 8)
            or (self.per_weight and (self.levels != "uniform" or self.scale_bits != 8))
        ):
            raise DataError(f"tensor {self.name!r} has an impossible layout: {self.kind}, {numbers}, {self.start}")

    @property
    def weights(self) -> int:
        """Number of weights, without padding."""
        return self.rows * self.columns

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
        if self.per_weight:
            return self.rows, self.columns
        return -(-self.row_tiles * TILE_ROWS // self.rows_per_agent), -(-self.groups // self.groups_per_agent)

    @property
    def agents(self) -> int:
        """Number of agents of this tensor."""
        return self.grid[0] * self.grid[1]

    @property
    def span(self) -> slice:
        """Where this tensor's agents stand in the game's arrays."""
        return slice(self.start, self.start + self.agents)

    def group_blocks(self) -> npt.NDArray[np.int64]:
        """Blocks of 32 inputs in each group, shape (groups,)."""
        edges = np.minimum(np.arange(self.groups + 1) * self.group_size, self.columns)
        return -(-np.diff(edges) // BLOCK_COLUMNS)

    def expand(self, cells: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Agent values, shape (agents,), spread over tiles, shape (row_tiles, groups); over weights if per_weight."""
        if cells.shape != (self.agents,):
            raise DataError(f"{self.name}: {cells.shape} values for {self.agents} agents")
        grid = cells.reshape(self.grid)
        if self.per_weight:
            return grid
        rows = np.arange(self.row_tiles) * TILE_ROWS // self.rows_per_agent
        return grid[rows][:, np.arange(self.groups) // self.groups_per_agent]

    def gather(self, tiles: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Sums over the tiles of each agent: (row_tiles, groups, ...) -> (agents, ...)."""
        rows = np.arange(0, self.row_tiles, self.rows_per_agent // TILE_ROWS)
        columns = np.arange(0, self.groups, self.groups_per_agent)
        sums = np.add.reduceat(np.add.reduceat(tiles, rows, axis=0), columns, axis=1)
        return sums.reshape(self.agents, *tiles.shape[2:])

    def memory(self, strategies: tuple[int, ...]) -> npt.NDArray[np.int64]:
        """Exact bits on disk of each agent with each strategy, shape (agents, strategies).

        At `parameter` granularity all rows are equal and the array is a broadcast view.
        """
        if self.per_weight:
            return np.broadcast_to(np.array(strategies, np.int64), (self.agents, len(strategies)))
        tiles = np.stack([self.tile_bytes(np.array(width)) for width in strategies], axis=-1)
        spread = np.broadcast_to(tiles, (self.row_tiles, self.groups, len(strategies)))
        return self.gather(spread) * 8

    def tile_bytes(self, widths: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Bytes of codes, scales and zero-points of tiles with these widths; broadcasts against (row_tiles, groups)."""
        wide = widths.astype(np.int64)
        zeros = np.where(wide == HALF, 0, TILE_ROWS * wide // 8)
        return wide * (TILE_ROWS * BLOCK_COLUMNS // 8) * self.group_blocks() + TILE_ROWS * self.scale_bits // 8 + zeros

    def fixed_bytes(self, strategies: int) -> int:
        """Bytes on disk that no choice of widths changes: permutation, width codes, scale base, windows of scales.

        At `parameter` granularity also scales and zero-points, and the padding of each width's run of codes.
        """
        permutation = self.columns * (2 if self.columns <= 2**16 else 4) if self.ordered else 0
        if not self.per_weight:
            windows = self.rows if self.scale_bits == 4 else 0
            return 4 + permutation + windows + -(-self.agents // 2)
        width_code = max(1, (strategies - 1).bit_length())
        return 4 + permutation + 2 * self.rows * self.groups + -(-self.weights * width_code // 8) + strategies


def check_cut(granularity: str, levels: str, group_size: int) -> None:
    """Refuse agents that no matrix can be cut into.

    Raises:
        UsageError: see `TensorLayout.cut`.
    """
    if granularity not in GRANULARITIES:
        raise UsageError(f"unknown granularity {granularity!r}; choose one of {', '.join(GRANULARITIES)}")
    if levels not in LEVELS:
        raise UsageError(f"unknown levels {levels!r}; choose one of {', '.join(LEVELS)}")
    if granularity == "parameter" and levels != "uniform":
        raise UsageError("at parameter granularity levels are uniform: weights of one scale have many widths")
    if arguments.whole("group_size", group_size, -(1 << 62)) <= 0 or group_size % BLOCK_COLUMNS:
        raise UsageError(f"group_size must be a positive multiple of {BLOCK_COLUMNS}, not {group_size}")
