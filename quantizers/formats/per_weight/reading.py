"""Fast reader of the stream of single weights; `stream` is its NumPy twin."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nash_swarm.compiling import njit

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]

_OPTIONS = {"nogil": True, "cache": True, "error_model": "numpy", "boundscheck": False}


@njit(**_OPTIONS)
def row_bits(widths: Bytes) -> Places:
    """Bit of the stream at which each row's codes of each width start, int64 (rows, 9); width b is column b."""
    rows, columns = widths.shape
    starts = np.zeros((rows, 9), np.int64)
    counts = np.zeros(9, np.int64)
    for n in range(rows):
        starts[n, :] = counts
        for k in range(columns):
            counts[widths[n, k]] += 1
    begin = 0
    for bits in range(1, 9):
        for n in range(rows):
            starts[n, bits] = begin + starts[n, bits] * bits
        # each width's run ends on a whole byte
        begin += (counts[bits] * bits + 7) // 8 * 8
    return starts


@njit(**_OPTIONS)
def dequantize_rows(
    stream: Bytes,
    starts: Places,
    widths: Bytes,
    scales: Floats,
    zeros: Bytes,
    permutation: Places,
    group_size: int,
    wanted: Places,
    out: Floats,
    first: int,
    past: int,
) -> None:
    """Rows `wanted[first:past]` into out, float32 (wanted, columns), columns in the model's order."""
    place = np.empty(9, np.int64)
    steps = np.empty(9, np.float32)
    for bits in range(1, 9):
        steps[bits] = np.float32(255.0) / (np.float32(2.0) ** np.float32(bits) - np.float32(1.0))
    for i in range(first, past):
        row = wanted[i]
        place[:] = starts[row]
        for k in range(out.shape[1]):
            bits = int(np.int64(widths[row, k]))
            at = place[bits]
            place[bits] = at + bits
            byte, shift = at >> 3, at & 7
            pair = np.int64(stream[byte]) << 8
            if shift + bits > 8:
                pair |= np.int64(stream[byte + 1])
            code = np.float32((pair >> (16 - shift - bits)) & ((1 << bits) - 1))
            group = k // group_size
            value = code * steps[bits] - np.float32(zeros[row, group])
            out[i, permutation[k]] = value * scales[row, group]
