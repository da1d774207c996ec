"""Vectors as values of Numba functions, and what kernels do with them and with raw addresses.

Addresses are int64 and need not be aligned. Nothing is fused or reordered, so results are the same bits on every CPU.
"""

# ruff: noqa: D103
from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

from nash_swarm.quantizers.runtime.cpu.simd import emit


class Vector(types.Type):
    """Sixteen 32-bit lanes."""

    def __init__(self, element: str) -> None:
        self.element = element
        super().__init__(name=f"{element}x{emit.LANES}")


@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    """A vector is held in a register."""

    def __init__(self, manager: Any, kind: Vector) -> None:
        super().__init__(manager, kind, emit.INTS if kind.element == "int" else emit.FLOATS)


INTS, FLOATS = Vector("int"), Vector("float")
_ADDRESS = types.int64


def _unary(result: Any, argument: Any, body: Any) -> Any:
    return result(argument), lambda context, builder, signature, args: body(builder, args[0])


def _stored(kind: Any, body: Any) -> Any:
    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        body(builder, *args)
        return context.get_dummy_value()

    return types.void(_ADDRESS, kind), generate


def _prefetched(locality: int) -> Any:
    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        emit.prefetch(builder, args[0], locality)
        return context.get_dummy_value()

    return types.void(_ADDRESS), generate


@intrinsic
def load_long(typing: Any, address: Any) -> Any:
    return _unary(types.int64, _ADDRESS, lambda b, a: emit.load(b, a, emit.LONG))


@intrinsic
def load_int(typing: Any, address: Any) -> Any:
    return _unary(types.int64, _ADDRESS, lambda b, a: b.sext(emit.load(b, a, emit.INT), emit.LONG))


@intrinsic
def load_float(typing: Any, address: Any) -> Any:
    return _unary(types.float32, _ADDRESS, lambda b, a: emit.load(b, a, emit.FLOAT))


@intrinsic
def store_int(typing: Any, address: Any, value: Any) -> Any:
    return _stored(types.int32, emit.store)


@intrinsic
def store_float(typing: Any, address: Any, value: Any) -> Any:
    return _stored(types.float32, emit.store)


@intrinsic
def float_bits(typing: Any, bits: Any) -> Any:
    """The float with these bits."""
    return _unary(types.float32, types.int32, lambda b, a: b.bitcast(a, emit.FLOAT))


@intrinsic
def prefetch(typing: Any, address: Any) -> Any:
    """Ask for the cache line of an address, which need not exist."""
    return _prefetched(emit.STREAMED)


@intrinsic
def prefetch_soon(typing: Any, address: Any) -> Any:
    """Ask for a line into the second cache: it is wanted soon, but there is more to come than the first one holds."""
    return _prefetched(emit.SECOND_CACHE)


@intrinsic
def prefetch_to_stay(typing: Any, address: Any) -> Any:
    """`prefetch` what is wanted again and again."""
    return _prefetched(emit.ALL_CACHES)


@intrinsic
def load_floats(typing: Any, address: Any) -> Any:
    return _unary(FLOATS, _ADDRESS, lambda b, a: emit.load(b, a, emit.FLOATS))


@intrinsic
def gather_floats(typing: Any, base: Any, indices: Any) -> Any:
    """Sixteen floats of the array at `base`, whose int32 numbers stand at address `indices`."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        # one by one: the instruction that gathers takes twice as long
        values = ir.Constant(emit.FLOATS, ir.Undefined)
        for lane in range(emit.LANES):
            index = builder.sext(emit.load(builder, emit.offset(builder, args[1], 4 * lane), emit.INT), emit.LONG)
            value = emit.load(builder, emit.element(builder, args[0], index, 4), emit.FLOAT)
            values = builder.insert_element(values, value, ir.Constant(emit.INT, lane))
        return values

    return FLOATS(_ADDRESS, _ADDRESS), generate


@intrinsic
def store_floats(typing: Any, address: Any, value: Any) -> Any:
    return _stored(FLOATS, emit.store)


@intrinsic
def load_bytes(typing: Any, address: Any) -> Any:
    """Sixteen bytes, one a lane."""
    return _unary(INTS, _ADDRESS, emit.load_bytes)


@intrinsic
def store_bytes(typing: Any, address: Any, value: Any) -> Any:
    """The low byte of every lane."""
    return _stored(INTS, lambda b, a, v: emit.store(b, a, b.trunc(v, emit.vector(emit.BYTE))))


@intrinsic
def zero_ints(typing: Any) -> Any:
    return INTS(), lambda context, builder, signature, args: emit.constant(emit.INTS, 0)


@intrinsic
def splat_float(typing: Any, value: Any) -> Any:
    return _unary(FLOATS, types.float32, emit.splat)


@intrinsic
def add_ints(typing: Any, a: Any, b: Any) -> Any:
    return INTS(INTS, INTS), lambda context, builder, signature, args: builder.add(*args)


@intrinsic
def add_floats(typing: Any, a: Any, b: Any) -> Any:
    return FLOATS(FLOATS, FLOATS), lambda context, builder, signature, args: builder.fadd(*args)


@intrinsic
def multiply_floats(typing: Any, a: Any, b: Any) -> Any:
    return FLOATS(FLOATS, FLOATS), lambda context, builder, signature, args: builder.fmul(*args)


@intrinsic
def larger_magnitude(typing: Any, bits: Any, values: Any) -> Any:
    """Lane by lane the larger of `bits` and the bits of |values|; as integers they order as floats do, NaN on top."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        magnitude = builder.and_(builder.bitcast(args[1], emit.INTS), emit.constant(emit.INTS, 0x7FFFFFFF))
        return builder.select(builder.icmp_signed(">", magnitude, args[0]), magnitude, args[0])

    return INTS(INTS, FLOATS), generate


@intrinsic
def round_to_ints(typing: Any, values: Any) -> Any:
    """To the nearest integers, ties to even, for magnitudes below 2**22.

    Adding 1.5 * 2**23 leaves the integer in the low bits: no instruction that a CPU may lack.
    """

    def body(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
        shifted = builder.fadd(value, emit.constant(emit.FLOATS, 12582912.0))
        return builder.sub(builder.bitcast(shifted, emit.INTS), emit.constant(emit.INTS, 0x4B400000))

    return _unary(INTS, FLOATS, body)


def _reduction(name: str) -> Any:
    def body(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
        return emit.call(builder, f"llvm.vector.reduce.{name}.v16i32", emit.INT, [value])

    return _unary(types.int32, INTS, body)


@intrinsic
def largest_int(typing: Any, value: Any) -> Any:
    return _reduction("smax")


@intrinsic
def sum_ints(typing: Any, value: Any) -> Any:
    return _reduction("add")
