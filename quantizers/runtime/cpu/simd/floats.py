"""Scales, half-precision values and products with fp32 activations.

Sums are formed in one stated order by fused multiply-adds: `nash_swarm.testing.products` does the same in NumPy, bit by
bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from nash_swarm.quantizers.formats.native.layout import HALF
from nash_swarm.quantizers.runtime.cpu.simd import emit
from nash_swarm.quantizers.runtime.cpu.simd.codebooks import load_table, look_up
from nash_swarm.quantizers.runtime.cpu.simd.dots import QUADS, VECTOR, unpack
from nash_swarm.quantizers.runtime.cpu.simd.integers import WIDTHS
from nash_swarm.quantizers.runtime.cpu.simd.paths import AVX2, AVX512VNNI
from nash_swarm.quantizers.runtime.cpu.simd.vectors import FLOATS, INTS

INPUTS = 4
"""Inputs of a quad; each has an accumulator of its own."""


@intrinsic(prefer_literal=True)
def scales_of(typing: Any, path: Any, table: Any, codes: Any) -> Any:
    """`base * 2**(-code / 16)` of sixteen scale codes; table: address of the scales of codes 0..15."""
    lookup = {AVX512VNNI: _lookup_avx512, AVX2: _lookup_avx2}.get(path.literal_value, _lookup_generic)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        code = args[2]
        octave = builder.lshr(code, emit.constant(emit.INTS, 4))
        exponent = builder.shl(builder.sub(emit.constant(emit.INTS, 127), octave), emit.constant(emit.INTS, 23))
        step = lookup(builder, args[1], builder.and_(code, emit.constant(emit.INTS, 15)))
        return builder.fmul(step, builder.bitcast(exponent, emit.FLOATS))

    return FLOATS(path, types.int64, INTS), generate


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


@intrinsic(prefer_literal=True)
def store_levels(
    typing: Any, path: Any, tabled: Any, bits: Any, at: Any, blocks: Any, levels: Any, zeros: Any, out: Any
) -> Any:
    """Write a group's levels less its zero-points' as floats, sixteen rows for each input; of width 16: its values.

    Arguments as of `integers.add_few_tokens`.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        _, _, bits_, at_, blocks_, levels_, zeros_, out_ = args
        for width in emit.cases(builder, bits_, (*WIDTHS, HALF)):
            table = load_table(builder, width, bool(tabled.literal_value), levels_)
            with emit.loop(builder, blocks_) as block:
                place = emit.element(builder, at_, block, VECTOR * width)
                target = emit.element(builder, out_, block, VECTOR * QUADS * INPUTS)
                if width == HALF:
                    values = _halves(builder, place)
                else:
                    quads = look_up(builder, path.literal_value, width, table, unpack(builder, width, place))
                    values = _levels(builder, quads, zeros_)
                for position, value in enumerate(values):
                    emit.store(builder, emit.offset(builder, target, position * VECTOR), value)
        return context.get_dummy_value()

    address = types.int64
    return types.void(path, tabled, address, address, address, address, INTS, address), generate


def _levels(builder: ir.IRBuilder, quads: Sequence[ir.Value], zeros: ir.Value) -> list[ir.Value]:
    values = []
    for quad in quads:
        for position in range(INPUTS):
            moved = builder.lshr(quad, emit.constant(emit.INTS, 8 * position))
            code = builder.and_(moved, emit.constant(emit.INTS, 255))
            values.append(builder.sitofp(builder.sub(code, zeros), emit.FLOATS))
    return values


def _halves(builder: ir.IRBuilder, address: ir.Value) -> list[ir.Value]:
    """By integer arithmetic: not every CPU converts half precision."""
    values = []
    for quad in range(QUADS):
        place = emit.offset(builder, address, quad * 2 * VECTOR)
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
def add_products(
    typing: Any, lanes: Any, levels: Any, blocks: Any, scales: Any, inputs: Any, out: Any, count: Any
) -> Any:
    """Add a group's contribution to the outputs of `count` tokens, the constant `lanes` of them at a time.

    levels: address of what `store_levels` wrote. inputs, out: addresses of the first token's float32 activations and
    sixteen float32 outputs; tokens follow each other without gaps. Input j of every quad is added to partial sum j of
    its token; the contribution is ((0 + 1) + (2 + 3)) * scales.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        _, levels_, blocks_, scales_, inputs_, out_, count_ = args
        stride = builder.mul(blocks_, ir.Constant(emit.LONG, 4 * QUADS * INPUTS))

        def some(together: int, first: ir.Value, past: ir.Value) -> None:
            with emit.loop(builder, past, first, together) as token:
                nothing = emit.constant(emit.FLOATS, 0.0)
                sums = [[cgutils.alloca_once_value(builder, nothing) for _ in range(INPUTS)] for _ in range(together)]
                x = builder.add(inputs_, builder.mul(token, stride))
                with emit.loop(builder, blocks_) as block:
                    level_at = emit.element(builder, levels_, block, VECTOR * QUADS * INPUTS)
                    x_at = emit.element(builder, x, block, 4 * QUADS * INPUTS)
                    for position in range(QUADS * INPUTS):
                        level = emit.load(builder, emit.offset(builder, level_at, position * VECTOR), emit.FLOATS)
                        place = emit.offset(builder, x_at, 4 * position)
                        for parts in sums:
                            value = emit.splat(builder, emit.load(builder, place, emit.FLOAT))
                            part = parts[position % INPUTS]
                            builder.store(emit.fused(builder, level, value, builder.load(part)), part)
                            place = builder.add(place, stride)
                for lane, parts in enumerate(sums):
                    a, b, c, d = (builder.load(part) for part in parts)
                    total = builder.fadd(builder.fadd(a, b), builder.fadd(c, d))
                    emit.add_product_to(builder, emit.element(builder, out_, token, 64, lane), total, scales_)

        whole = builder.sub(count_, builder.srem(count_, ir.Constant(emit.LONG, lanes.literal_value)))
        some(lanes.literal_value, ir.Constant(emit.LONG, 0), whole)
        some(1, whole, count_)
        return context.get_dummy_value()

    address = types.int64
    return types.void(lanes, address, address, FLOATS, address, address, address), generate
