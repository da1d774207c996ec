"""Dot products of a block's codes with the 32 int8 activations of a token, by each instruction set; all sums are exact.

A block of 16 rows x 32 inputs is eight vectors, one a quad of inputs, with the four codes of a row in the bytes of its
lane. An accumulator is a vector of 32-bit sums, one a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

from nash_swarm.quantizers.formats.native.n16k32 import PLANES
from nash_swarm.quantizers.runtime.cpu.simd import emit
from nash_swarm.quantizers.runtime.cpu.simd.paths import AVX2, AVX512VNNI, GENERIC

QUADS = 8
VECTOR = 64
"""Bytes of a vector."""
_CHAINS = 8
"""Accumulators that VNNI instructions take turns with to keep the processor busy: two at once, each done after five."""
_LARGEST_INPUT, _LARGEST_SHORT = 127, 2**15 - 1


def unpack(builder: ir.IRBuilder, width: int, address: ir.Value) -> list[ir.Value]:
    """Emit the joining of the planes of `formats.native.n16k32`."""
    quads: list[Any] = [None] * QUADS
    at = shift = 0
    for plane in PLANES[width]:
        per = 8 // plane
        mask = (2**plane - 1) << shift
        for quad in range(QUADS):
            if quad % per == 0:
                packed = emit.load(builder, emit.offset(builder, address, at), emit.INTS)
                at += VECTOR
            # bits that a shift brings over from the neighbouring byte are masked away
            moved = _moved(builder, packed, plane * (quad % per) - shift)
            part = moved if plane == 8 else builder.and_(moved, emit.constant(emit.INTS, mask * 0x01010101))
            quads[quad] = part if quads[quad] is None else builder.or_(quads[quad], part)
        shift += plane
    return quads


def _moved(builder: ir.IRBuilder, value: ir.Value, right: int) -> ir.Value:
    if right == 0:
        return value
    distance = emit.constant(emit.INTS, abs(right))
    return builder.lshr(value, distance) if right > 0 else builder.shl(value, distance)


def add_dots(
    builder: ir.IRBuilder, path: int, most_bits: int, sums: ir.Value, quads: Sequence[ir.Value], inputs: ir.Value,
    stride: int = 4,
) -> ir.Value:  # fmt: skip
    """Emit accumulators plus the dot products with int8 activations, four of them every `stride` bytes from `inputs`.

    most_bits: no code has more; 8-bit codes need more care where products are added in 16 bits.
    """
    values = [emit.load(builder, emit.offset(builder, inputs, stride * quad), emit.INT) for quad in range(QUADS)]
    dots = {AVX512VNNI: _vnni_dots, AVX2: _avx2_dots, GENERIC: _generic_dots}[path]
    return dots(builder, most_bits, sums, quads, values)


def add_dots_of_tokens(
    builder: ir.IRBuilder, path: int, most_bits: int, sums: Sequence[ir.Value], quads: Sequence[ir.Value],
    inputs: Sequence[ir.Value], stride: int,
) -> list[ir.Value]:  # fmt: skip
    """`add_dots` for several tokens, an accumulator and an address of inputs each."""
    if path != AVX512VNNI or len(sums) < _CHAINS:
        return [
            add_dots(builder, path, most_bits, total, quads, place, stride)
            for total, place in zip(sums, inputs, strict=True)
        ]
    # there are enough tokens that one chain each keeps the processor busy, and that takes no adding up
    added = list(sums)
    for quad in range(QUADS):
        for token, place in enumerate(inputs):
            value = emit.load(builder, emit.offset(builder, place, stride * quad), emit.INT)
            added[token] = _vpdpbusd(builder, added[token], quads[quad], value)
    return added


def _vpdpbusd(builder: ir.IRBuilder, sums: ir.Value, codes: ir.Value, value: ir.Value) -> ir.Value:
    """`vpdpbusd`: four products of unsigned and signed bytes a lane, added to 32 bits."""
    return emit.call(builder, "llvm.x86.avx512.vpdpbusd.512", emit.INTS, [sums, codes, emit.splat(builder, value)])


def _vnni_dots(
    builder: ir.IRBuilder, most_bits: int, sums: ir.Value, quads: Sequence[ir.Value], inputs: Sequence[ir.Value],
) -> ir.Value:  # fmt: skip
    """Two chains, because each step waits for the one before."""
    chains = [sums, emit.constant(emit.INTS, 0)]
    for quad in range(QUADS):
        chains[quad % 2] = _vpdpbusd(builder, chains[quad % 2], quads[quad], inputs[quad])
    return builder.add(*chains)


def _narrow(builder: ir.IRBuilder, most_bits: int, quads: Sequence[ir.Value]) -> list[tuple[int, Sequence[ir.Value]]]:
    """Codes as parts of at most 6 bits with their weights: 8 bits are split, as their products fill 16 bits."""
    if most_bits < 8:
        return [(1, quads)]
    mask, four = emit.constant(emit.INTS, 0x0F0F0F0F), emit.constant(emit.INTS, 4)
    low = [builder.and_(quad, mask) for quad in quads]
    return [(1, low), (16, [builder.and_(builder.lshr(quad, four), mask) for quad in quads])]


def _quads_together(most_bits: int) -> int:
    """Quads whose products, two a 16-bit lane, can be added without overflow."""
    return _LARGEST_SHORT // (2 * _LARGEST_INPUT * (2 ** (4 if most_bits == 8 else most_bits) - 1))


def _avx2_dots(
    builder: ir.IRBuilder, most_bits: int, sums: ir.Value, quads: Sequence[ir.Value], inputs: Sequence[ir.Value],
) -> ir.Value:  # fmt: skip
    """`vpmaddubsw` (pairs into 16 bits), as many added as cannot overflow, then `vpmaddwd` into 32 bits."""
    together = _quads_together(most_bits)
    short, half, bytes_ = emit.vector(emit.SHORT), emit.vector(emit.INT, 8), emit.vector(emit.BYTE, 32)
    halves = []
    for first in (0, 8):
        lanes = range(first, first + 8)
        total = emit.pick(builder, sums, lanes)
        for weight, part in _narrow(builder, most_bits, quads):
            for start in range(0, QUADS, together):
                pairs = []
                for quad in range(start, min(start + together, QUADS)):
                    left = builder.bitcast(emit.pick(builder, part[quad], lanes), bytes_)
                    right = builder.bitcast(emit.splat(builder, inputs[quad], 8), bytes_)
                    pairs.append(emit.call(builder, "llvm.x86.avx2.pmadd.ub.sw", short, [left, right]))
                added = emit.total(builder, pairs)
                weights = emit.constant(short, weight)
                total = builder.add(total, emit.call(builder, "llvm.x86.avx2.pmadd.wd", half, [added, weights]))
        halves.append(total)
    return builder.shuffle_vector(*halves, ir.Constant(emit.INTS, list(range(emit.LANES))))


def _generic_dots(
    builder: ir.IRBuilder, most_bits: int, sums: ir.Value, quads: Sequence[ir.Value], inputs: Sequence[ir.Value],
) -> ir.Value:  # fmt: skip
    """16-bit products of the even and of the odd bytes, as many added as cannot overflow, then widened."""
    together = _quads_together(most_bits)
    shorts, pair = emit.vector(emit.SHORT, 32), emit.vector(emit.SHORT, 2)
    eight, sixteen, byte = emit.constant(pair, 8), emit.constant(emit.INTS, 16), emit.constant(shorts, 255)
    for weight, part in _narrow(builder, most_bits, quads):
        for start in range(0, QUADS, together):
            products = []
            for quad in range(start, min(start + together, QUADS)):
                codes, scalars = builder.bitcast(part[quad], shorts), builder.bitcast(inputs[quad], pair)
                even = builder.ashr(builder.shl(scalars, eight), eight)
                products.append(builder.mul(builder.and_(codes, byte), _splat_pair(builder, even)))
                odd = builder.ashr(scalars, eight)
                products.append(builder.mul(builder.lshr(codes, emit.constant(shorts, 8)), _splat_pair(builder, odd)))
            lanes = builder.bitcast(emit.total(builder, products), emit.INTS)
            low = builder.ashr(builder.shl(lanes, sixteen), sixteen)
            dots = builder.add(low, builder.ashr(lanes, sixteen))
            sums = builder.add(sums, builder.mul(dots, emit.constant(emit.INTS, weight)))
    return sums


def _splat_pair(builder: ir.IRBuilder, scalars: ir.Value) -> ir.Value:
    return builder.bitcast(emit.splat(builder, builder.bitcast(scalars, emit.INT)), emit.vector(emit.SHORT, 32))
