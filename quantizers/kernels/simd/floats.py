"""Scales, half-precision values and products with fp32 activations.

Sums are formed in one stated order without fused multiply-adds: `kernels.reference` does the same in NumPy, bit by bit.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from nash_swarm.quantizers.kernels.simd import emit
from nash_swarm.quantizers.kernels.simd.integers import QUADS, unpack
from nash_swarm.quantizers.kernels.simd.paths import AVX2, AVX512VNNI
from nash_swarm.quantizers.kernels.simd.vectors import FLOATS, INTS

INPUTS = 4
"""Inputs of a quad; each has an accumulator of its own."""
_VECTOR = 64


@intrinsic(prefer_literal=True)
def load_scales(typing: Any, path: Any, table: Any, codes: Any) -> Any:
    """`base * 2**(-code / 16)` of the sixteen codes at address `codes`; table: address of the scales of codes 0..15."""
    lookup = {AVX512VNNI: _lookup_avx512, AVX2: _lookup_avx2}.get(path.literal_value, _lookup_generic)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        code = builder.zext(emit.load(builder, args[2], emit.vector(emit.BYTE)), emit.INTS)
        octave = builder.lshr(code, emit.constant(emit.INTS, 4))
        exponent = builder.shl(builder.sub(emit.constant(emit.INTS, 127), octave), emit.constant(emit.INTS, 23))
        step = lookup(builder, args[1], builder.and_(code, emit.constant(emit.INTS, 15)))
        return builder.fmul(step, builder.bitcast(exponent, emit.FLOATS))

    return FLOATS(path, types.int64, types.int64), generate


def _lookup_avx512(builder: ir.IRBuilder, table: ir.Value, index: ir.Value) -> ir.Value:
    values = emit.load(builder, table, emit.FLOATS)
    return emit.call(builder, "llvm.x86.avx512.permvar.sf.512", emit.FLOATS, [values, index])


def _lookup_avx2(builder: ir.IRBuilder, table: ir.Value, index: ir.Value) -> ir.Value:
    eight, half = emit.vector(emit.FLOAT, 8), emit.vector(emit.INT, 8)
    low = emit.load(builder, table, eight)
    high = emit.load(builder, emit.offset(builder, table, 32), eight)
    parts = []
    for first in (0, 8):
        at = emit.pick(builder, index, range(first, first + 8))
        either = [emit.call(builder, "llvm.x86.avx2.permps", eight, [values, at]) for values in (low, high)]
        parts.append(builder.select(builder.icmp_unsigned("<", at, emit.constant(half, 8)), *either))
    return builder.shuffle_vector(*parts, ir.Constant(emit.INTS, list(range(emit.LANES))))


def _lookup_generic(builder: ir.IRBuilder, table: ir.Value, index: ir.Value) -> ir.Value:
    result: Any = ir.Constant(emit.FLOATS, ir.Undefined)
    for lane in range(emit.LANES):
        at = builder.zext(builder.extract_element(index, ir.Constant(emit.INT, lane)), emit.LONG)
        place = builder.add(table, builder.shl(at, ir.Constant(emit.LONG, 2)))
        result = builder.insert_element(result, emit.load(builder, place, emit.FLOAT), ir.Constant(emit.INT, lane))
    return result


@intrinsic
def finish_sums(typing: Any, sums: Any, scales: Any, steps: Any, out: Any) -> Any:
    """Add accumulator * (scales * step) of every token to its sixteen floats at `out`, 64 bytes a token.

    steps: address of the tokens' activation scales, float32.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        for token in range(len(sums)):
            step = emit.splat(builder, emit.load(builder, emit.offset(builder, args[2], 4 * token), emit.FLOAT))
            value = builder.sitofp(builder.extract_value(args[0], token), emit.FLOATS)
            _add_to(builder, args[3], token, builder.fmul(value, builder.fmul(args[1], step)))
        return context.get_dummy_value()

    return types.void(sums, FLOATS, types.int64, types.int64), generate


def _add_to(builder: ir.IRBuilder, out: ir.Value, token: int, value: ir.Value) -> None:
    place = emit.offset(builder, out, token * _VECTOR)
    emit.store(builder, place, builder.fadd(emit.load(builder, place, emit.FLOATS), value))


