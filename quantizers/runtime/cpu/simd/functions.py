"""What single-token kernels do with vectors beyond products: exponentials, divisions, and reductions across lanes.

As everywhere here, operations come in one stated order and none are fused: results are the same bits on every CPU.
"""

# ruff: noqa: D103
from __future__ import annotations

import math
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from nash_swarm.quantizers.runtime.cpu.simd import emit
from nash_swarm.quantizers.runtime.cpu.simd.vectors import FLOATS

LOWEST, HIGHEST = -87.33654, 88.37626
"""Between them `exponentials` returns normal numbers; below it returns 0, above it infinity."""
LOG2_E, LN2_HIGH, LN2_LOW = 1.44269504088896341, 0.693359375, -2.12194440e-4
POLYNOMIAL = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
"""Of exp(r) = 1 + r + r^2 * p(r) for |r| <= ln(2)/2, highest power first (Moshier, Cephes, `expf`)."""
SHIFT, SHIFT_BITS = 12582912.0, 0x4B400000
"""Adding 1.5 * 2**23 rounds to the nearest integer and leaves it in the low bits."""


@intrinsic
def exponentials(typing: Any, values: Any) -> Any:
    """exp, lane by lane, to about one unit in the last place; NaN stays NaN."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        def c(value: float) -> ir.Value:
            return emit.constant(emit.FLOATS, value)

        value = args[0]
        tiny = builder.fcmp_ordered("<", value, c(LOWEST))
        value = builder.select(tiny, c(LOWEST), value)
        huge = builder.fcmp_ordered(">", value, c(HIGHEST))
        value = builder.select(huge, c(HIGHEST), value)
        shifted = builder.fadd(builder.fmul(value, c(LOG2_E)), c(SHIFT))
        whole = builder.fsub(shifted, c(SHIFT))
        rest = builder.fsub(builder.fsub(value, builder.fmul(whole, c(LN2_HIGH))), builder.fmul(whole, c(LN2_LOW)))
        power = c(POLYNOMIAL[0])
        for coefficient in POLYNOMIAL[1:]:
            power = builder.fadd(builder.fmul(power, rest), c(coefficient))
        result = builder.fadd(builder.fadd(builder.fmul(power, builder.fmul(rest, rest)), rest), c(1.0))
        octave = builder.sub(builder.bitcast(shifted, emit.INTS), emit.constant(emit.INTS, SHIFT_BITS - 127))
        scale = builder.bitcast(builder.shl(octave, emit.constant(emit.INTS, 23)), emit.FLOATS)
        result = builder.select(huge, c(math.inf), builder.fmul(result, scale))
        return builder.select(tiny, c(0.0), result)

    return FLOATS(FLOATS), generate


@intrinsic
def subtract_floats(typing: Any, a: Any, b: Any) -> Any:
    return FLOATS(FLOATS, FLOATS), lambda context, builder, signature, args: builder.fsub(*args)


@intrinsic
def divide_floats(typing: Any, a: Any, b: Any) -> Any:
    return FLOATS(FLOATS, FLOATS), lambda context, builder, signature, args: builder.fdiv(*args)


def _larger(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def _across(combine: Any) -> Any:
    """Lane i with lane i + 8, then i + 4, i + 2, i + 1."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        value, count = args[0], emit.LANES
        while count > 1:
            count //= 2
            value = combine(
                builder, emit.pick(builder, value, range(count)), emit.pick(builder, value, range(count, 2 * count))
            )
        return builder.extract_element(value, ir.Constant(emit.INT, 0))

    return types.float32(FLOATS), generate


@intrinsic
def larger_floats(typing: Any, a: Any, b: Any) -> Any:
    """a where it is larger, else b."""
    return FLOATS(FLOATS, FLOATS), lambda context, builder, signature, args: _larger(builder, *args)


@intrinsic
def largest_float(typing: Any, value: Any) -> Any:
    return _across(_larger)


@intrinsic
def sum_floats(typing: Any, value: Any) -> Any:
    """Halves are added to halves: lane i + lane i + 8, and so on."""
    return _across(lambda builder, a, b: builder.fadd(a, b))
