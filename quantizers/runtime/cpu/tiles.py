"""Kernel body: packed tiles times activations.

A tile's groups are taken in stored order, widest first, and their contributions added in that order, so the result does
not depend on how tokens are batched. For one or two tokens the number of groups of each width is read beforehand, and
nothing in the loop over them asks for a width: where the loop ends the processor guesses wrong, but finds out early.
Which widths a matrix has at all is asked for at every tile, and guessed right.
"""

from __future__ import annotations

from typing import Any

from numba import int32, literally

from nash_swarm.compiling import njit
from nash_swarm.quantizers.formats.native.layout import HALF
from nash_swarm.quantizers.runtime.cpu import descriptor as d
from nash_swarm.quantizers.runtime.cpu.activations import cut, scales_at, totals_at, values_at
from nash_swarm.quantizers.runtime.cpu.entries import LARGE, MOST_BITS
from nash_swarm.quantizers.runtime.cpu.simd.entries import codes_at, first_codes, place_shifts, zeros_at
from nash_swarm.quantizers.runtime.cpu.simd.floats import add_products, scales_of, store_levels
from nash_swarm.quantizers.runtime.cpu.simd.integers import add_few_tokens, add_tokens, unpack_group
from nash_swarm.quantizers.runtime.cpu.simd.vectors import (
    float_bits,
    load_bytes,
    load_float,
    load_floats,
    load_int,
    load_long,
    prefetch,
    prefetch_to_stay,
    splat_float,
    store_float,
    store_floats,
    zero_ints,
)
from nash_swarm.quantizers.runtime.cpu.tuning import ENTRIES_AHEAD, STREAM, TILES_AHEAD, TOUCHED

WIDTH_MASK = 31


@njit(error_model="numpy")
def _write(values: int, rows: int, out: int) -> None:
    """Sixteen outputs of one token, less the padding of the last tile."""
    if rows >= 16:
        store_floats(out, load_floats(values))
    else:
        for n in range(rows):
            store_float(out + 4 * n, load_float(values + 4 * n))


@njit(inline="always")
def _prefetch_tables(matrix: int, tile: int) -> None:
    """Ask for what later tiles are looked up in."""
    prefetch_to_stay(load_long(matrix + d.WINDOWS) + 16 * (tile + TILES_AHEAD))
    prefetch_to_stay(load_long(matrix + d.TILES) + 16 * (tile + TILES_AHEAD))
    stride = load_long(matrix + d.CELLS_STRIDE)
    cells = load_long(matrix + d.CELLS) + stride * (tile + 1)
    for line in range(0, stride, 64):
        prefetch_to_stay(cells + line)
    prefetch_to_stay(load_long(matrix + d.ENDS) + load_long(matrix + d.ENDS_STRIDE) * (tile + 2))


