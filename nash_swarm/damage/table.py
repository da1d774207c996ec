"""From the cost of errors to the damage of every agent with every width."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nash_swarm.damage.base import Sensitivity
from nash_swarm.quantizers.formats.native.layout import HALF, TensorLayout


def in_stored_order(weight: npt.NDArray[np.float32], order: npt.NDArray[np.int64] | None) -> npt.NDArray[np.float32]:
    """A weight (rows, columns) with its columns as they are stored, int64 (columns,), one run of memory."""
    return np.ascontiguousarray(weight if order is None else weight[:, order])


def damage_table(
    weight: npt.NDArray[np.float32], sensitivity: Sensitivity, layout: TensorLayout, strategies: tuple[int, ...]
) -> npt.NDArray[np.float32]:
    """Cost of rounding each agent to each width with the scale search of the quantizers, float32 (agents, strategies).

    Args:
        weight: float32 (rows, columns), columns in the model's order.
        sensitivity: see there; its columns are in stored order.
        layout: the agent grid.
        strategies: bit-widths; 16 costs nothing.
    """
    from nash_swarm.quantizers.formats.native.codebooks import level_tables
    from nash_swarm.quantizers.formats.native.grid import SHRINKS, layout_base, scale_table
    from nash_swarm.quantizers.rounding.kernels import per_weight, rounding
    from nash_swarm.sharing import share_rows

    stored = in_stored_order(weight, sensitivity.order)
    base = layout_base(weight, layout)
    table = scale_table(base)
    common = (stored, sensitivity.rows, sensitivity.columns, layout.group_size)
    if layout.per_weight:
        out = np.empty((layout.rows, layout.columns, len(strategies)), np.float32)
        widths = np.array(strategies, np.int64)
        share_rows(
            layout.rows,
            lambda first, past: per_weight.weight_damage(*common, widths, np.float32(base), table, out, first, past),
        )
        return out.reshape(layout.agents, len(strategies))
    tops = np.array([0 if bits == HALF else 2**bits - 1 for bits in strategies], np.int64)
    tiles = np.zeros((layout.row_tiles, layout.groups, len(strategies)))
    shrinks = np.array(SHRINKS, np.float32)
    levels = level_tables(layout.levels)
    grid = np.float32(base), table, shrinks, levels.zeros, levels.closest, levels.spread
    share_rows(
        layout.row_tiles,
        lambda first, past: rounding.tile_damage(*common, tops, *grid, tiles, first, past),
    )
    return layout.gather(tiles).astype(np.float32)
