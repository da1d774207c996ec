"""Kernel body: activations into stored column order, rounded to int8 with a scale per token and group.

Activations stand in one block of memory. Where they are rounded: int8 codes by group, then token, each group padded
with zeros to whole blocks of 32; float32 scales by group, then token; int32 sums of the codes likewise. Then, in exact
mode or where some cell has width 16, float32 values in the order of the codes.
"""

from __future__ import annotations

from numba import int32, njit

from nash_swarm.quantizers.kernels import descriptor as d
from nash_swarm.quantizers.kernels.simd.vectors import (
    add_ints,
    float_bits,
    larger_magnitude,
    largest_int,
    load_float,
    load_floats,
    load_int,
    load_long,
    multiply_floats,
    round_to_ints,
    splat_float,
    store_bytes,
    store_float,
    store_int,
    sum_ints,
    zero_ints,
)

SMALLEST = 2.0**-100
"""A group whose largest magnitude is below this is zero: the inverse of its scale might overflow."""


def activation_bytes(columns: int, group_size: int, tokens: int, exact: bool, halves: bool) -> int:
    """Size of the block of memory that holds the activations of `tokens` tokens."""
    groups = -(-columns // group_size)
    codes = groups * group_size * tokens
    return codes * 4 if exact else codes + 8 * groups * tokens + (codes * 4 if halves else 0)


@njit(inline="always")
def scales_at(matrix: int, activations: int, tokens: int) -> int:
    """Address of the activations' scales."""
    return activations + load_long(matrix + d.GROUPS) * load_long(matrix + d.GROUP_SIZE) * tokens


@njit(inline="always")
def totals_at(matrix: int, activations: int, tokens: int) -> int:
    """Address of the sums of the activations' codes."""
    return scales_at(matrix, activations, tokens) + 4 * load_long(matrix + d.GROUPS) * tokens


@njit(inline="always")
def values_at(exact: int, matrix: int, activations: int, tokens: int) -> int:
    """Address of the activations' float32 values."""
    if exact:
        return activations
    return scales_at(matrix, activations, tokens) + 8 * load_long(matrix + d.GROUPS) * tokens


@njit(inline="always")
def _gather(x: int, permutation: int, first: int, count: int, padded: int, out: int) -> None:
    """Stored columns `first` to `first + count` of the token at x, then zeros up to `padded`."""
    if permutation == 0:
        for k in range(count):
            store_float(out + 4 * k, load_float(x + 4 * (first + k)))
    else:
        for k in range(count):
            store_float(out + 4 * k, load_float(x + 4 * load_int(permutation + 4 * (first + k))))
    for k in range(count, padded):
        store_float(out + 4 * k, float_bits(int32(0)))


@njit(inline="always")
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
    store_int(total, sum_ints(sums))


@njit(inline="always")
def quantize(exact: int, matrix: int, x: int, activations: int, work: int, tokens: int) -> None:
    """Fill the block at `activations` from float32 x (tokens, columns); work: room for a group of float32 values."""
    groups, group_size = load_long(matrix + d.GROUPS), load_long(matrix + d.GROUP_SIZE)
    columns, permutation = load_long(matrix + d.COLUMNS), load_long(matrix + d.PERMUTATION)
    keep = exact or load_long(matrix + d.HALVES)
    scales, totals = scales_at(matrix, activations, tokens), totals_at(matrix, activations, tokens)
    values = values_at(exact, matrix, activations, tokens)
    for token in range(tokens):
        for group in range(groups):
            first = group * group_size
            count = min(group_size, columns - first)
            padded = (count + 31) // 32 * 32
            place = first * tokens + padded * token
            target = values + 4 * place if keep else work
            _gather(x + 4 * columns * token, permutation, first, count, padded, target)
            if not exact:
                index = 4 * (group * tokens + token)
                _round(target, padded, activations + place, scales + index, totals + index)
