"""How activations stand in memory: in stored column order, rounded to int8 with a scale per token and group.

That is one block of memory. Where they are rounded: int8 codes by group, then token, each group padded with zeros to
whole blocks of 32; float32 scales by group, then token; what the codes add up to, as `total_pair`, likewise. Then, in
exact mode or where some cell has width 16, float32 values by group, then token.

Codes of tokens that are multiplied together, a panel, are interleaved: four inputs of the first token, of the second
one, and so on, then the next four of each. All that an instruction may want next is a constant distance away then.
"""

from __future__ import annotations

from numba import int32

from nash_swarm.compiling import njit
from nash_swarm.quantizers.runtime.cpu import descriptor as d
from nash_swarm.quantizers.runtime.cpu.simd.integers import FEW, FEWER, PAIR_BITS
from nash_swarm.quantizers.runtime.cpu.simd.vectors import load_long

SMALLEST = 2.0**-100
"""A group whose largest magnitude is below this is zero: the inverse of its scale might overflow."""


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
