"""Kernel body: packed tiles times activations.

A tile's groups are taken in stored order, widest first, and their contributions added in that order, so the branches
below go the same way many times in a row and the result does not depend on how tokens are batched.
"""

from __future__ import annotations

from numba import int32, njit

from nash_swarm.quantizers.kernels import descriptor as d
from nash_swarm.quantizers.kernels.activations import scales_at, totals_at, values_at
from nash_swarm.quantizers.kernels.simd.floats import (
    add_products,
    finish_products,
    finish_sums,
    load_scales,
    start_products,
    store_levels,
)
from nash_swarm.quantizers.kernels.simd.integers import (
    add_dots,
    prefetch_block,
    start_sums,
    store_block,
    unpack_block,
)
from nash_swarm.quantizers.kernels.simd.vectors import (
    float_bits,
    load_bytes,
    load_float,
    load_floats,
    load_int,
    load_long,
    splat_float,
    store_float,
    store_floats,
)

WIDTH_MASK = 31


@njit(inline="always")
def _dots(path: int, bits: int, at: int, blocks: int, zeros: object, inputs: int, totals: int) -> object:
    """One token with a packed group, codes unpacked in registers."""
    sums = start_sums(1, zeros, totals)
    for _ in range(blocks):
        prefetch_block(bits, at)
        sums = add_dots(path, bits, sums, unpack_block(bits, at), inputs, 0)
        at += 64 * bits
        inputs += 32
    return sums


@njit(inline="always")
def _one_token(path: int, bits: int, at: int, blocks: int, zeros: object, inputs: int, totals: int) -> object:
    if bits == 4:
        return _dots(path, 4, at, blocks, zeros, inputs, totals)
    if bits == 3:
        return _dots(path, 3, at, blocks, zeros, inputs, totals)
    if bits == 2:
        return _dots(path, 2, at, blocks, zeros, inputs, totals)
    if bits == 5:
        return _dots(path, 5, at, blocks, zeros, inputs, totals)
    if bits == 6:
        return _dots(path, 6, at, blocks, zeros, inputs, totals)
    return _dots(path, 8, at, blocks, zeros, inputs, totals)


@njit(inline="always")
def _unpack(bits: int, at: int, blocks: int, out: int) -> None:
    """The codes of a group as blocks of width 8."""
    for _ in range(blocks):
        prefetch_block(bits, at)
        store_block(out, unpack_block(bits, at))
        at += 64 * bits
        out += 512


@njit(inline="always")
def _unpacked(bits: int, at: int, blocks: int, room: int) -> int:
    """Address of the group's codes as blocks of width 8: where they are, or `room`."""
    if bits == 8:
        return at
    if bits == 4:
        _unpack(4, at, blocks, room)
    elif bits == 3:
        _unpack(3, at, blocks, room)
    elif bits == 2:
        _unpack(2, at, blocks, room)
    elif bits == 5:
        _unpack(5, at, blocks, room)
    else:
        _unpack(6, at, blocks, room)
    return room


@njit(inline="always")
def _some_tokens(
    path: int, most_bits: int, lanes: int, first: int, past: int, codes: int, blocks: int, zeros: object,
    scales: object, inputs: int, steps: int, totals: int, out: int,
) -> int:  # fmt: skip
    """As many tokens from `first` on as `lanes` at a time go into `past`, with an unpacked group; where it stopped."""
    stride = 32 * blocks
    token = first
    while token + lanes <= past:
        sums = start_sums(lanes, zeros, totals + 4 * token)
        at, x = codes, inputs + stride * token
        for _ in range(blocks):
            sums = add_dots(path, most_bits, sums, unpack_block(8, at), x, stride)
            at += 512
            x += 32
        finish_sums(sums, scales, steps + 4 * token, out + 64 * token)
        token += lanes
    return token


