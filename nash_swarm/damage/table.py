"""From the cost of errors to the damage of every agent with every width, in the format that the agents are cut for."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nash_swarm.damage.base import Sensitivity
from nash_swarm.quantizers.formats.base import Layout


def in_stored_order(weight: npt.NDArray[np.float32], order: npt.NDArray[np.int64] | None) -> npt.NDArray[np.float32]:
    """A weight (rows, columns) with its columns as they are stored, int64 (columns,), one run of memory."""
    return np.ascontiguousarray(weight if order is None else weight[:, order])


def damage_table(
    weight: npt.NDArray[np.float32], sensitivity: Sensitivity, layout: Layout, strategies: tuple[int, ...]
) -> npt.NDArray[np.float32]:
    """Cost of rounding each agent to each width with the scale search of the format, float32 (agents, strategies).

    Args:
        weight: float32 (rows, columns), columns in the model's order.
        sensitivity: see there; its columns are in stored order.
        layout: cells, and the format.
        strategies: bit-widths.
    """
    from nash_swarm.sharing import share_rows

    stored = in_stored_order(weight, sensitivity.order)
    return layout.format.errors(stored, sensitivity.rows, sensitivity.columns, layout, strategies, share_rows)
