"""The walk both quantizers share: group after group of columns, with or without error feedback."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from nash_swarm.errors import DataError
from nash_swarm.quantizers.formats.native.codebooks import level_tables
from nash_swarm.quantizers.formats.native.grid import layout_base, row_widths, scale_table
from nash_swarm.quantizers.formats.native.layout import HALF, TensorLayout
from nash_swarm.quantizers.rounding.base import Rounded
from nash_swarm.quantizers.rounding.kernels import per_weight, rounding
from nash_swarm.quantizers.rounding.range_search import search_windows
from nash_swarm.sharing import share_rows


def round_columns(
    weight: npt.NDArray[np.float32],
    widths: npt.NDArray[np.uint8],
    layout: TensorLayout,
    factor: npt.NDArray[np.float32] | None,
    weights: npt.NDArray[np.float32],
    shrinks: tuple[float, ...],
) -> Rounded:
    """Round a matrix; with `factor` every error is passed on to the columns that follow.

    Args:
        weight: float32 (rows, columns), not changed.
        widths: uint8 (row_tiles, groups), or (rows, columns) if `layout.per_weight`.
        factor: upper Cholesky factor of the inverse Hessian, (columns, columns), or `None` for plain rounding.
        weights: what a squared error in each column costs, (columns,), for the scale search.
        shrinks: candidates of the scale search.
    """
    work = weight.copy()
    rows, columns, size = layout.rows, layout.columns, layout.group_size
    base = layout_base(weight, layout)
    table = scale_table(base)
    codes = np.zeros((rows, columns), np.uint8)
    scale_codes = np.zeros((rows, layout.groups), np.uint8)
    zeros = np.zeros((rows, layout.groups), np.uint8)
    by_row = widths if layout.per_weight else row_widths(widths, layout)
    search = np.array(shrinks, np.float32)
    tables = level_tables(layout.levels)
    windows = search_windows(weight, by_row, layout, base, weights, shrinks)
    feedback = factor is not None
    upper = factor if factor is not None else np.ones((1, 1), np.float32)
    for group, start in enumerate(range(0, columns, size)):
        stop = min(start + size, columns)
        errors = np.zeros((rows, stop - start), np.float32)
        target = (codes, scale_codes, zeros, group, errors)
        if layout.per_weight:
            kernel = partial(
                per_weight.round_group, work, start, stop, upper, by_row, np.float32(base), table, feedback, *target
            )
        else:
            bits = np.ascontiguousarray(by_row[:, group])
            kernel = partial(
                rounding.round_group, work, start, stop, upper, weights, bits, np.float32(base), table, search,
                tables.codes, tables.zeros, tables.nearest, tables.closest, tables.spread,
                windows.lowest, windows.strides, windows.offsets, windows.places, feedback, *target,
            )  # fmt: skip
        share_rows(rows, kernel)
        if feedback and stop < columns:
            update = torch.from_numpy(errors) @ torch.from_numpy(upper[start:stop, stop:])
            torch.from_numpy(work)[:, stop:] -= update
    halves = None
    if (by_row == HALF).any():
        exact = np.repeat(by_row == HALF, size, axis=1)[:, :columns]
        with np.errstate(over="ignore"):
            halves = np.where(exact, work, 0).astype(np.float16)
        if not np.isfinite(halves).all():
            raise DataError(f"{layout.name}: weights beyond the range of half precision cannot be left at 16 bits")
    return Rounded(codes, scale_codes, zeros, base, halves)
