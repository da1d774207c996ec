"""N16K32: codes in blocks of 16 rows x 32 inputs, `bits * 64` bytes each, laid out for byte dot products.

Quad q of a block is inputs 4q..4q+3; in a 64-byte vector, byte 4n+j is row n, input j of the quad. Codes are split into
planes of 8, 4, 2 or 1 bits (3 = 2 + 1, 5 = 4 + 1, 6 = 4 + 2); a plane of w bits packs 8/w consecutive quads into one
vector, the first quad in the lowest bits. A block of width 16 holds half-precision values in the same order.
This module is the NumPy reference; `cpu.gathering` is the fast reader.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nash_swarm.quantizers.formats.native.layout import BLOCK_COLUMNS, HALF, SUPPORTED_WIDTHS, TILE_ROWS, TensorLayout

PLANES: dict[int, tuple[int, ...]] = {2: (2,), 3: (2, 1), 4: (4,), 5: (4, 1), 6: (4, 2), 8: (8,)}
"""Bits of the planes of each width, low plane first."""
_VECTOR = 64
_QUADS = 8


def pack_blocks(blocks: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    """Codes of blocks, (n, 8 quads, 64), packed to (n, bits * 64) bytes."""
    planes = []
    shift = 0
    for plane in PLANES[bits]:
        per = 8 // plane
        part = (blocks >> shift) & (2**plane - 1)
        part = part.reshape(len(blocks), _QUADS // per, per, _VECTOR)
        vectors = np.zeros((len(blocks), _QUADS // per, _VECTOR), np.uint8)
        for i in range(per):
            vectors |= part[:, :, i] << np.uint8(plane * i)
        planes.append(vectors.reshape(len(blocks), -1))
        shift += plane
    return np.concatenate(planes, axis=1)


def unpack_blocks(packed: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    """Inverse of `pack_blocks`: (n, bits * 64) bytes to codes (n, 8, 64)."""
    blocks = np.zeros((len(packed), _QUADS, _VECTOR), np.uint8)
    at = shift = 0
    for plane in PLANES[bits]:
        per = 8 // plane
        vectors = packed[:, at : at + plane * _VECTOR].reshape(len(packed), _QUADS // per, _VECTOR)
        for i in range(per):
            blocks[:, i::per] |= ((vectors >> (plane * i)) & (2**plane - 1)) << shift
        at += plane * _VECTOR
        shift += plane
    return blocks


def group_offsets(widths: npt.NDArray[Any], layout: TensorLayout) -> tuple[npt.NDArray[np.int64], int]:
    """Byte at which each group of each tile starts, int64 (row_tiles, groups), and the bytes of all codes.

    Inside a tile groups are stored in runs of equal width, widest first, so that a kernel's inner loops do not branch.
    """
    wide = widths.astype(np.int64)
    sizes = wide * _VECTOR * layout.group_blocks()
    order = np.argsort(-wide, axis=1, kind="stable")
    ends = np.cumsum(np.take_along_axis(sizes, order, axis=1).ravel())
    starts = np.concatenate([[0], ends[:-1]]).reshape(order.shape)
    offsets = np.empty_like(starts)
    np.put_along_axis(offsets, order, starts, axis=1)
    return offsets, int(ends[-1])


def _blocks(matrix: npt.NDArray[Any], layout: TensorLayout) -> npt.NDArray[Any]:
    """(rows, columns) padded and rearranged to (row_tiles, blocks, 8, 64)."""
    count = int(layout.group_blocks().sum())
    padded = np.zeros((layout.row_tiles * TILE_ROWS, count * BLOCK_COLUMNS), matrix.dtype)
    padded[: layout.rows, : layout.columns] = matrix
    split = padded.reshape(layout.row_tiles, TILE_ROWS, count, _QUADS, 4)
    return split.transpose(0, 2, 3, 1, 4).reshape(layout.row_tiles, count, _QUADS, _VECTOR)


def _block_places(
    widths: npt.NDArray[Any], layout: TensorLayout
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int]:
    """Width and first byte of every block, (row_tiles, blocks) each, and the bytes of all codes."""
    counts = layout.group_blocks()
    group = np.repeat(np.arange(layout.groups), counts)
    inside = np.arange(len(group)) - (np.cumsum(counts) - counts)[group]
    offsets, total = group_offsets(widths, layout)
    wide = widths.astype(np.int64)[:, group]
    return wide, offsets[:, group] + inside * wide * _VECTOR, total


def pack_codes(
    codes: npt.NDArray[np.uint8],
    halves: npt.NDArray[np.float16] | None,
    widths: npt.NDArray[Any],
    layout: TensorLayout,
) -> npt.NDArray[np.uint8]:
    """All codes of a matrix, (rows, columns), as one byte stream; 16-bit tiles take their values from `halves`."""
    wide, places, total = _block_places(widths, layout)
    stream = np.zeros(total, np.uint8)
    blocks = _blocks(codes, layout)
    for bits in SUPPORTED_WIDTHS:
        chosen = wide == bits
        if not chosen.any():
            continue
        if bits == HALF:
            assert halves is not None
            packed = _blocks(halves, layout)[chosen].reshape(-1, _QUADS * _VECTOR).view(np.uint8)
        else:
            packed = pack_blocks(blocks[chosen], bits)
        stream[places[chosen][:, None] + np.arange(packed.shape[1])] = packed
    return stream


def unpack_codes(
    stream: npt.NDArray[np.uint8], widths: npt.NDArray[Any], layout: TensorLayout
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float16]]:
    """Inverse of `pack_codes`: codes (rows, columns) and half-precision values (zero where the width is not 16)."""
    wide, places, _ = _block_places(widths, layout)
    codes = np.zeros((*wide.shape, _QUADS, _VECTOR), np.uint8)
    halves = np.zeros(codes.shape, np.float16)
    for bits in SUPPORTED_WIDTHS:
        chosen = wide == bits
        if not chosen.any():
            continue
        packed = stream[places[chosen][:, None] + np.arange(bits * _VECTOR)]
        if bits == HALF:
            halves[chosen] = packed.view(np.float16).reshape(-1, _QUADS, _VECTOR)
        else:
            codes[chosen] = unpack_blocks(packed, bits)
    return _rows(codes, layout), _rows(halves, layout)


def _rows(blocks: npt.NDArray[Any], layout: TensorLayout) -> npt.NDArray[Any]:
    split = blocks.reshape(layout.row_tiles, -1, _QUADS, TILE_ROWS, 4).transpose(0, 3, 1, 2, 4)
    return split.reshape(layout.row_tiles * TILE_ROWS, -1)[: layout.rows, : layout.columns]
