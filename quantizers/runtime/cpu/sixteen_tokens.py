"""Kernel body: the activations of sixteen tokens rounded at once, a lane each.

The tokens' values are transposed first. A column is a vector then, wherever in the stored order it comes, so that
nothing is gathered; magnitudes and sums grow lane by lane and need not be reduced; and four columns' codes, a byte
each, are the codes of a panel as it has them.
"""

from __future__ import annotations

from typing import Any

from numba import float32

from nash_swarm.compiling import njit
from nash_swarm.quantizers.runtime.cpu import descriptor as d
from nash_swarm.quantizers.runtime.cpu.activations import SMALLEST, cut, scales_at, totals_at
from nash_swarm.quantizers.runtime.cpu.simd.functions import divide_floats
from nash_swarm.quantizers.runtime.cpu.simd.token_lanes import (
    float_lanes,
    store_four_inputs,
    store_ints,
    total_pairs,
    transpose,
    unless_below,
)
from nash_swarm.quantizers.runtime.cpu.simd.vectors import (
    add_ints,
    larger_magnitude,
    load_float,
    load_floats,
    load_int,
    load_long,
    multiply_floats,
    round_to_ints,
    splat_float,
    store_float,
    store_floats,
    zero_ints,
)

TOKENS = 16


@njit(error_model="numpy")
def _transpose(x: int, columns: int, work: int) -> None:
    whole = columns // 16 * 16
    for k in range(0, whole, 16):
        transpose(x + 4 * k, 4 * columns, work + 64 * k)
    for k in range(whole, columns):
        for token in range(TOKENS):
            store_float(work + 64 * k + 4 * token, load_float(x + 4 * (columns * token + k)))


@njit(error_model="numpy")
def _column(work: int, permutation: int, k: int) -> int:
    """Address of the values of stored column k."""
    return work + 64 * (k if permutation == 0 else load_int(permutation + 4 * k))


@njit(error_model="numpy")
def _rounded(work: int, permutation: int, k: int, past: int, factor: Any) -> Any:
    """Codes of stored column k, 0 if it is only padding."""
    codes = zero_ints()
    if k < past:
        codes = round_to_ints(multiply_floats(load_floats(_column(work, permutation, k)), factor))
    return codes


@njit(error_model="numpy")
def round_sixteen(lanes: int, matrix: int, x: int, activations: int, tokens: int, start: int, work: int) -> None:
    """Fill what the block at `activations` has of tokens `start` to `start + 16`, from float32 x (tokens, columns).

    lanes: as of `activations.panel`; work: room of 64 bytes a column.
    """
    columns, group_size = load_long(matrix + d.COLUMNS), load_long(matrix + d.GROUP_SIZE)
    groups, permutation = load_long(matrix + d.GROUPS), load_long(matrix + d.PERMUTATION)
    scales = scales_at(matrix, activations, tokens) + 4 * start
    totals = totals_at(matrix, activations, tokens) + 4 * start
    most = splat_float(float32(127))
    _transpose(x + 4 * columns * start, columns, work)
    for group in range(groups):
        first, count, blocks = cut(columns, group_size, group)
        bits = zero_ints()
        for k in range(first, first + count):
            bits = larger_magnitude(bits, load_floats(_column(work, permutation, k)))
        largest = float_lanes(bits)
        scale = unless_below(largest, float32(SMALLEST), divide_floats(largest, most))
        store_floats(scales + 4 * group * tokens, scale)
        factor = unless_below(largest, float32(SMALLEST), divide_floats(most, largest))
        codes = activations + first * tokens + 32 * blocks * start
        sums = zero_ints()
        for k in range(0, 32 * blocks, 4):
            one = _rounded(work, permutation, first + k, first + count, factor)
            two = _rounded(work, permutation, first + k + 1, first + count, factor)
            three = _rounded(work, permutation, first + k + 2, first + count, factor)
            four = _rounded(work, permutation, first + k + 3, first + count, factor)
            sums = add_ints(sums, add_ints(add_ints(one, two), add_ints(three, four)))
            store_four_inputs(lanes, codes, 32 * blocks, k, one, two, three, four)
        store_ints(totals + 4 * group * tokens, total_pairs(sums))
