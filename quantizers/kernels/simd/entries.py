"""What the bytes of small entries say, see `kernels.entries`."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from nash_swarm.quantizers.kernels.simd import emit
from nash_swarm.quantizers.kernels.simd.vectors import INTS
from nash_swarm.quantizers.scale_windows import COARSE, LAST


@intrinsic
def first_codes(typing: Any, windows: Any, offset: Any) -> Any:
    """First scale codes of a width's windows, `offset` behind those of the rows, whose bytes stand at `windows`."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        lowest = builder.and_(_bytes(builder, args[0]), emit.constant(emit.INTS, LAST - 1))
        return builder.add(lowest, emit.splat(builder, builder.trunc(args[1], emit.INT)))

    return INTS(types.int64, types.int64), generate


@intrinsic
def place_shifts(typing: Any, windows: Any) -> Any:
    """By how many bits a place is shifted to steps of its row's window."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        coarse = builder.and_(_bytes(builder, args[0]), emit.constant(emit.INTS, 1))
        return builder.mul(coarse, emit.constant(emit.INTS, COARSE.bit_length() - 1))

    return INTS(types.int64), generate


@intrinsic
def codes_at(typing: Any, entry: Any, first: Any, shifts: Any) -> Any:
    """Scale codes of a small entry; first, shifts: of `first_codes` and `place_shifts`."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        places = builder.lshr(_bytes(builder, args[0]), emit.constant(emit.INTS, 4))
        codes = builder.add(args[1], builder.shl(places, args[2]))
        last = emit.constant(emit.INTS, LAST)
        return builder.select(builder.icmp_unsigned("<", codes, last), codes, last)

    return INTS(types.int64, INTS, INTS), generate


@intrinsic
def zeros_at(typing: Any, entry: Any, first: Any, step: Any) -> Any:
    """Levels of a small entry's zero-points: `first` that of zero-point 0, `step` from one to the next."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        first_, step_ = (emit.splat(builder, builder.trunc(value, emit.INT)) for value in args[1:])
        zeros = builder.and_(_bytes(builder, args[0]), emit.constant(emit.INTS, 15))
        return builder.add(first_, builder.mul(zeros, step_))

    return INTS(types.int64, types.int64, types.int64), generate


def _bytes(builder: ir.IRBuilder, address: ir.Value) -> ir.Value:
    return builder.zext(emit.load(builder, address, emit.vector(emit.BYTE)), emit.INTS)
