"""Dot products of packed codes with int8 activations, for any width, number of tokens and instruction set.

A block of 16 rows x 32 inputs becomes eight vectors, one a quad of inputs, with the four codes of a row in the bytes of
its lane. An accumulator is a vector of 32-bit sums, one a row. All sums are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from nash_swarm.quantizers.kernels.simd import emit
from nash_swarm.quantizers.kernels.simd.vectors import INTS
from nash_swarm.quantizers.packing.n16k32 import PLANES

QUADS = 8
_VECTOR = 64
_AHEAD = 4096
"""Bytes that prefetches run ahead of the reader: longer than memory takes, shorter than the first cache."""


@intrinsic(prefer_literal=True)
def prefetch_block(typing: Any, bits: Any, address: Any) -> Any:
    """Ask for the block of this width some way behind `address`."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        for line in range(bits.literal_value):
            at = emit.offset(builder, args[1], _AHEAD + line * _VECTOR)
            pointer = builder.inttoptr(at, emit.BYTE.as_pointer())
            hints = [ir.Constant(emit.INT, hint) for hint in (0, 3, 1)]  # to read, keep, data
            emit.call(builder, "llvm.prefetch.p0", ir.VoidType(), [pointer, *hints])
        return context.get_dummy_value()

    return types.void(bits, types.int64), generate


@intrinsic(prefer_literal=True)
def unpack_block(typing: Any, bits: Any, address: Any) -> Any:
    """The eight vectors of codes of the block at `address`, whose width is the constant `bits`."""
    width = bits.literal_value
    quads = types.UniTuple(INTS, QUADS)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        return context.make_tuple(builder, quads, unpack(builder, width, args[1]))

    return quads(bits, types.int64), generate


def unpack(builder: ir.IRBuilder, width: int, address: ir.Value) -> list[ir.Value]:
    """Emit the joining of the planes of `packing.n16k32`."""
    quads: list[Any] = [None] * QUADS
    at = shift = 0
    for plane in PLANES[width]:
        per = 8 // plane
        mask = (2**plane - 1) << shift
        for quad in range(QUADS):
            if quad % per == 0:
                packed = emit.load(builder, emit.offset(builder, address, at), emit.INTS)
                at += _VECTOR
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