@intrinsic(prefer_literal=True)
def store_levels(typing: Any, bits: Any, address: Any, zeros: Any, out: Any) -> Any:
    """Write code - zero-point of a block as floats, sixteen rows for each of the 32 inputs; width 16: its values."""
    width = bits.literal_value

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        values = _halves(builder, args[1]) if width == 16 else _levels(builder, width, args[1], args[2])
        for position, value in enumerate(values):
            emit.store(builder, emit.offset(builder, args[3], position * _VECTOR), value)
        return context.get_dummy_value()

    return types.void(bits, types.int64, INTS, types.int64), generate


def _levels(builder: ir.IRBuilder, width: int, address: ir.Value, zeros: ir.Value) -> list[ir.Value]:
    values = []
    for quad in unpack(builder, width, address):
        for position in range(INPUTS):
            moved = builder.lshr(quad, emit.constant(emit.INTS, 8 * position))
            code = builder.and_(moved, emit.constant(emit.INTS, 255))
            values.append(builder.sitofp(builder.sub(code, zeros), emit.FLOATS))
    return values


def _halves(builder: ir.IRBuilder, address: ir.Value) -> list[ir.Value]:
    """By integer arithmetic: not every CPU converts half precision."""
    values = []
    for quad in range(QUADS):
        place = emit.offset(builder, address, quad * 2 * _VECTOR)
        packed = emit.load(builder, place, emit.vector(emit.SHORT, INPUTS * emit.LANES))
        for position in range(INPUTS):
            lanes = emit.pick(builder, packed, range(position, INPUTS * emit.LANES, INPUTS))
            bits = builder.zext(lanes, emit.INTS)
            magnitude = builder.and_(bits, emit.constant(emit.INTS, 0x7FFF))
            shifted = builder.bitcast(builder.shl(magnitude, emit.constant(emit.INTS, 13)), emit.FLOATS)
            finite = builder.bitcast(builder.fmul(shifted, emit.constant(emit.FLOATS, 2.0**112)), emit.INTS)
            special = builder.or_(finite, emit.constant(emit.INTS, 0x7F800000))
            large = builder.icmp_unsigned(">=", magnitude, emit.constant(emit.INTS, 0x7C00))
            sign = builder.shl(builder.lshr(bits, emit.constant(emit.INTS, 15)), emit.constant(emit.INTS, 31))
            values.append(builder.bitcast(builder.or_(builder.select(large, special, finite), sign), emit.FLOATS))
    return values


@intrinsic(prefer_literal=True)
def start_products(typing: Any, tokens: Any) -> Any:
    """Four zero accumulators for each of the constant number `tokens`."""
    result = types.UniTuple(FLOATS, INPUTS * tokens.literal_value)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        return context.make_tuple(builder, result, [emit.constant(emit.FLOATS, 0.0)] * len(result))

    return result(tokens), generate


@intrinsic
def add_products(typing: Any, products: Any, levels: Any, inputs: Any, stride: Any) -> Any:
    """Accumulators plus levels * activation; input j of every quad goes to accumulator j of its token.

    levels: address of a block written by `store_levels`. inputs: address of the first token's 32 float32 activations,
    the next token's stand `stride` bytes on.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        sums = [builder.extract_value(args[0], i) for i in range(len(products))]
        for position in range(QUADS * INPUTS):
            level = emit.load(builder, emit.offset(builder, args[1], position * _VECTOR), emit.FLOATS)
            token_at = args[2]
            for at in range(position % INPUTS, len(products), INPUTS):
                value = emit.load(builder, emit.offset(builder, token_at, 4 * position), emit.FLOAT)
                sums[at] = builder.fadd(sums[at], builder.fmul(level, emit.splat(builder, value)))
                token_at = builder.add(token_at, args[3])
        return context.make_tuple(builder, products, sums)

    return products(products, types.int64, types.int64, types.int64), generate


@intrinsic
def finish_products(typing: Any, products: Any, scales: Any, out: Any) -> Any:
    """Add ((0 + 1) + (2 + 3)) * scales of every token's accumulators to its sixteen floats at `out`."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        for token in range(len(products) // INPUTS):
            parts = [builder.extract_value(args[0], token * INPUTS + i) for i in range(INPUTS)]
            total = builder.fadd(builder.fadd(parts[0], parts[1]), builder.fadd(parts[2], parts[3]))
            _add_to(builder, args[2], token, builder.fmul(total, args[1]))
        return context.get_dummy_value()

    return types.void(products, FLOATS, types.int64), generate
