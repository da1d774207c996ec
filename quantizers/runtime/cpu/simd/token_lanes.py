"""What rounds sixteen tokens at once, a lane each."""

# ruff: noqa: D103
from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from nash_swarm.quantizers.runtime.cpu.simd import emit
from nash_swarm.quantizers.runtime.cpu.simd.integers import FEW, PAIR_BITS
from nash_swarm.quantizers.runtime.cpu.simd.vectors import FLOATS, INTS

_PANELS = (16, 4, FEW)
"""Tokens that paths take at once, see `activations.panel`; `FEW` are taken one by one."""


@intrinsic
def transpose(typing: Any, rows: Any, stride: Any, out: Any) -> Any:
    """Sixteen values each of sixteen rows, `stride` bytes apart, to one column after the other at `out`."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        at, stride, out = args
        values = []
        for _ in range(emit.LANES):
            values.append(emit.load(builder, at, emit.FLOATS))
            at = builder.add(at, stride)
        # each step exchanges blocks of half as many rows and columns, off the diagonal of blocks twice as large
        size = emit.LANES
        while size > 1:
            size //= 2
            low = [n if not n & size else n - size + emit.LANES for n in range(emit.LANES)]
            high = [n + size if not n & size else n + emit.LANES for n in range(emit.LANES)]
            for n in range(emit.LANES):
                if not n & size:
                    first, second = values[n], values[n + size]
                    values[n] = builder.shuffle_vector(first, second, _lanes(low))
                    values[n + size] = builder.shuffle_vector(first, second, _lanes(high))
        for n, value in enumerate(values):
            emit.store(builder, emit.offset(builder, out, 4 * emit.LANES * n), value)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3), generate


def _lanes(numbers: list[int]) -> ir.Constant:
    return ir.Constant(emit.INTS, numbers)


@intrinsic
def float_lanes(typing: Any, bits: Any) -> Any:
    """The floats with these bits."""
    return FLOATS(INTS), lambda context, builder, signature, args: builder.bitcast(args[0], emit.FLOATS)


@intrinsic
def unless_below(typing: Any, values: Any, limit: Any, chosen: Any) -> Any:
    """`chosen`, but 0 where values are below the limit."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        values, limit, chosen = args
        below = builder.fcmp_ordered("<", values, emit.splat(builder, limit))
        return builder.select(below, emit.constant(emit.FLOATS, 0.0), chosen)

    return FLOATS(FLOATS, types.float32, FLOATS), generate


@intrinsic
def total_pairs(typing: Any, totals: Any) -> Any:
    """`activations.total_pair`, lane by lane."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        def c(value: int) -> ir.Value:
            return emit.constant(emit.INTS, value)

        minus = builder.sub(c(0), args[0])
        high = builder.shl(builder.ashr(minus, c(PAIR_BITS)), c(16))
        return builder.or_(builder.and_(minus, c(2**PAIR_BITS - 1)), high)

    return INTS(INTS), generate


@intrinsic
def store_ints(typing: Any, address: Any, value: Any) -> Any:
    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        emit.store(builder, *args)
        return context.get_dummy_value()

    return types.void(types.int64, INTS), generate


@intrinsic
def store_four_inputs(
    typing: Any, lanes: Any, out: Any, padded: Any, k: Any, a: Any, b: Any, c: Any, d: Any
) -> Any:  # fmt: skip
    """Sixteen tokens' int8 codes of inputs k to k + 3 of a group, where panels of `lanes` tokens have them.

    lanes: one of `_PANELS`. out: address of the first panel's codes of the group. padded: inputs of the group. a, b, c,
    d: codes, in the low bytes of the lanes.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        lanes, out, padded, k, *codes = args
        four = emit.constant(emit.INTS, 0)
        for n, code in enumerate(codes):
            byte = builder.and_(code, emit.constant(emit.INTS, 255))
            four = builder.or_(four, builder.shl(byte, emit.constant(emit.INTS, 8 * n)))
        for together in emit.cases(builder, lanes, _PANELS):
            size = together if together > FEW else 1
            for n in range(0, emit.LANES, size):
                place = builder.add(builder.mul(k, ir.Constant(emit.LONG, size)), out)
                place = builder.add(builder.mul(padded, ir.Constant(emit.LONG, n)), place)
                emit.store(builder, place, emit.pick(builder, four, range(n, n + size)))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4, *[INTS] * 4), generate
