"""The fast reader of the packed format; `PackedTensor.dequantize` is its NumPy twin."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
from numba import njit

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

_OPTIONS = {"nogil": True, "cache": True, "error_model": "numpy", "boundscheck": False}


@cache
def half_values() -> npt.NDArray[np.float32]:
    """The value of every half-precision bit pattern: Numba has no float16 on the CPU."""
    return np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)


@njit(inline="always", **_OPTIONS)
def _plane(buffer: Bytes, at: int, bits: int, shift: int, codes: Bytes) -> None:
    """Add one plane of a block at byte `at` to codes uint8 (512,)."""
    per = 8 // bits
    mask = np.uint8((1 << bits) - 1)
    for vector in range(bits):
        for i in range(per):
            for lane in range(64):
                value = (buffer[at + vector * 64 + lane] >> np.uint8(bits * i)) & mask
                codes[(vector * per + i) * 64 + lane] |= value << np.uint8(shift)


@njit(**_OPTIONS)
def _block(buffer: Bytes, at: int, bits: int, codes: Bytes) -> None:
    codes[:] = np.uint8(0)
    if bits == 8:
        _plane(buffer, at, 8, 0, codes)
    elif bits == 4:
        _plane(buffer, at, 4, 0, codes)
    elif bits == 2:
        _plane(buffer, at, 2, 0, codes)
    elif bits == 3:
        _plane(buffer, at, 2, 0, codes)
        _plane(buffer, at + 128, 1, 2, codes)
    elif bits == 5:
        _plane(buffer, at, 4, 0, codes)
        _plane(buffer, at + 256, 1, 4, codes)
    else:
        _plane(buffer, at, 4, 0, codes)
        _plane(buffer, at + 256, 2, 4, codes)


@njit(**_OPTIONS)
def dequantize_tiles(
    buffer: Bytes,
    halves: npt.NDArray[np.uint16],
    half_values: Floats,
    offsets: npt.NDArray[np.int64],
    widths: Bytes,
    scales: Floats,
    zeros: Bytes,
    permutation: npt.NDArray[np.int64],
    group_size: int,
    out: Floats,
    first: int,
    past: int,
) -> None:
    """Tiles `first:past` of a packed matrix into out, float32 (rows, columns), columns in the model's order.

    halves: the buffer's bytes as uint16; half_values: the value of each pattern. offsets, widths: (row_tiles, groups).
    scales, zeros: (padded rows, groups).
    """
    codes = np.empty(512, np.uint8)
    rows, columns = out.shape
    for tile in range(first, past):
        top = min(16, rows - tile * 16)
        for group in range(widths.shape[1]):
            bits = int(np.int64(widths[tile, group]))
            at = offsets[tile, group]
            end = min((group + 1) * group_size, columns)
            for start in range(group * group_size, end, 32):
                used = min(32, end - start)
                if bits == 16:
                    for n in range(top):
                        for k in range(used):
                            code16 = halves[(at >> 1) + (k >> 2) * 64 + 4 * n + (k & 3)]
                            out[tile * 16 + n, permutation[start + k]] = half_values[code16]
                else:
                    _block(buffer, at, bits, codes)
                    for n in range(top):
                        scale = scales[tile * 16 + n, group]
                        zero = np.float32(zeros[tile * 16 + n, group])
                        for k in range(used):
                            code = np.float32(codes[(k >> 2) * 64 + 4 * n + (k & 3)])
                            out[tile * 16 + n, permutation[start + k]] = (code - zero) * scale
                at += bits * 64
