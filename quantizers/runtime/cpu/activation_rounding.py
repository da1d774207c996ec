"""Kernel body: activations into stored column order, rounded to int8 with a scale per token and group."""

from __future__ import annotations

from numba import int32

from nash_swarm.compiling import njit
from nash_swarm.quantizers.runtime.cpu import descriptor as d
from nash_swarm.quantizers.runtime.cpu.activations import (
    SMALLEST,
    cut,
    panel,
    scales_at,
    total_pair,
    totals_at,
    values_at,
)
from nash_swarm.quantizers.runtime.cpu.simd.vectors import (
    add_ints,
    float_bits,
    gather_floats,
    larger_magnitude,
    largest_int,
    load_float,
    load_floats,
    load_int,
    load_long,
    multiply_floats,
    prefetch,
    prefetch_soon,
    round_to_ints,
    splat_float,
    store_bytes,
    store_float,
    store_floats,
    store_int,
    sum_ints,
    zero_ints,
)
from nash_swarm.quantizers.runtime.cpu.sixteen_tokens import TOKENS, round_sixteen
from nash_swarm.quantizers.runtime.cpu.tuning import UPCOMING


def rounding_bytes(columns: int, group_size: int, tokens: int) -> int:
    """Room that `quantize` needs for itself: of 16 float32 for each column of a group, or of all that there are."""
    return 64 * (columns if tokens >= TOKENS else group_size)


@njit(error_model="numpy")
def _gather(x: int, permutation: int, first: int, count: int, padded: int, out: int) -> None:
    """Stored columns `first` to `first + count` of the token at x, then zeros up to `padded`."""
    whole = count // 16 * 16
    if permutation == 0:
        for k in range(0, whole, 16):
            store_floats(out + 4 * k, load_floats(x + 4 * (first + k)))
        for k in range(whole, count):
            store_float(out + 4 * k, load_float(x + 4 * (first + k)))
    else:
        for k in range(0, whole, 16):
            store_floats(out + 4 * k, gather_floats(x, permutation + 4 * (first + k)))
        for k in range(whole, count):
            store_float(out + 4 * k, load_float(x + 4 * load_int(permutation + 4 * (first + k))))
    for k in range(count, padded):
        store_float(out + 4 * k, float_bits(int32(0)))


@njit(error_model="numpy")
def _round(values: int, padded: int, codes: int, scale: int, total: int) -> None:
    """One token's values of one group to int8; a NaN or infinity in it makes the scale NaN or infinite."""
    bits = zero_ints()
    for k in range(0, padded, 16):
        bits = larger_magnitude(bits, load_floats(values + 4 * k))
    largest = float_bits(largest_int(bits))
    inverse = float_bits(int32(0))
    if largest < SMALLEST:
        store_int(scale, int32(0))
    else:
        inverse = type(inverse)(127) / largest
        store_float(scale, largest / type(inverse)(127))
    factor = splat_float(inverse)
    sums = zero_ints()
    for k in range(0, padded, 16):
        rounded = round_to_ints(multiply_floats(load_floats(values + 4 * k), factor))
        store_bytes(codes + k, rounded)
        sums = add_ints(sums, rounded)
    store_int(total, total_pair(sum_ints(sums)))


@njit(error_model="numpy")
def _interleave(codes: int, tokens: int, padded: int, work: int) -> None:
    """One group's codes of a panel, token after token, in the order in which they are multiplied."""
    for at in range(0, tokens * padded, 64):
        store_floats(work + at, load_floats(codes + at))
    for at in range(0, padded, 4):
        for token in range(tokens):
            store_int(codes + at * tokens + 4 * token, int32(load_int(work + padded * token + at)))


@njit(error_model="numpy")
def quantize(
    exact: int, lanes: int, matrix: int, x: int, activations: int, work: int, tokens: int, upcoming: int,
    first_token: int, past_token: int,
) -> None:  # fmt: skip
    """Fill what the block at `activations` has of some tokens, from float32 x (tokens, columns).

    lanes: tokens that are multiplied together, 16 at most; work: `rounding_bytes`; upcoming: address of what is read
    next, for which the memory would wait; first_token: a multiple of 16; past_token: another one, or `tokens`.
    """
    groups, group_size = load_long(matrix + d.GROUPS), load_long(matrix + d.GROUP_SIZE)
    columns, permutation = load_long(matrix + d.COLUMNS), load_long(matrix + d.PERMUTATION)
    keep = exact or load_long(matrix + d.HALVES)
    scales, totals = scales_at(matrix, activations, tokens), totals_at(matrix, activations, tokens)
    values = values_at(exact, matrix, activations, tokens)
    start = first_token
    while start < past_token:
        if not keep and past_token - start >= TOKENS:
            round_sixteen(lanes, matrix, x, activations, tokens, start, work)
            start += TOKENS
            continue
        together = panel(lanes, start, tokens)
        for token in range(start, start + together):
            for group in range(groups):
                first, count, blocks = cut(columns, group_size, group)
                place = first * tokens + 32 * blocks * token
                target = values + 4 * place if keep else work
                if token == 0:
                    for line in range(UPCOMING * first, UPCOMING * (first + group_size), 64):
                        prefetch_soon(upcoming + line)
                # read in no order that the processor foresees
                for line in range(0, 4 * count, 64):
                    prefetch(x + 4 * (columns * (token + 1) + first) + line)
                _gather(x + 4 * columns * token, permutation, first, count, 32 * blocks, target)
                if not exact:
                    index = 4 * (group * tokens + token)
                    _round(target, 32 * blocks, activations + place, scales + index, totals + index)
        if not exact and together > 1:
            for group in range(groups):
                first, _, blocks = cut(columns, group_size, group)
                _interleave(activations + first * tokens + 32 * blocks * start, together, 32 * blocks, work)
        start += together