@njit(error_model="numpy")
def _few_tokens(
    path: int, lanes: int, tabled: int, bits: int, count: int, matrix: int, tile: int, cell: int, entry: int, at: int,
    activations: int, tokens: int, start: int, sums: int,
) -> int:  # fmt: skip
    """Add `count` groups of one width to the sums of one or two tokens; the address behind their codes.

    cell, entry, at: addresses of the first group's. Compiled once for every path, lanes, tabled and bits: written into
    its callers it took three times as long.
    """
    path, lanes, tabled, bits = literally(path), literally(lanes), literally(tabled), literally(bits)
    groups, group_size = load_long(matrix + d.GROUPS), load_long(matrix + d.GROUP_SIZE)
    table, levels = load_long(matrix + d.SCALE_TABLE), load_long(matrix + d.LEVELS)
    size = load_long(matrix + d.SMALL) if bits <= MOST_BITS else LARGE
    windows = load_long(matrix + d.WINDOWS) + 16 * tile
    firsts, shifts = first_codes(tabled, bits, windows), place_shifts(windows)
    last, whole = groups - 1, group_size // 32
    _, _, rest = cut(load_long(matrix + d.COLUMNS), group_size, last)
    width, stride = groups * group_size * tokens, STREAM // (2 * bits) * tokens
    if width > TOUCHED:
        width = 0
    steps = scales_at(matrix, activations, tokens) + 4 * start
    totals = totals_at(matrix, activations, tokens) + 4 * start
    for _ in range(count):
        group = load_int(cell) >> d.WIDTH_BITS
        blocks = rest if group == last else whole
        prefetch(entry + ENTRIES_AHEAD)
        if size == LARGE:
            zeros, scales = load_bytes(entry), scales_of(path, table, load_bytes(entry + 16))
        else:
            zeros, scales = zeros_at(tabled, bits, entry), scales_of(path, table, codes_at(entry, firsts, shifts))
        inputs = activations + group * group_size * tokens + 32 * blocks * start
        later, end_of_turn = inputs + stride, inputs + width
        while later < end_of_turn:
            prefetch_to_stay(later if later < activations + width else later - width)
            later += stride
        index = 4 * group * tokens
        add_few_tokens(
            path, lanes, tabled, bits, at, blocks, levels, zeros, scales, inputs, steps + index, totals + index, sums
        )
        cell += 4
        entry += size
        at += 64 * bits * blocks
    return at


def _adder(bits: int, end: int) -> Any:
    """What adds a tile's groups of one width, if its matrix has any.

    end: where `ends` has their last one. The function returns where the next width's begin: the address of an entry and
    of codes, and how many groups are done.
    """

    @njit(inline="always")
    def add(
        path: int, lanes: int, tabled: int, matrix: int, tile: int, cell: int, entry: int, at: int, done: int,
        activations: int, tokens: int, start: int, sums: int,
    ) -> tuple[int, int, int]:  # fmt: skip
        if load_long(matrix + d.PRESENT) & (1 << bits):
            ends = load_long(matrix + d.ENDS) + load_long(matrix + d.ENDS_STRIDE) * tile
            count = load_int(ends + end) - done
            at = _few_tokens(
                path, lanes, tabled, bits, count, matrix, tile, cell + 4 * done, entry, at, activations, tokens, start,
                sums,
            )  # fmt: skip
            entry += (load_long(matrix + d.SMALL) if bits <= MOST_BITS else LARGE) * count
            done += count
        return entry, at, done

    return add


_add_8, _add_6, _add_5 = _adder(8, d.END_8), _adder(6, d.END_6), _adder(5, d.END_5)
_add_4, _add_3, _add_2 = _adder(4, d.END_4), _adder(3, d.END_3), _adder(2, d.END_2)


@njit(inline="always")
def _few_tokens_of_any_width(
    path: int, lanes: int, tabled: int, matrix: int, tile: int, cell: int, entry: int, at: int, activations: int,
    tokens: int, start: int, sums: int,
) -> None:  # fmt: skip
    """All widths in stored order; levels of 8 and 6 bits are even."""
    done = load_int(load_long(matrix + d.ENDS) + load_long(matrix + d.ENDS_STRIDE) * tile + d.END_16)
    entry, at, done = _add_8(path, lanes, 0, matrix, tile, cell, entry, at, done, activations, tokens, start, sums)
    entry, at, done = _add_6(path, lanes, 0, matrix, tile, cell, entry, at, done, activations, tokens, start, sums)
    entry, at, done = _add_5(path, lanes, tabled, matrix, tile, cell, entry, at, done, activations, tokens, start, sums)
    entry, at, done = _add_4(path, lanes, tabled, matrix, tile, cell, entry, at, done, activations, tokens, start, sums)
    entry, at, done = _add_3(path, lanes, tabled, matrix, tile, cell, entry, at, done, activations, tokens, start, sums)
    _add_2(path, lanes, tabled, matrix, tile, cell, entry, at, done, activations, tokens, start, sums)


