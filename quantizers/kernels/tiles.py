"""Kernel body: packed tiles times activations.

A tile's groups are taken in stored order, widest first, and their contributions added in that order, so the result does
not depend on how tokens are batched. For one or two tokens the number of groups of each width is read beforehand, and
nothing in the loop over them asks for a width: where the loop ends the processor guesses wrong, but finds out early.
"""

from __future__ import annotations

from numba import int32, literally, njit

from nash_swarm.game.layout import HALF
from nash_swarm.quantizers.kernels import descriptor as d
from nash_swarm.quantizers.kernels.activations import cut, scales_at, totals_at, values_at
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


@njit(error_model="numpy")
def _write(values: int, rows: int, out: int) -> None:
    """Sixteen outputs of one token, less the padding of the last tile."""
    if rows >= 16:
        store_floats(out, load_floats(values))
    else:
        for n in range(rows):
            store_float(out + 4 * n, load_float(values + 4 * n))


@njit(error_model="numpy")
def _few_tokens(
    path: int, lanes: int, tabled: int, bits: int, end: int, matrix: int, tile: int, at: int, activations: int,
    tokens: int, start: int, sums: int,
) -> int:  # fmt: skip
    """Add a tile's groups of one width to the sums of one or two tokens; the address behind their codes.

    Compiled once for every path, lanes, tabled and bits: written into its callers it took three times as long.
    """
    path, lanes, tabled, bits = literally(path), literally(lanes), literally(tabled), literally(bits)
    groups, group_size = load_long(matrix + d.GROUPS), load_long(matrix + d.GROUP_SIZE)
    columns, table = load_long(matrix + d.COLUMNS), load_long(matrix + d.SCALE_TABLE)
    ends = load_long(matrix + d.ENDS) + load_long(matrix + d.ENDS_STRIDE) * tile + end
    cells = load_long(matrix + d.CELLS) + load_long(matrix + d.CELLS_STRIDE) * tile
    scale_codes = load_long(matrix + d.SCALE_CODES) + 16 * groups * tile
    zero_points = load_long(matrix + d.ZEROS) + 16 * groups * tile
    steps, totals = scales_at(matrix, activations, tokens), totals_at(matrix, activations, tokens)
    levels = load_long(matrix + d.LEVELS)
    for position in range(load_int(ends - 4), load_int(ends)):
        group = load_int(cells + 4 * position) >> d.WIDTH_BITS
        column, _, blocks = cut(columns, group_size, group)
        # scale codes stand in column order: unless asked for a tile ahead, they come too late
        prefetch(scale_codes + 16 * (groups + position))
        prefetch(zero_points + 16 * (groups + position))
        zeros = load_bytes(zero_points + 16 * position)
        scales = load_scales(path, table, scale_codes + 16 * group)
        inputs = column * tokens + 32 * blocks * start
        index = 4 * (group * tokens + start)
        add_few_tokens(
            path, lanes, tabled, bits, at, blocks, levels, zeros, scales, activations + inputs, steps + index,
            totals + index, sums,
        )  # fmt: skip
        at += 64 * bits * blocks
    return at


@njit(inline="always")
def _few_tokens_of_any_width(
    path: int, lanes: int, tabled: int, matrix: int, tile: int, at: int, activations: int, tokens: int, start: int,
    sums: int,
) -> None:  # fmt: skip
    """All widths that codes have, in stored order; levels of 8 and 6 bits are even."""
    at = _few_tokens(path, lanes, 0, 8, d.END_8, matrix, tile, at, activations, tokens, start, sums)
    at = _few_tokens(path, lanes, 0, 6, d.END_6, matrix, tile, at, activations, tokens, start, sums)
    at = _few_tokens(path, lanes, tabled, 5, d.END_5, matrix, tile, at, activations, tokens, start, sums)
    at = _few_tokens(path, lanes, tabled, 4, d.END_4, matrix, tile, at, activations, tokens, start, sums)
    at = _few_tokens(path, lanes, tabled, 3, d.END_3, matrix, tile, at, activations, tokens, start, sums)
    _few_tokens(path, lanes, tabled, 2, d.END_2, matrix, tile, at, activations, tokens, start, sums)


@njit(inline="always")
def multiply(
    path: int, exact: int, lanes: int, float_lanes: int, matrix: int, activations: int, out: int, work: int,
    tokens: int, chunk: int, first: int, past: int,
) -> None:  # fmt: skip
    """Rows of tiles `first:past` of out, float32 (tokens, rows), `chunk` tokens at a time."""
    codes, tiles = load_long(matrix + d.CODES), load_long(matrix + d.TILES)
    cells, cells_stride = load_long(matrix + d.CELLS), load_long(matrix + d.CELLS_STRIDE)
    ends, ends_stride = load_long(matrix + d.ENDS), load_long(matrix + d.ENDS_STRIDE)
    scale_codes, zero_points = load_long(matrix + d.SCALE_CODES), load_long(matrix + d.ZEROS)
    table, levels = load_long(matrix + d.SCALE_TABLE), load_long(matrix + d.LEVELS)
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
                # rows of the output lie far apart: each store would wait for its line
                prefetch(out + 4 * ((start + token) * rows + 16 * tile))
            at = codes + load_long(tiles + 8 * tile)
            cell = cells + cells_stride * tile
            few = exact == 0 and count <= 2
            others = load_int(ends + ends_stride * tile + d.END_16) if few else groups
            for position in range(others):
                bits = load_int(cell) & WIDTH_MASK
                group = load_int(cell) >> d.WIDTH_BITS
                cell += 4
                column, _, blocks = cut(columns, group_size, group)
                # scale codes stand in column order: unless asked for a tile ahead, they come too late
                prefetch(scale_codes + 16 * ((tile + 1) * groups + position))
                zeros = load_bytes(zero_points + 16 * (tile * groups + position))
                scales = load_scales(path, table, scale_codes + 16 * (tile * groups + group))
                inputs = column * tokens + 32 * blocks * start
                index = 4 * (group * tokens + start)
                if exact or bits == HALF:
                    if levels == 0:
                        store_levels(path, 0, bits, at, blocks, levels, zeros, work)
                    else:
                        store_levels(path, 1, bits, at, blocks, levels, zeros, work)
                    if bits == HALF:
                        scales = one
                    add_products(float_lanes, work, blocks, scales, values + 4 * inputs, sums, count)
                else:
                    block, most_bits = at, bits
                    if bits < 8:
                        block = work
                        if levels == 0:
                            unpack_group(path, 0, bits, at, blocks, levels, work)
                        else:
                            unpack_group(path, 1, bits, at, blocks, levels, work)
                            # as `simd.levels.most_bits`: of 6 bits levels are even
                            most_bits = bits if bits == 6 else 8
                    add_tokens(
                        path, lanes, most_bits, block, blocks, zeros, scales, activations + inputs, steps + index,
                        totals + index, sums, count,
                    )  # fmt: skip
                at += 64 * bits * blocks
            if few and count == 1 and levels == 0:
                _few_tokens_of_any_width(path, 1, 0, matrix, tile, at, activations, tokens, start, sums)
            elif few and count == 1:
                _few_tokens_of_any_width(path, 1, 1, matrix, tile, at, activations, tokens, start, sums)
            elif few and levels == 0:
                _few_tokens_of_any_width(path, 2, 0, matrix, tile, at, activations, tokens, start, sums)
            elif few:
                _few_tokens_of_any_width(path, 2, 1, matrix, tile, at, activations, tokens, start, sums)
            for token in range(count):
                place = out + 4 * ((start + token) * rows + 16 * tile)
                _write(sums + 64 * token, rows - 16 * tile, place)