@intrinsic
def store_block(typing: Any, address: Any, quads: Any) -> Any:
    """Write eight vectors, a block of width 8."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        for quad in range(QUADS):
            emit.store(builder, emit.offset(builder, args[0], quad * _VECTOR), builder.extract_value(args[1], quad))
        return context.get_dummy_value()

    return types.void(types.int64, types.UniTuple(INTS, QUADS)), generate


@intrinsic(prefer_literal=True)
def start_sums(typing: Any, tokens: Any, zeros: Any, totals: Any) -> Any:
    """Accumulators of the constant number `tokens`, each at minus zero-point times the sum of its activations.

    `totals`: address of the tokens' sums, int32.
    """
    count = tokens.literal_value
    result = types.UniTuple(INTS, count)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        sums = []
        for token in range(count):
            total = emit.load(builder, emit.offset(builder, args[2], 4 * token), emit.INT)
            sums.append(builder.mul(args[1], emit.splat(builder, builder.neg(total))))
        return context.make_tuple(builder, result, sums)

    return result(tokens, INTS, types.int64), generate


@intrinsic(prefer_literal=True)
def add_dots(typing: Any, path: Any, most_bits: Any, sums: Any, quads: Any, codes: Any, stride: Any) -> Any:
    """Accumulators plus the dot products of a block with the 32 activations of each token.

    path: constant, which instructions. most_bits: constant, no code of the block has more bits. codes: address of the
    first token's int8 activations, the next token's stand `stride` bytes on.
    """
    dots = (_vnni_dots, _avx2_dots, _generic_dots)[path.literal_value]

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        vectors = [builder.extract_value(args[3], quad) for quad in range(QUADS)]
        results = []
        address = args[4]
        for token in range(len(sums)):
            inputs = [emit.load(builder, emit.offset(builder, address, 4 * quad), emit.INT) for quad in range(QUADS)]
            results.append(
                dots(
                    builder, most_bits.literal_value, builder.extract_value(args[2], token), vectors, inputs, len(sums)
                )
            )
            address = builder.add(address, args[5])
        return context.make_tuple(builder, sums, results)

    return sums(path, most_bits, sums, types.UniTuple(INTS, QUADS), types.int64, types.int64), generate


def _vnni_dots(
    builder: ir.IRBuilder,
    most_bits: int,
    sums: ir.Value,
    quads: Sequence[ir.Value],
    inputs: Sequence[ir.Value],
    tokens: int,
) -> ir.Value:
    """`vpdpbusd`: four products a lane into 32 bits. A single token gets two chains: each step waits for the last."""
    chains = [sums, emit.constant(emit.INTS, 0)] if tokens == 1 else [sums]
    for quad in range(QUADS):
        chain = quad % len(chains)
        chains[chain] = emit.call(
            builder,
            "llvm.x86.avx512.vpdpbusd.512",
            emit.INTS,
            [chains[chain], quads[quad], emit.splat(builder, inputs[quad])],
        )
    return chains[0] if tokens > 1 else builder.add(*chains)


def _avx2_dots(
    builder: ir.IRBuilder,
    most_bits: int,
    sums: ir.Value,
    quads: Sequence[ir.Value],
    inputs: Sequence[ir.Value],
    tokens: int,
) -> ir.Value:
    """`vpmaddubsw` (pairs into 16 bits, saturating), as many added as cannot overflow, then `vpmaddwd` into 32 bits.

    Two products of 7-bit codes are at most 2 * 127 * 127 < 2**15; 8-bit codes are split into top bit and rest.
    """
    parts = (0x7F7F7F7F, 0x80808080) if most_bits == 8 else (None,)
    together = max(1, 32767 // (2 * 127 * (2**most_bits - 1)))
    short, half = emit.vector(emit.SHORT), emit.vector(emit.INT, 8)
    bytes_ = emit.vector(emit.BYTE, 32)
    halves = []
    for first in (0, 8):
        lanes = range(first, first + 8)
        total = emit.pick(builder, sums, lanes)
        pairs: Any = None
        added = 0
        for quad in range(QUADS):
            right = builder.bitcast(emit.splat(builder, inputs[quad], 8), bytes_)
            for part in parts:
                left = emit.pick(builder, quads[quad], lanes)
                if part is not None:
                    left = builder.and_(left, emit.constant(half, part))
                product = emit.call(builder, "llvm.x86.avx2.pmadd.ub.sw", short, [builder.bitcast(left, bytes_), right])
                pairs = product if pairs is None else builder.add(pairs, product)
                added += 1
                if added == together or (quad == QUADS - 1 and part == parts[-1]):
                    wide = emit.call(builder, "llvm.x86.avx2.pmadd.wd", half, [pairs, emit.constant(short, 1)])
                    total, pairs, added = builder.add(total, wide), None, 0
        halves.append(total)
    mask = ir.Constant(emit.INTS, list(range(emit.LANES)))
    return builder.shuffle_vector(*halves, mask)


def _generic_dots(
    builder: ir.IRBuilder,
    most_bits: int,
    sums: ir.Value,
    quads: Sequence[ir.Value],
    inputs: Sequence[ir.Value],
    tokens: int,
) -> ir.Value:
    """16-bit products of the even and of the odd bytes, as many added as cannot overflow, then widened."""
    together = 32767 // (127 * (2**most_bits - 1))
    shorts = emit.vector(emit.SHORT, 32)
    pair = emit.vector(emit.SHORT, 2)
    eight, sixteen = emit.constant(shorts, 8), emit.constant(emit.INTS, 16)
    products: Any = None
    added = 0
    for quad in range(QUADS):
        codes = builder.bitcast(quads[quad], shorts)
        scalars = builder.bitcast(inputs[quad], pair)
        odd = builder.ashr(scalars, emit.constant(pair, 8))
        even = builder.ashr(builder.shl(scalars, emit.constant(pair, 8)), emit.constant(pair, 8))
        for left, scalar in (
            (builder.and_(codes, emit.constant(shorts, 255)), even),
            (builder.lshr(codes, eight), odd),
        ):
            right = builder.bitcast(emit.splat(builder, builder.bitcast(scalar, emit.INT)), shorts)
            product = builder.mul(left, right)
            products = product if products is None else builder.add(products, product)
            added += 1
            if added == together or (quad == QUADS - 1 and scalar is odd):
                lanes = builder.bitcast(products, emit.INTS)
                low = builder.ashr(builder.shl(lanes, sixteen), sixteen)
                sums = builder.add(sums, builder.add(low, builder.ashr(lanes, sixteen)))
                products, added = None, 0
    return sums
