"""Kernel body: activations into stored column order, rounded to int8 with a scale per token and group.

Activations stand in one block of memory. Where they are rounded: int8 codes by group, then token, each group padded
with zeros to whole blocks of 32; float32 scales by group, then token; what the codes add up to, as `total_pair`,
likewise. Then, in exact mode or where some cell has width 16, float32 values by group, then token.

Codes of tokens that are multiplied together, a panel, are interleaved: four inputs of the first token, of the second
one, and so on, then the next four of each. All that an instruction may want next is a constant distance away then.
"""

from __future__ import annotations

from numba import int32, njit

from nash_swarm.quantizers.kernels import descriptor as d
from nash_swarm.quantizers.kernels.simd.integers import FEW, FEWER, PAIR_BITS
from nash_swarm.quantizers.kernels.simd.vectors import (
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

SMALLEST = 2.0**-100
"""A group whose largest magnitude is below this is zero: the inverse of its scale might overflow."""
_UPCOMING = 16
"""Bytes that come from memory, and fit the second cache, while one input is rounded."""


def activation_bytes(columns: int, group_size: int, tokens: int, exact: bool, halves: bool) -> int:
    """Size of the block of memory that holds the activations of `tokens` tokens."""
    groups = -(-columns // group_size)
    codes = groups * group_size * tokens
    return codes * 4 if exact else codes + 8 * groups * tokens + (codes * 4 if halves else 0)


@njit(error_model="numpy")
def scales_at(matrix: int, activations: int, tokens: int) -> int:
    """Address of the activations' scales."""
    return activations + load_long(matrix + d.GROUPS) * load_long(matrix + d.GROUP_SIZE) * tokens


@njit(error_model="numpy")
def totals_at(matrix: int, activations: int, tokens: int) -> int:
    """Address of the sums of the activations' codes, see `total_pair`."""
    return scales_at(matrix, activations, tokens) + 4 * load_long(matrix + d.GROUPS) * tokens


@njit(error_model="numpy")
def values_at(exact: int, matrix: int, activations: int, tokens: int) -> int:
    """Address of the activations' float32 values."""
    if exact:
        return activations
    return scales_at(matrix, activations, tokens) + 8 * load_long(matrix + d.GROUPS) * tokens


@njit(error_model="numpy")
def panel(lanes: int, token: int, tokens: int) -> int:
    """How many tokens there are in the panel that begins with a token: `lanes` as long as there are so many.

    As `simd.integers.add_tokens` takes them. Tokens that are taken one or two at a time stand one after the other.
    """
    size = lanes if lanes > FEW else 1
    for few in FEWER:
        if size > tokens - token and size > few:
            size = few
    return size


@njit(error_model="numpy")
def cut(columns: int, group_size: int, group: int) -> tuple[int, int, int]:
    """A group's first column, how many it has, and how many blocks of 32 that are once it is padded."""
    first = group * group_size
    count = min(group_size, columns - first)
    return first, count, (count + 31) // 32


@njit(error_model="numpy")
def total_pair(total: int) -> int:
    """Minus a sum of int8 codes as two 16-bit numbers: its low seven bits, and above them the rest.

    A 16-bit product with (z, z * 128) is minus the sum times z: much cheaper than one of 32 bits.
    """
    return int32((-total & (2**PAIR_BITS - 1)) | (-total >> PAIR_BITS) << 16)


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
    exact: int, lanes: int, matrix: int, x: int, activations: int, work: int, tokens: int, upcoming: int
) -> None:
    """Fill the block at `activations` from float32 x (tokens, columns).

    lanes: tokens that are multiplied together, 16 at most; work: room of 16 bytes for each column of a group; upcoming:
    address of what is read next, for which the memory would wait.
    """
    groups, group_size = load_long(matrix + d.GROUPS), load_long(matrix + d.GROUP_SIZE)
    columns, permutation = load_long(matrix + d.COLUMNS), load_long(matrix + d.PERMUTATION)
    keep = exact or load_long(matrix + d.HALVES)
    scales, totals = scales_at(matrix, activations, tokens), totals_at(matrix, activations, tokens)
    values = values_at(exact, matrix, activations, tokens)
    start = 0
    while start < tokens:
        together = panel(lanes, start, tokens)
        for token in range(start, start + together):
            for group in range(groups):
                first, count, blocks = cut(columns, group_size, group)
                place = first * tokens + 32 * blocks * token
                target = values + 4 * place if keep else work
                if token == 0:
                    for line in range(_UPCOMING * first, _UPCOMING * (first + group_size), 64):
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