@njit(inline="always")
def multiply(
    path: int, exact: int, lanes: int, float_lanes: int, matrix: int, activations: int, out: int, work: int,
    tokens: int, chunk: int, first: int, past: int,
) -> None:  # fmt: skip
    """Rows of tiles `first:past` of out, float32 (tokens, rows), `chunk` tokens at a time."""
    codes, tiles = load_long(matrix + d.CODES), load_long(matrix + d.TILES)
    cells, cells_stride = load_long(matrix + d.CELLS), load_long(matrix + d.CELLS_STRIDE)
    ends, ends_stride = load_long(matrix + d.ENDS), load_long(matrix + d.ENDS_STRIDE)
    entries, small = load_long(matrix + d.ENTRIES), load_long(matrix + d.SMALL)
    windows = load_long(matrix + d.WINDOWS)
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
            at = codes + load_long(tiles + 16 * tile)
            entry = entries + load_long(tiles + 16 * tile + 8)
            window = windows + 16 * tile
            shifts = place_shifts(window)
            cell = cells + cells_stride * tile
            first_cell = cell
            _prefetch_tables(matrix, tile)
            few = exact == 0 and count <= 2
            others = load_int(ends + ends_stride * tile + d.END_16) if few else groups
            for _ in range(others):
                bits = load_int(cell) & WIDTH_MASK
                group = load_int(cell) >> d.WIDTH_BITS
                cell += 4
                column, _, blocks = cut(columns, group_size, group)
                prefetch(entry + ENTRIES_AHEAD)
                zeros, scales = zero_ints(), one
                if bits != HALF and (bits > MOST_BITS or small == LARGE):
                    zeros, scales = load_bytes(entry), scales_of(path, table, load_bytes(entry + 16))
                    entry += LARGE
                elif bits != HALF:
                    if levels == 0:
                        zeros, firsts = zeros_at(0, bits, entry), first_codes(0, bits, window)
                    else:
                        zeros, firsts = zeros_at(1, bits, entry), first_codes(1, bits, window)
                    scales = scales_of(path, table, codes_at(entry, firsts, shifts))
                    entry += small
                inputs = column * tokens + 32 * blocks * start
                index = 4 * (group * tokens + start)
                if exact or bits == HALF:
                    if levels == 0:
                        store_levels(path, 0, bits, at, blocks, levels, zeros, work)
                    else:
                        store_levels(path, 1, bits, at, blocks, levels, zeros, work)
                    add_products(float_lanes, work, blocks, scales, values + 4 * inputs, sums, count)
                else:
                    block, most_bits = at, bits
                    if bits < 8:
                        block = work
                        if levels == 0:
                            unpack_group(path, 0, bits, at, blocks, levels, work)
                        else:
                            unpack_group(path, 1, bits, at, blocks, levels, work)
                            # as `simd.codebooks.most_bits`: of 6 bits levels are even
                            most_bits = bits if bits == 6 else 8
                    add_tokens(
                        path, lanes, most_bits, block, blocks, zeros, scales, activations + inputs, steps + index,
                        totals + index, sums, count,
                    )  # fmt: skip
                at += 64 * bits * blocks
            if few and count == 1 and levels == 0:
                _few_tokens_of_any_width(
                    path, 1, 0, matrix, tile, first_cell, entry, at, activations, tokens, start, sums
                )
            elif few and count == 1:
                _few_tokens_of_any_width(
                    path, 1, 1, matrix, tile, first_cell, entry, at, activations, tokens, start, sums
                )
            elif few and levels == 0:
                _few_tokens_of_any_width(
                    path, 2, 0, matrix, tile, first_cell, entry, at, activations, tokens, start, sums
                )
            elif few:
                _few_tokens_of_any_width(
                    path, 2, 1, matrix, tile, first_cell, entry, at, activations, tokens, start, sums
                )
            for token in range(count):
                place = out + 4 * ((start + token) * rows + 16 * tile)
                _write(sums + 64 * token, rows - 16 * tile, place)
