"""The fast reader of the packed format: rows, unpacked one by one. `PackedTensor.dequantize` is its NumPy twin."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from nash_swarm.compiling import njit
from nash_swarm.quantizers.formats.native.codebooks import level_tables
from nash_swarm.quantizers.formats.native.layout import HALF, TILE_ROWS
from nash_swarm.quantizers.formats.native.scale_ranges import COARSE, EVEN, LAST
from nash_swarm.quantizers.runtime.cpu import descriptor
from nash_swarm.quantizers.runtime.cpu.entries import LARGE, MOST_BITS, meanings, small_entry
from nash_swarm.quantizers.runtime.cpu.matrix import PackedMatrix

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

_WIDTH_BITS = descriptor.WIDTH_BITS
_OPTIONS = {"nogil": True, "cache": True, "error_model": "numpy", "boundscheck": False}


def gather(matrix: PackedMatrix, wanted: npt.NDArray[np.int64], out: Floats, first: int, past: int) -> None:
    """Rows `wanted[first:past]` of a matrix into the same rows of out, float32 (wanted, columns).

    The caller has checked `wanted`. Releases the GIL; threads may share out the rows.
    """
    layout, buffer = matrix.layout, matrix.buffer
    order = matrix.permutation
    _rows(
        buffer, buffer[: len(buffer) // 2 * 2].view(np.uint16), _half_values() if matrix.halves else _NOTHING,
        matrix.tiles, matrix.cells, matrix.entries, small_entry(layout), matrix.windows,
        meanings(layout.levels), matrix.scale_table, level_tables(layout.levels).codes,
        np.arange(layout.columns, dtype=np.int32) if order is None else order, layout.group_size, wanted, out, first,
        past,
    )  # fmt: skip


@cache
def _half_values() -> Floats:
    """The value of every half-precision bit pattern: Numba has no float16 on the CPU."""
    return np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)


_NOTHING = np.empty(0, np.float32)


@njit(**_OPTIONS)
def _rows(
    buffer: Bytes,
    halves: npt.NDArray[np.uint16],
    half_values: Floats,
    tiles: npt.NDArray[np.int64],
    cells: npt.NDArray[np.int32],
    entries: Bytes,
    small: int,
    windows: Bytes,
    meanings: npt.NDArray[np.int32],
    scale_table: Floats,
    levels: Floats,
    permutation: npt.NDArray[np.int32],
    group_size: int,
    wanted: npt.NDArray[np.int64],
    out: Floats,
    first: int,
    past: int,
) -> None:
    """Arguments as `PackedMatrix` has them; small, meanings: of `entries`; levels: of `codebooks.LevelTables`."""
    columns = out.shape[1]
    for i in range(first, past):
        row = wanted[i]
        tile = row >> 4
        n = row & 15
        at, entry = tiles[tile]
        window = int(np.int64(windows[tile, n]))
        order = cells[tile if len(cells) > 1 else 0]
        for j in range(order.size):
            bits = int(np.int64(order[j])) & ((1 << _WIDTH_BITS) - 1)
            group = int(np.int64(order[j])) >> _WIDTH_BITS
            scale_code, zero = 0, 0
            if bits != HALF and (bits > MOST_BITS or small == LARGE):
                zero, scale_code = int(np.int64(entries[entry + n])), int(np.int64(entries[entry + TILE_ROWS + n]))
                entry += LARGE
            elif bits != HALF:
                byte = int(np.int64(entries[entry + n]))
                first_code = window // EVEN * EVEN + int(np.int64(meanings[bits, 0]))
                zero = int(np.int64(meanings[bits, 1])) + int(np.int64(meanings[bits, 2])) * (byte & 15)
                scale_code = min(LAST, first_code + (byte >> 4) * (COARSE if window % EVEN else 1))
                entry += small
            scale = scale_table[scale_code & 15] * np.float32(2.0) ** (-(scale_code >> 4))
            end = min((group + 1) * group_size, columns)
            low = 4 if bits >= 4 else 2
            high = bits - low
            for start in range(group * group_size, end, 32):
                for k in range(min(32, end - start)):
                    lane = 4 * n + (k & 3)
                    quad = k >> 2
                    if bits == HALF:
                        out[i, permutation[start + k]] = half_values[halves[(at >> 1) + quad * 64 + lane]]
                        continue
                    if bits == 8:
                        code = int(buffer[at + quad * 64 + lane])
                    else:
                        per = 8 // low
                        byte = int(buffer[at + quad // per * 64 + lane])
                        code = (byte >> (low * (quad % per))) & ((1 << low) - 1)
                        if high > 0:
                            per = 8 // high
                            byte = int(buffer[at + low * 64 + quad // per * 64 + lane])
                            code |= ((byte >> (high * (quad % per))) & ((1 << high) - 1)) << low
                    out[i, permutation[start + k]] = (levels[bits, code] - np.float32(zero)) * scale
                at += bits * 64
