"""The range of scale codes that suits each row of a matrix best."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt

from nash_swarm.quantizers.formats.base import Share, alone
from nash_swarm.quantizers.formats.native.codebooks import level_tables
from nash_swarm.quantizers.formats.native.grid import SHRINKS, scale_table
from nash_swarm.quantizers.formats.native.kernels import scale_ranges as kernels
from nash_swarm.quantizers.formats.native.layout import TensorLayout
from nash_swarm.quantizers.formats.native.scale_ranges import COARSE, EVEN, PLACES, ScaleRanges, scale_offsets


def search_ranges(
    weight: npt.NDArray[np.float32],
    widths: npt.NDArray[np.uint8],
    layout: TensorLayout,
    base: float,
    costs: npt.NDArray[np.float32] | None = None,
    shrinks: tuple[float, ...] = SHRINKS,
    share: Share = alone,
) -> ScaleRanges:
    """Ranges with the least squared error of weights that are rounded to nearest.

    Rows whose groups would choose neighbouring codes anyway get the range around them. For the others every range is
    judged by what each group's best code in it leaves: one large weight may be hit by few scales only.

    Args:
        weight: float32 (rows, columns), in stored column order.
        widths: uint8 (rows, groups).
        layout: of the matrix; where its scales have eight bits, any code may be anywhere.
        base: of the scales, see `grid.layout_base`.
        costs: what a squared error in each column costs, float32 (columns,); 1 everywhere by default.
        shrinks: candidates of the scale search.
        share: of the rows.
    """
    if layout.scale_bits == 8:
        return ScaleRanges.anywhere(layout.rows)
    tables, offsets = level_tables(layout.levels), scale_offsets(layout.levels)
    lowest, strides = np.zeros(layout.rows, np.int64), np.ones(layout.rows, np.int64)
    each = np.ones(layout.columns, np.float32) if costs is None else costs
    kernel = partial(
        kernels.choose, np.ascontiguousarray(weight), layout.group_size, each, widths, np.float32(base),
        scale_table(base), np.array(shrinks, np.float32), tables.zeros, tables.closest, tables.spread, offsets, EVEN,
        COARSE, PLACES, lowest, strides,
    )  # fmt: skip
    share(layout.rows, kernel)
    return ScaleRanges(lowest, strides, offsets)
