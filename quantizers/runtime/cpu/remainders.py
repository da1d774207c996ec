"""What rounding activations to int8 leaves over, to be rounded and multiplied in its turn."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nash_swarm.compiling import njit
from nash_swarm.quantizers.runtime.cpu.activations import cut, panel
from nash_swarm.quantizers.runtime.cpu.matrix import PackedMatrix

Floats = npt.NDArray[np.float32]


def remainder(matrix: PackedMatrix, x: Floats, inputs: npt.NDArray[np.uint8], lanes: int) -> Floats:
    """x less what `inputs` stand for, float32 (tokens, columns).

    Args:
        matrix: a matrix without cells of width 16.
        x: float32 (tokens, columns), contiguous.
        inputs: the block that `cpu.activations` describes, made of x for this matrix in mode int8.
        lanes: of the runner that made them.
    """
    layout = matrix.layout
    codes = layout.groups * layout.group_size * len(x)
    scales = inputs[codes : codes + 4 * layout.groups * len(x)].view(np.float32)
    order = matrix.permutation
    if order is None:
        order = np.arange(layout.columns, dtype=np.int32)
    out = np.empty_like(x)
    _remainder(x, inputs[:codes].view(np.int8), scales, order, layout.group_size, lanes, out)
    return out


@njit(nogil=True, cache=True, error_model="numpy")
def _remainder(
    x: Floats,
    codes: npt.NDArray[np.int8],
    scales: Floats,
    permutation: npt.NDArray[np.int32],
    group_size: int,
    lanes: int,
    out: Floats,
) -> None:
    tokens, columns = x.shape
    start = 0
    while start < tokens:
        together = panel(lanes, start, tokens)
        for group in range(-(-columns // group_size)):
            first, count, blocks = cut(columns, group_size, group)
            for token in range(start, start + together):
                place = first * tokens + 32 * blocks * start + 4 * (token - start)
                scale = scales[group * tokens + token]
                for k in range(count):
                    column = permutation[first + k]
                    code = codes[place + k // 4 * 4 * together + k % 4]
                    out[token, column] = x[token, column] - np.float32(code) * scale
        start += together
