"""The walk that quantizers share: group after group of columns, with or without error feedback."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nash_swarm.errors import DataError
from nash_swarm.quantizers.formats.base import Bytes, Floats, Layout
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


def check_rounding(weight: Floats, widths: Bytes, layout: Layout, hessian: Floats | None) -> None:
    """Refuse what does not fit together before a kernel sees it.

    Raises:
        DataError: a shape, dtype or width is wrong, or the weights are not finite.
    """
    shape, known = (layout.rows, layout.columns), layout.format.strategies
    if weight.shape != shape or weight.dtype != np.float32:
        raise DataError(f"{layout.name}: expected float32 weights of shape {shape}, got {weight.dtype} {weight.shape}")
    if widths.shape != layout.units:
        raise DataError(f"{layout.name}: expected widths of shape {layout.units}, got {widths.shape}")
    if not np.isin(widths, known).all():
        raise DataError(f"{layout.name}: widths outside {known}")
    if hessian is not None and hessian.shape != (layout.columns, layout.columns):
        raise DataError(f"{layout.name}: the Hessian is {hessian.shape} for {layout.columns} columns")
    if not np.isfinite(weight).all():
        raise DataError(f"{layout.name}: the weights hold NaN or infinite values; the checkpoint is damaged")
