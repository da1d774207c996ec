"""Kernel body: packed tiles times activations.

A tile's groups are taken in stored order, widest first, and their contributions added in that order, so the branches
below go the same way many times in a row and the result does not depend on how tokens are batched.
"""

from __future__ import annotations

from numba import int32, njit

from nash_swarm.game.layout import HALF
from nash_swarm.quantizers.kernels import descriptor as d
from nash_swarm.quantizers.kernels.activations import scales_at, totals_at, values_at
from nash_swarm.quantizers.kernels.simd.floats import add_products, load_scales, store_levels
from nash_swarm.quantizers.kernels.simd.integers import add_few_tokens, add_tokens, unpack_group
from nash_swarm.quantizers.kernels.simd.vectors import (
    float_bits,
    load_bytes,
    load_float,
    load_floats,
    load_int,
    load_long,
    prefetch,
    splat_float,
    store_float,
    store_floats,
)

WIDTH_MASK = 31


@njit(inline="always")
def _write(values: int, rows: int, out: int) -> None:
    """Sixteen outputs of one token, less the padding of the last tile."""
    if rows >= 16:
        store_floats(out, load_floats(values))
    else:
        for n in range(rows):
            store_float(out + 4 * n, load_float(values + 4 * n))


@njit(inline="always")
def multiply(
    path: int, exact: int, lanes: int, float_lanes: int, matrix: int, activations: int, out: int, work: int,
    tokens: int, chunk: int, first: int, past: int,
) -> None:  # fmt: skip
    """Rows of tiles `first:past` of out, float32 (tokens, rows), `chunk` tokens at a time."""
    codes, tiles = load_long(matrix + d.CODES), load_long(matrix + d.TILES)
    cells, cells_stride = load_long(matrix + d.CELLS), load_long(matrix + d.CELLS_STRIDE)
    scale_codes, zero_points = load_long(matrix + d.SCALE_CODES), load_long(matrix + d.ZEROS)
    table = load_long(matrix + d.SCALE_TABLE)
    groups, group_size = load_long(matrix + d.GROUPS), load_long(matrix + d.GROUP_SIZE)
    columns, rows = load_long(matrix + d.COLUMNS), load_long(matrix + d.ROWS)
    steps, totals = scales_at(matrix, activations, tokens), totals_at(matrix, activations, tokens)
    values = values_at(exact, matrix, activations, tokens)
    sums = work + 64 * group_size
    nothing, one = splat_float(float_bits(int32(0))), splat_float(float_bits(int32(0x3F800000)))
    for start in range(0, tokens, chunk):
        count = min(chunk, tokens - start)
        for tile in range(first, past):
            for token in range(count):
                store_floats(sums + 64 * token, nothing)
            at = codes + load_long(tiles + 8 * tile)
            cell = cells + cells_stride * tile
            for position in range(groups):
                bits = load_int(cell) & WIDTH_MASK
                group = load_int(cell) >> d.WIDTH_BITS
                cell += 4
                blocks = (min(group_size, columns - group * group_size) + 31) // 32
                # scale codes stand in column order: unless asked for a tile ahead, they come too late
                prefetch(scale_codes + 16 * ((tile + 1) * groups + position))
                zeros = load_bytes(zero_points + 16 * (tile * groups + position))
                scales = load_scales(path, table, scale_codes + 16 * (tile * groups + group))
                inputs = group * group_size * tokens + 32 * blocks * start
                index = 4 * (group * tokens + start)
                if exact or bits == HALF:
                    store_levels(bits, at, blocks, zeros, work)
                    if bits == HALF:
                        scales = one
                    add_products(float_lanes, work, blocks, scales, values + 4 * inputs, sums, count)
                elif count == 1:
                    add_few_tokens(
                        path, 1, bits, at, blocks, zeros, scales, activations + inputs, steps + index, totals + index,
                        sums,
                    )  # fmt: skip
                elif count == 2:
                    add_few_tokens(
                        path, 2, bits, at, blocks, zeros, scales, activations + inputs, steps + index, totals + index,
                        sums,
                    )  # fmt: skip
                else:
                    block = at
                    if bits < 8:
                        unpack_group(bits, at, blocks, work)
                        block = work
                    add_tokens(
                        path, lanes, bits, block, blocks, zeros, scales, activations + inputs, steps + index,
                        totals + index, sums, count,
                    )  # fmt: skip
                at += 64 * bits * blocks
            for token in range(count):
                place = out + 4 * ((start + token) * rows + 16 * tile)
                _write(sums + 64 * token, rows - 16 * tile, place)
