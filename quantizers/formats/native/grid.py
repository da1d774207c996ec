"""The grid weights are rounded to: logarithmic scales and integer zero-points per row and group.

A scale is `base * 2**(-code / 16)`: 256 codes cover 16 octaves below the tensor's `base` in steps of 4.4 %, which costs
no measurable quality against half-precision scales. Four bits on disk say which of its row's codes a group has, see
`scale_ranges`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nash_swarm.errors import DataError
from nash_swarm.quantizers.formats.native.codebooks import level_tables
from nash_swarm.quantizers.formats.native.layout import TILE_ROWS, TensorLayout

STEPS_PER_OCTAVE = 16
_SMALLEST_BASE = 2.0**-96
"""Sixteen octaves below it a scale, and a weight of one step, are still normal numbers."""
LARGEST_BASE = 2.0**97
"""Far enough from the end of single precision that no weight on the grid overflows."""
SHRINKS: tuple[float, ...] = (1.05, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
"""Clipping candidates of the scale search: share of the group's full range that the grid spans. The first leaves room
for a scale that is rounded down: without it 8 bits clip half of all groups and have twice the squared error."""


@dataclass(frozen=True, eq=False)
class Rounded:
    """One matrix rounded to its grid, columns in stored order (activation order where the layout is `ordered`).

    The weight of row n, column k in group g is `(codes[n, k] - zeros[n, g]) * scale(scale_codes[n, g])`;
    where the width is 16 it is `halves[n, k]`. Of single weights see `formats.per_weight.stream`.

    Attributes:
        codes: uint8 (rows, columns).
        scale_codes: uint8 (rows, groups), sixteenths of an octave below `base`.
        zeros: uint8 (rows, groups), integer zero-points.
        base: the largest scale, float32.
        halves: float16 (rows, columns), `None` if no tile is 16 bits wide.
    """

    codes: npt.NDArray[np.uint8]
    scale_codes: npt.NDArray[np.uint8]
    zeros: npt.NDArray[np.uint8]
    base: float
    halves: npt.NDArray[np.float16] | None = None


def scale_table(base: float) -> npt.NDArray[np.float32]:
    """The 256 scales of a tensor, float32, largest first."""
    return np.float32(base) * np.exp2(-np.arange(256, dtype=np.float32) / STEPS_PER_OCTAVE).astype(np.float32)


def scale_base(weight: npt.NDArray[np.float32], widest_step: int = 3) -> float:
    """A `base` that covers every scale a matrix may need, with an octave to spare for compensated errors.

    `widest_step` is the number of steps of the coarsest grid: 3 for 2 bits. Matrices so small that their scales would
    be denormal get larger ones, that is, become zero.

    Raises:
        DataError: the weights are too large for single-precision scales.
    """
    largest = float(max(weight.max(initial=0.0), -weight.min(initial=0.0)))
    # a step never exceeds (hi - lo) / steps <= 2 * largest / steps
    if largest == 0:
        return 1.0
    base = max(4.0 * largest / widest_step, _SMALLEST_BASE)
    if base > LARGEST_BASE:
        raise DataError(f"weights as large as {largest:.1e} cannot be quantized; the checkpoint is damaged")
    return float(np.float32(base))


def layout_base(weight: npt.NDArray[np.float32], layout: TensorLayout) -> float:
    """The `base` of a matrix that is rounded as its layout says.

    Raises:
        DataError: as `scale_base`.
    """
    # uneven levels span 255 whatever the width; the coarsest even steps beside them are those of 6 bits
    return scale_base(weight, 3 if layout.levels == "uniform" else 63)


def row_widths(widths: npt.NDArray[np.uint8], layout: TensorLayout, *, padded: bool = False) -> npt.NDArray[np.uint8]:
    """Tile widths (row_tiles, groups) repeated to rows (rows, groups), of the last tile's padding too if `padded`."""
    return np.repeat(widths, TILE_ROWS, axis=0)[: None if padded else layout.rows]


def dequantize(
    codes: npt.NDArray[np.uint8],
    scale_codes: npt.NDArray[np.uint8],
    zeros: npt.NDArray[np.uint8],
    base: float,
    widths: npt.NDArray[np.uint8],
    layout: TensorLayout,
) -> npt.NDArray[np.float32]:
    """Weights (rows, columns) of a grid with a scale and zero-point per row and group; NumPy twin of the kernels.

    Args:
        codes: uint8 (rows, columns).
        scale_codes, zeros: uint8 (rows, groups).
        base: the tensor's largest scale.
        widths: uint8 (rows, groups); what is of width 16 comes out as if it were of width 8.
        layout: group size and levels.
    """
    group = np.arange(codes.shape[1]) // layout.group_size
    scales, tables = scale_table(base)[scale_codes], level_tables(layout.levels)
    width = np.minimum(widths, 8)
    offsets = tables.zeros[width, zeros]
    return (tables.codes[width[:, group], codes] - offsets[:, group]) * scales[:, group]
