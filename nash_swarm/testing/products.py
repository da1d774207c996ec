"""The kernels' arithmetic in plain NumPy: the same integers and the same float32 operations in the same order.

Equal to the kernels to the last bit, for every instruction path, number of tokens and share of the tiles.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nash_swarm.quantizers.formats.native import grid, n16k32
from nash_swarm.quantizers.formats.native.codebooks import code_levels, zero_levels
from nash_swarm.quantizers.formats.native.layout import HALF, TILE_ROWS
from nash_swarm.quantizers.formats.native.tensor import PackedTensor
from nash_swarm.quantizers.runtime.cpu.activations import SMALLEST

Floats = npt.NDArray[np.float32]


class Rounded(NamedTuple):
    """Activations of one group: int8 codes (tokens, inputs) as int64, and float32 scales (tokens,)."""

    codes: npt.NDArray[np.int64]
    scales: Floats


def round_activations(x: Floats) -> Rounded:
    """Symmetric int8 of one group, float32 (tokens, inputs): 127 is the largest magnitude, ties go to even."""
    largest = np.abs(x).max(axis=1)
    zero = largest < SMALLEST
    inverse = np.where(zero, np.float32(0), np.float32(127) / np.where(zero, np.float32(1), largest))
    scales = np.where(zero, np.float32(0), largest / np.float32(127))
    return Rounded(np.rint(x * inverse[:, None]).astype(np.int64), scales)


def multiply(tensor: PackedTensor, x: Floats, mode: str = "int8") -> Floats:
    """x, float32 (tokens, columns), times the transposed matrix: float32 (tokens, rows).

    A group's contribution is `dot * (scale * step)` with the exact integer `dot` of levels less zero-points' and
    rounded activations and the activations' `step`; in fp32 mode, and for width 16, `sum * scale`, see `_products`. The
    contributions of a tile are added in stored order, widest first, then by column; product and sum are rounded once.
    """
    layout = tensor.layout
    codes, halves = n16k32.unpack_codes(tensor.buffer[: tensor.code_bytes], tensor.widths, layout)
    stored = x[:, tensor.permutation]
    scales = grid.scale_table(tensor.base)[tensor.scale_codes]
    out = np.zeros((len(x), layout.rows), np.float32)
    order = np.argsort(-tensor.widths.astype(np.int64), axis=1, kind="stable")
    for tile in range(layout.row_tiles):
        rows = slice(tile * TILE_ROWS, min((tile + 1) * TILE_ROWS, layout.rows))
        for group in order[tile]:
            columns = slice(group * layout.group_size, (group + 1) * layout.group_size)
            width = min(8, int(tensor.widths[tile, group]))
            levels = code_levels(width, layout.levels)[codes[rows, columns]]
            levels = levels - zero_levels(width, layout.levels)[tensor.zeros[rows, group, None]]
            scale = scales[rows, group]
            if tensor.widths[tile, group] == HALF:
                out[:, rows] += _products(halves[rows, columns].astype(np.float32), stored[:, columns])
            elif mode == "fp32":
                sums = _products(levels.astype(np.float32), stored[:, columns])
                out[:, rows] = fused(sums, scale, out[:, rows])
            else:
                rounded = round_activations(stored[:, columns])
                dots = (rounded.codes @ levels.T).astype(np.float32)
                out[:, rows] = fused(dots, scale * rounded.scales[:, None], out[:, rows])
    return out


def product(tensor: PackedTensor, x: Floats, mode: str) -> Floats:
    """`multiply` in any `names.Mode`: int16 is the sum of two products, of rounded inputs and of what those leave."""
    if mode != "int16":
        return multiply(tensor, x, mode)
    if (tensor.widths == HALF).any():
        return multiply(tensor, x, "fp32")
    layout, left = tensor.layout, x.copy()
    for first in range(0, layout.columns, layout.group_size):
        columns = tensor.permutation[first : first + layout.group_size]
        rounded = round_activations(x[:, columns])
        left[:, columns] -= rounded.codes.astype(np.float32) * rounded.scales[:, None]
    return multiply(tensor, x) + multiply(tensor, left)


def fused(a: Floats, b: Floats, c: Floats) -> Floats:
    """a * b + c, float32, rounded once.

    The product of two float32 is exact in float64. The sum is rounded to odd there, so that rounding it again is as
    good as rounding once (Boldo and Melquiond 2008).
    """
    product = a.astype(np.float64) * b.astype(np.float64)
    with np.errstate(invalid="ignore"):
        total = product + c
        back = total - product
        left = (product - (total - back)) + (c - back)  # what rounding took away, exactly (Knuth's TwoSum)
    bits = total.view(np.int64)
    even = np.isfinite(total) & (left != 0) & (bits & 1 == 0)
    bits += np.where(even, np.where((left > 0) == (total > 0), 1, -1), 0)
    return bits.view(np.float64).astype(np.float32)


def _products(levels: Floats, x: Floats) -> Floats:
    """Sums of levels (rows, inputs) times x (tokens, inputs): every fourth input to one partial sum, in order."""
    parts = np.zeros((4, len(x), len(levels)), np.float32)
    for k in range(levels.shape[1]):
        parts[k % 4] = fused(levels[:, k], x[:, k, None], parts[k % 4])
    return (parts[0] + parts[1]) + (parts[2] + parts[3])
