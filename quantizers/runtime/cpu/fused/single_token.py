"""What stands between the products while text is generated, for one token: norm, gate, rotation, attention.

Every kernel takes addresses of float32 and sizes in elements, and releases the GIL; whoever calls has checked that the
memory is there. Sizes that are called vectors are multiples of 16.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import pi, sqrt
from typing import Any

from numba import float32

from nash_swarm.compiling import njit
from nash_swarm.quantizers.runtime.cpu.fingerprint import fingerprint
from nash_swarm.quantizers.runtime.cpu.simd.functions import (
    divide_floats,
    exponentials,
    larger_floats,
    largest_float,
    subtract_floats,
    sum_floats,
)
from nash_swarm.quantizers.runtime.cpu.simd.vectors import (
    add_floats,
    load_float,
    load_floats,
    multiply_floats,
    splat_float,
    store_float,
    store_floats,
)

LANES = 16
"""What sizes are multiples of."""
SILU, GELU_TANH, GELU = range(3)
"""Activations."""
_ERFC = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
_FAR = -3.0e38


@dataclass(frozen=True)
class SingleToken:
    """The compiled kernels.

    Attributes:
        norm: `norm(x, weight, out, tokens, size, epsilon)`: root-mean-square norm of x (tokens, size) times weight
            (size,); size is a vector.
        gate: `gate(values, factors, out, size, kind)`: activation of values, `SILU` or another one, times factors;
            size is a vector.
        rotate: `rotate(x, cosines, sines, heads, size, rotary)`: see `rotate_body`.
        attend: `attend(queries, keys, values, out, scores, heads, group, tokens, size, key_head, key_token, value_head,
            value_token, scale)`: softmax(queries keys^T * scale) values for `group` query heads of each of `heads` key
            heads. queries, out (heads * group, size); keys and values (heads, tokens, size) with these strides, in
            elements; scores: room for `attention_room(group, tokens)` values; size is a vector.
    """

    norm: Callable[[int, int, int, int, int, float], None]
    gate: Callable[[int, int, int, int, int], None]
    rotate: Callable[[int, int, int, int, int, int], None]
    attend: Callable[[int, int, int, int, int, int, int, int, int, int, int, int, int, float], None]


def attention_room(group: int, tokens: int) -> int:
    """Elements of room that `attend` needs."""
    return group * -(-tokens // LANES) * LANES


@njit(inline="always")
def norm_body(x: int, weight: int, out: int, tokens: int, size: int, epsilon: float) -> None:
    """See `SingleToken.norm`."""
    for token in range(tokens):
        row, target = x + 4 * size * token, out + 4 * size * token
        sums = splat_float(float32(0))
        for k in range(0, size, LANES):
            values = load_floats(row + 4 * k)
            sums = add_floats(sums, multiply_floats(values, values))
        mean = sum_floats(sums) / float32(size)
        factor = splat_float(float32(1) / float32(sqrt(mean + float32(epsilon))))
        for k in range(0, size, LANES):
            scaled = multiply_floats(load_floats(row + 4 * k), factor)
            store_floats(target + 4 * k, multiply_floats(load_floats(weight + 4 * k), scaled))


@njit(inline="always")
def gate_body(values: int, factors: int, out: int, size: int, kind: int) -> None:
    """See `SingleToken.gate`."""
    one, minus = splat_float(float32(1)), splat_float(float32(-1))
    if kind == SILU:
        for k in range(0, size, LANES):
            value = load_floats(values + 4 * k)
            below = add_floats(one, exponentials(multiply_floats(value, minus)))
            store_floats(out + 4 * k, multiply_floats(divide_floats(value, below), load_floats(factors + 4 * k)))
    elif kind == GELU_TANH:
        # x (1 + tanh(u)) / 2 = x / (1 + exp(-2 u))
        bend, cubic = splat_float(float32(-2 * sqrt(2 / pi))), splat_float(float32(0.044715))
        for k in range(0, size, LANES):
            value = load_floats(values + 4 * k)
            square = multiply_floats(value, value)
            inner = multiply_floats(value, add_floats(one, multiply_floats(cubic, square)))
            below = add_floats(one, exponentials(multiply_floats(bend, inner)))
            store_floats(out + 4 * k, multiply_floats(divide_floats(value, below), load_floats(factors + 4 * k)))
    else:
        # x Phi(x) = max(x, 0) - |x| erfc(|x| / sqrt 2) / 2; erfc after Abramowitz and Stegun 7.1.26, to 2e-7
        root, rate = splat_float(float32(sqrt(0.5))), splat_float(float32(0.3275911))
        zero, half = splat_float(float32(0)), splat_float(float32(0.5))
        for k in range(0, size, LANES):
            value = load_floats(values + 4 * k)
            far = larger_floats(value, multiply_floats(value, minus))
            scaled = multiply_floats(far, root)
            t = divide_floats(one, add_floats(one, multiply_floats(rate, scaled)))
            power = splat_float(float32(_ERFC[4]))
            power = add_floats(multiply_floats(power, t), splat_float(float32(_ERFC[3])))
            power = add_floats(multiply_floats(power, t), splat_float(float32(_ERFC[2])))
            power = add_floats(multiply_floats(power, t), splat_float(float32(_ERFC[1])))
            power = add_floats(multiply_floats(power, t), splat_float(float32(_ERFC[0])))
            tail = exponentials(multiply_floats(multiply_floats(scaled, scaled), minus))
            tail = multiply_floats(multiply_floats(multiply_floats(power, t), tail), half)
            gated = subtract_floats(larger_floats(value, zero), multiply_floats(far, tail))
            store_floats(out + 4 * k, multiply_floats(gated, load_floats(factors + 4 * k)))


@njit(inline="always")
def rotate_body(x: int, cosines: int, sines: int, heads: int, size: int, rotary: int) -> None:
    """Rotary position embedding (Su et al. 2021) in place, x (heads, size), of the first `rotary` elements of a head,
    in pairs half of them apart; half of `rotary` is a vector."""
    half = 2 * rotary  # in bytes
    for head in range(heads):
        row = x + 4 * size * head
        for k in range(0, half, 4 * LANES):
            low, high = load_floats(row + k), load_floats(row + half + k)
            left, right = multiply_floats(low, load_floats(cosines + k)), multiply_floats(high, load_floats(sines + k))
            store_floats(row + k, subtract_floats(left, right))
            left = multiply_floats(high, load_floats(cosines + half + k))
            right = multiply_floats(low, load_floats(sines + half + k))
            store_floats(row + half + k, add_floats(left, right))


@njit(inline="always")
def attend_body(
    queries: int, keys: int, values: int, out: int, scores: int, heads: int, group: int, tokens: int, size: int,
    key_head: int, key_token: int, value_head: int, value_token: int, scale: float,
) -> None:  # fmt: skip
    """See `SingleToken.attend`."""
    padded = (tokens + LANES - 1) // LANES * LANES
    for head in range(heads):
        first = head * group
        for token in range(tokens):
            key = keys + 4 * (key_head * head + key_token * token)
            for member in range(group):
                query = queries + 4 * size * (first + member)
                sums = splat_float(float32(0))
                for k in range(0, 4 * size, 4 * LANES):
                    sums = add_floats(sums, multiply_floats(load_floats(query + k), load_floats(key + k)))
                store_float(scores + 4 * (member * padded + token), sum_floats(sums) * float32(scale))
        for member in range(group):
            row = scores + 4 * member * padded
            for token in range(tokens, padded):
                store_float(row + 4 * token, float32(_FAR))
            top = load_floats(row)
            for token in range(0, padded, LANES):
                top = larger_floats(load_floats(row + 4 * token), top)
            largest = splat_float(largest_float(top))
            sums = splat_float(float32(0))
            for token in range(0, padded, LANES):
                share = exponentials(subtract_floats(load_floats(row + 4 * token), largest))
                store_floats(row + 4 * token, share)
                sums = add_floats(sums, share)
            inverse = splat_float(float32(1) / sum_floats(sums))
            target = out + 4 * size * (first + member)
            for k in range(0, 4 * size, 4 * LANES):
                mixed = splat_float(float32(0))
                value = values + 4 * value_head * head + k
                for token in range(tokens):
                    share = splat_float(load_float(row + 4 * token))
                    mixed = add_floats(mixed, multiply_floats(share, load_floats(value)))
                    value += 4 * value_token
                store_floats(target + k, multiply_floats(mixed, inverse))


@cache
def kernels() -> SingleToken:
    """Compiled now if they are not yet."""
    return _compile(fingerprint())


def _compile(source: int) -> SingleToken:
    # the constant is a cell of the closures, which Numba's disk cache tells apart
    def compiled(integers: int, floats: int) -> Any:
        kinds = ["int64"] * integers + ["float32"] * floats
        return njit(f"void({', '.join(kinds)})", nogil=True, cache=True, error_model="numpy")

    @compiled(5, 1)
    def norm(x: int, weight: int, out: int, tokens: int, size: int, epsilon: float) -> None:
        _ = source
        norm_body(x, weight, out, tokens, size, epsilon)

    @compiled(5, 0)
    def gate(values: int, factors: int, out: int, size: int, kind: int) -> None:
        _ = source
        gate_body(values, factors, out, size, kind)

    @compiled(6, 0)
    def rotate(x: int, cosines: int, sines: int, heads: int, size: int, rotary: int) -> None:
        _ = source
        rotate_body(x, cosines, sines, heads, size, rotary)

    @compiled(13, 1)
    def attend(
        queries: int, keys: int, values: int, out: int, scores: int, heads: int, group: int, tokens: int, size: int,
        key_head: int, key_token: int, value_head: int, value_token: int, scale: float,
    ) -> None:  # fmt: skip
        _ = source
        attend_body(
            queries, keys, values, out, scores, heads, group, tokens, size, key_head, key_token, value_head,
            value_token, scale,
        )  # fmt: skip

    return SingleToken(norm, gate, rotate, attend)
