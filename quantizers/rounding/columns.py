"""The walk that quantizers share: group after group of columns, with or without error feedback."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nash_swarm.quantizers.formats.base import Layout
from nash_swarm.sharing import share_rows


def round_columns(
    weight: npt.NDArray[np.float32],
    widths: npt.NDArray[np.uint8],
    layout: Layout,
    factor: npt.NDArray[np.float32] | None,
    weights: npt.NDArray[np.float32],
    shrinks: tuple[float, ...],
) -> Any:
    """Round a matrix onto its format's grid; with `factor` every error is passed on to the columns that follow.

    Args:
        weight: float32 (rows, columns), not changed.
        widths: uint8, one for each of the layout's `units`.
        layout: cells, and the format.
        factor: upper Cholesky factor of the inverse Hessian, (columns, columns), or `None` for plain rounding.
        weights: what a squared error in each column costs, (columns,), for the scale search.
        shrinks: candidates of the scale search.
    """
    work = weight.copy()
    grid = layout.format.grid(weight, widths, layout, weights, shrinks, share_rows)
    for start in range(0, layout.columns, grid.group_size):
        stop = min(start + grid.group_size, layout.columns)
        errors = np.zeros((layout.rows, stop - start), np.float32)
        grid.round_group(work, start, stop, factor, errors)
        if factor is not None and stop < layout.columns:
            update = torch.from_numpy(errors) @ torch.from_numpy(factor[start:stop, stop:])
            torch.from_numpy(work)[:, stop:] -= update
    return grid.rounded(work)