@njit(inline="always")
def _all_tokens(
    path: int, most_bits: int, lanes: int, count: int, codes: int, blocks: int, zeros: object, scales: object,
    inputs: int, steps: int, totals: int, out: int,
) -> None:  # fmt: skip
    done = _some_tokens(
        path, most_bits, lanes, 0, count, codes, blocks, zeros, scales, inputs, steps, totals, out
    )  # fmt: skip
    _some_tokens(path, most_bits, 1, done, count, codes, blocks, zeros, scales, inputs, steps, totals, out)


@njit(inline="always")
def _integers(
    path: int, lanes: int, bits: int, at: int, blocks: int, zeros: object, scales: object, inputs: int, steps: int,
    totals: int, count: int, room: int, out: int,
) -> None:  # fmt: skip
    """Add a group's contribution to the sixteen outputs of `count` tokens."""
    if count == 1:
        finish_sums(_one_token(path, bits, at, blocks, zeros, inputs, totals), scales, steps, out)
        return
    codes = _unpacked(bits, at, blocks, room)
    if bits <= 4:
        _all_tokens(path, 4, lanes, count, codes, blocks, zeros, scales, inputs, steps, totals, out)
    elif bits <= 6:
        _all_tokens(path, 6, lanes, count, codes, blocks, zeros, scales, inputs, steps, totals, out)
    else:
        _all_tokens(path, 8, lanes, count, codes, blocks, zeros, scales, inputs, steps, totals, out)


@njit(inline="always")
def _store_levels(bits: int, at: int, blocks: int, zeros: object, out: int) -> None:
    for _ in range(blocks):
        store_levels(bits, at, zeros, out)
        at += 64 * bits
        out += 2048


@njit(inline="always")
def _levels(bits: int, at: int, blocks: int, zeros: object, out: int) -> None:
    """A group's codes less its zero-points, as floats."""
    if bits == 4:
        _store_levels(4, at, blocks, zeros, out)
    elif bits == 3:
        _store_levels(3, at, blocks, zeros, out)
    elif bits == 2:
        _store_levels(2, at, blocks, zeros, out)
    elif bits == 5:
        _store_levels(5, at, blocks, zeros, out)
    elif bits == 6:
        _store_levels(6, at, blocks, zeros, out)
    else:
        _store_levels(8, at, blocks, zeros, out)


@njit(inline="always")
def _some_products(
    lanes: int, first: int, past: int, levels: int, blocks: int, scales: object, inputs: int, out: int
) -> int:
    stride = 128 * blocks
    token = first
    while token + lanes <= past:
        products = start_products(lanes)
        at, x = levels, inputs + stride * token
        for _ in range(blocks):
            products = add_products(products, at, x, stride)
            at += 2048
            x += 128
        finish_products(products, scales, out + 64 * token)
        token += lanes
    return token


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
            for _ in range(groups):
                bits = load_int(cell) & WIDTH_MASK
                group = load_int(cell) >> d.WIDTH_BITS
                cell += 4
                blocks = (min(group_size, columns - group * group_size) + 31) // 32
                place = 16 * (tile * groups + group)
                zeros, scales = load_bytes(zero_points + place), load_scales(path, table, scale_codes + place)
                inputs = group * group_size * tokens + 32 * blocks * start
                index = 4 * (group * tokens + start)
                if exact or bits == 16:
                    if bits == 16:
                        _store_levels(16, at, blocks, zeros, work)
                        scales = one
                    else:
                        _levels(bits, at, blocks, zeros, work)
                    x = values + 4 * inputs
                    done = _some_products(float_lanes, 0, count, work, blocks, scales, x, sums)
                    _some_products(1, done, count, work, blocks, scales, x, sums)
                else:
                    _integers(
                        path, lanes, bits, at, blocks, zeros, scales, activations + inputs, steps + index,
                        totals + index, count, work, sums,
                    )  # fmt: skip
                at += 64 * bits * blocks
            for token in range(count):
                place = out + 4 * ((start + token) * rows + 16 * tile)
                _write(sums + 64 * token, rows - 16 * tile, place)
