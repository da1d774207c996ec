"""A reader of the packed format that looks up one weight at a time, from DESIGN section 6 and the sections' order."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from nash_swarm.quantizers.formats.native.layout import TensorLayout

WIDTHS = (2, 3, 4, 5, 6, 8, 16)
NORMAL = {
    2: [0, 89, 166, 255],
    3: [0, 48, 83, 113, 142, 172, 207, 255],
    4: [0, 31, 52, 69, 84, 97, 109, 122, 133, 146, 158, 171, 186, 203, 224, 255],
    5: [
        0, 22, 37, 48, 58, 66, 73, 80, 87, 93, 98, 104, 109, 115, 120, 125, 130, 135, 140, 146, 151, 157, 162, 168, 175,
        182, 189, 197, 207, 218, 233, 255,
    ],
}  # fmt: skip
OFFSETS = {
    "uniform": {2: 0, 3: 14, 4: 28, 5: 44, 6: 60, 8: 92},
    "normal": {2: 42, 3: 35, 4: 32, 5: 28, 6: 0, 8: 32},
}
ZEROS = {2: range(82, 167, 28), 3: range(97, 154, 8), 4: range(106, 152, 3), 5: range(112, 144)}


def block_code(block: bytes, bits: int, row: int, column: int) -> int:
    """The code at (row, column) of a block of 16 rows x 32 inputs."""
    quad, lane = column // 4, 4 * row + column % 4
    match bits:
        case 8:
            return block[quad * 64 + lane]
        case 4:
            return block[quad // 2 * 64 + lane] >> 4 * (quad % 2) & 15
        case 2:
            return block[quad // 4 * 64 + lane] >> 2 * (quad % 4) & 3
        case 1:
            return block[lane] >> quad & 1
        case _:
            low, high = {3: (2, 1), 5: (4, 1), 6: (4, 2)}[bits]
            planes = block[: low * 64], block[low * 64 :]
            return block_code(planes[0], low, row, column) + (block_code(planes[1], high, row, column) << low)


def bits_at(data: bytes, index: int, bits: int) -> int:
    """Integer number `index` of a stream of `bits` bits each, most significant bit first."""
    value = 0
    for at in range(index * bits, (index + 1) * bits):
        value = value << 1 | data[at // 8] >> 7 - at % 8 & 1
    return value


def decode(data: bytes, layout: TensorLayout) -> npt.NDArray[np.float32]:
    """The matrix in a packed buffer of tiles: `codes | zero-points | scales | windows | permutation |
    widths | base`."""
    tiles, groups, size = layout.row_tiles, layout.groups, layout.group_size
    (base,) = struct.unpack("<f", data[-4:])
    widths_at = len(data) - 4 - (layout.agents + 1) // 2
    across = layout.grid[1]

    def width(tile: int, group: int) -> int:
        agent = tile * 16 // layout.rows_per_agent * across + group // layout.groups_per_agent
        return WIDTHS[bits_at(data[widths_at:], agent, 4)]

    order = list(range(layout.columns))
    order_at = widths_at
    if layout.ordered:
        order_at -= 2 * layout.columns
        order = [int.from_bytes(data[order_at + 2 * k : order_at + 2 * k + 2], "little") for k in order]
    windows_at = order_at - (layout.rows if layout.scale_bits == 4 else 0)
    scales_at = windows_at - tiles * groups * 2 * layout.scale_bits

    def scale_code(tile: int, group: int, row: int, bits: int) -> int:
        at = (tile * groups + group) * 16 + row
        if layout.scale_bits == 8:
            return data[scales_at + at]
        place = data[scales_at + at // 2] >> 4 * (at % 2) & 15
        first, coarse = divmod(data[windows_at + 16 * tile + row], 2)
        return min(255, 2 * first + OFFSETS[layout.levels][bits] + (4 if coarse else 1) * place)

    code_starts, at = {}, 0
    for tile in range(tiles):
        for group in sorted(range(groups), key=lambda g: -width(tile, g)):
            code_starts[tile, group] = at
            blocks = -(-min(size, layout.columns - group * size) // 32)
            at += blocks * width(tile, group) * 64
    zero_starts, runs = {}, dict.fromkeys(WIDTHS, 0)
    for tile in range(tiles):
        for group in range(groups):
            zero_starts[tile, group] = runs[width(tile, group)]
            runs[width(tile, group)] += 16
    run_at = {}
    for bits in WIDTHS[:-1]:
        run_at[bits] = at
        at += runs[bits] * bits // 8
    assert at == scales_at

    out = np.zeros((layout.rows, layout.columns), np.float32)
    for n in range(layout.rows):
        for k in range(layout.columns):
            tile, group, bits = n // 16, k // size, width(n // 16, k // size)
            start = code_starts[tile, group] + k % size // 32 * bits * 64
            block, row, column = data[start : start + bits * 64], n % 16, k % 32
            if bits == 16:
                where = 2 * (column // 4 * 64 + 4 * row + column % 4)
                out[n, order[k]] = struct.unpack("<e", block[where : where + 2])[0]
                continue
            zero = bits_at(data[run_at[bits] :], zero_starts[tile, group] + row, bits)
            scale = np.float32(base) * np.exp2(np.float32(-scale_code(tile, group, row, bits) / 16))
            code = block_code(block, bits, row, column)
            if layout.levels == "normal" and bits in NORMAL:
                code, zero = NORMAL[bits][code], ZEROS[bits][zero]
            out[n, order[k]] = np.float32(code - zero) * scale
    return out


def decode_weights(
    data: bytes, layout: TensorLayout, strategies: tuple[int, ...]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The matrix in a packed buffer of single weights, and the scale of every weight's group."""
    (base,) = struct.unpack("<f", data[-4:])
    count, bits = layout.weights, max(1, (len(strategies) - 1).bit_length())
    widths_at = len(data) - 4 - -(-count * bits // 8)
    widths = [strategies[bits_at(data[widths_at:], i, bits)] for i in range(count)]
    order = list(range(layout.columns))
    order_at = widths_at
    if layout.ordered:
        order_at -= 2 * layout.columns
        order = [int.from_bytes(data[order_at + 2 * k : order_at + 2 * k + 2], "little") for k in order]
    scales_at = order_at - layout.rows * layout.groups
    zeros_at = scales_at - layout.rows * layout.groups
    run_at, at = {}, 0
    for each in sorted(set(widths)):
        run_at[each] = at
        at += -(-widths.count(each) * each // 8)
    assert at == zeros_at
    seen = dict.fromkeys(run_at, 0)
    out, scales = np.zeros((2, layout.rows, layout.columns), np.float32)
    for n in range(layout.rows):
        for k in range(layout.columns):
            width = widths[n * layout.columns + k]
            code = bits_at(data[run_at[width] :], seen[width], width)
            seen[width] += 1
            at = n * layout.groups + k // layout.group_size
            scale = np.float32(base) * np.exp2(np.float32(-data[scales_at + at] / 16))
            step = np.float32(255) / np.float32(2**width - 1)
            out[n, order[k]] = (np.float32(code) * step - np.float32(data[zeros_at + at])) * scale
            scales[n, order[k]] = scale
    return out, scales
