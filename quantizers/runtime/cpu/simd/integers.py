"""Groups of packed codes times int8 activations, for any width, number of tokens and instruction set."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from nash_swarm.quantizers.runtime.cpu.simd import emit
from nash_swarm.quantizers.runtime.cpu.simd.codebooks import load_table, look_up, most_bits
from nash_swarm.quantizers.runtime.cpu.simd.dots import QUADS, VECTOR, add_dots, add_dots_of_tokens, unpack
from nash_swarm.quantizers.runtime.cpu.simd.paths import AVX512VNNI
from nash_swarm.quantizers.runtime.cpu.simd.vectors import FLOATS, INTS

WIDTHS = (4, 3, 2, 5, 6, 8)
"""Widths with codes, in the order in which they are asked for."""
FEWER = (8, 4, 1)
"""Tokens at a time for what is left of a batch."""
FEW = 2
"""Tokens whose inputs follow each other; inputs of more that are taken at a time are interleaved."""
PAIR_BITS = 7
"""Of the lower number of a `total_pair`."""
_AHEAD = 6144 if emit.ON_ZEN else 8192
"""Bytes that prefetches run ahead of the reader: longer than memory takes, shorter than the first cache."""


def _prefetch_block(builder: ir.IRBuilder, width: int, address: ir.Value) -> None:
    for line in range(width):
        emit.prefetch(builder, emit.offset(builder, address, _AHEAD + line * VECTOR), emit.STREAMED)


def _started(builder: ir.IRBuilder, path: int, zeros: ir.Value, totals: ir.Value) -> ir.Value:
    """A token's accumulator at minus zero-point times the sum of its activations, whose `total_pair` is at `totals`."""
    pair = emit.load(builder, totals, emit.INT)
    if path == AVX512VNNI:
        factors = builder.or_(zeros, builder.shl(zeros, emit.constant(emit.INTS, 16 + PAIR_BITS)))
        arguments = [emit.constant(emit.INTS, 0), factors, emit.splat(builder, pair)]
        return emit.call(builder, "llvm.x86.avx512.vpdpwssd.512", emit.INTS, arguments)
    high = builder.shl(builder.ashr(pair, ir.Constant(emit.INT, 16)), ir.Constant(emit.INT, PAIR_BITS))
    total = builder.or_(high, builder.and_(pair, ir.Constant(emit.INT, 2**PAIR_BITS - 1)))
    return builder.mul(zeros, emit.splat(builder, total))


def _finish(builder: ir.IRBuilder, sums: ir.Value, scales: ir.Value, step: ir.Value, out: ir.Value) -> None:
    """Add accumulator * (scales * step) to the sixteen floats at `out`; step: address of the token's float32 scale."""
    factors = builder.fmul(scales, emit.splat(builder, emit.load(builder, step, emit.FLOAT)))
    emit.add_product_to(builder, out, builder.sitofp(sums, emit.FLOATS), factors)


@intrinsic(prefer_literal=True)
def add_few_tokens(
    typing: Any, path: Any, lanes: Any, tabled: Any, bits: Any, at: Any, blocks: Any, levels: Any, zeros: Any,
    scales: Any, inputs: Any, steps: Any, totals: Any, out: Any,
) -> Any:  # fmt: skip
    """Add a group's contribution to the outputs of one or two tokens; codes are unpacked in registers.

    path: constant. lanes: constant, how many tokens. tabled: constant, 1 if `levels` is the address of a table, as of
    `codebooks.level_bytes`. bits: constant, the width of the codes. at, blocks: address and number of the group's
    blocks. zeros, scales: of the rows. inputs, steps, totals: addresses of the first token's int8 codes, scale and sum
    of them. out: of sixteen float32. The second token's follow without gaps.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        _, _, _, _, at_, blocks_, levels_, zeros_, scales_, inputs_, steps_, totals_, out_ = args
        own, looked_up, width = path.literal_value, bool(tabled.literal_value), bits.literal_value
        stride = builder.mul(blocks_, ir.Constant(emit.LONG, 4 * QUADS))
        together = range(lanes.literal_value)
        starts = [_started(builder, own, zeros_, emit.offset(builder, totals_, 4 * lane)) for lane in together]
        sums = [cgutils.alloca_once_value(builder, start) for start in starts]
        table = load_table(builder, width, looked_up, levels_)
        with emit.loop(builder, blocks_) as block:
            place = emit.element(builder, at_, block, VECTOR * width)
            _prefetch_block(builder, width, place)
            x = emit.element(builder, inputs_, block, 4 * QUADS)
            quads = look_up(builder, own, width, table, unpack(builder, width, place))
            most = most_bits(width, looked_up)
            for total in sums:
                builder.store(add_dots(builder, own, most, builder.load(total), quads, x), total)
                x = builder.add(x, stride)
        for lane, total in enumerate(sums):
            step, place = emit.offset(builder, steps_, 4 * lane), emit.offset(builder, out_, 64 * lane)
            _finish(builder, builder.load(total), scales_, step, place)
        return context.get_dummy_value()

    address = types.int64
    kinds = [path, lanes, tabled, bits, address, address, address, INTS, FLOATS, *[address] * 4]
    return types.void(*kinds), generate


@intrinsic(prefer_literal=True)
def unpack_group(
    typing: Any, path: Any, tabled: Any, bits: Any, at: Any, blocks: Any, levels: Any, out: Any
) -> Any:  # fmt: skip
    """Write a group's codes, or their levels, a byte each, as blocks of width 8 to the address `out`.

    Arguments as of `add_few_tokens`.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        _, _, bits_, at_, blocks_, levels_, out_ = args
        for width in emit.cases(builder, bits_, WIDTHS):
            table = load_table(builder, width, bool(tabled.literal_value), levels_)
            with emit.loop(builder, blocks_) as block:
                place = emit.element(builder, at_, block, VECTOR * width)
                _prefetch_block(builder, width, place)
                target = emit.element(builder, out_, block, VECTOR * QUADS)
                quads = look_up(builder, path.literal_value, width, table, unpack(builder, width, place))
                for quad, codes in enumerate(quads):
                    emit.store(builder, emit.offset(builder, target, quad * VECTOR), codes)
        return context.get_dummy_value()

    return types.void(path, tabled, *[types.int64] * 5), generate


@intrinsic(prefer_literal=True)
def add_tokens(
    typing: Any, path: Any, lanes: Any, bits: Any, at: Any, blocks: Any, zeros: Any, scales: Any, inputs: Any,
    steps: Any, totals: Any, out: Any, count: Any,
) -> Any:  # fmt: skip
    """Add an unpacked group's contribution to the outputs of `count` tokens, the constant `lanes` of them at a time
    as long as there are so many.

    at: address of the group's codes as blocks of width 8; bits: how wide they are at most. `inputs` stand as
    `cpu.activations` has them; at `steps`, `totals` and `out` tokens follow each other without gaps. The other
    arguments are those of `add_few_tokens`.
    """
    own = path.literal_value
    ceilings = (8,) if own == AVX512VNNI else (4, 6, 8)
    sizes = (lanes.literal_value, *(few for few in FEWER if few < lanes.literal_value))

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        _, _, bits_, at_, blocks_, zeros_, scales_, inputs_, steps_, totals_, out_, count_ = args
        stride = builder.mul(blocks_, ir.Constant(emit.LONG, 4 * QUADS))

        def some(ceiling: int, together: int, first: ir.Value, past: ir.Value) -> None:
            interleaved = together if together > FEW else 1
            with emit.loop(builder, past, first, together) as token:
                sums = []
                for lane in range(together):
                    place = emit.element(builder, totals_, token, 4, lane)
                    sums.append(cgutils.alloca_once_value(builder, _started(builder, own, zeros_, place)))
                x = builder.add(inputs_, builder.mul(token, stride))
                with emit.loop(builder, blocks_) as block:
                    quads = unpack(builder, 8, emit.element(builder, at_, block, VECTOR * QUADS))
                    places = [emit.element(builder, x, block, 4 * QUADS * interleaved)]
                    after = ir.Constant(emit.LONG, 4) if interleaved > 1 else stride
                    for _ in range(1, together):
                        places.append(builder.add(places[-1], after))
                    before = [builder.load(total) for total in sums]
                    added = add_dots_of_tokens(builder, own, ceiling, before, quads, places, 4 * interleaved)
                    for total, value in zip(sums, added, strict=True):
                        builder.store(value, total)
                for lane, total in enumerate(sums):
                    step = emit.element(builder, steps_, token, 4, lane)
                    _finish(builder, builder.load(total), scales_, step, emit.element(builder, out_, token, 64, lane))

        for ceiling in emit.at_most(builder, bits_, ceilings):
            first = ir.Constant(emit.LONG, 0)
            for together in sizes:
                left = builder.srem(count_, ir.Constant(emit.LONG, together))
                past = builder.sub(count_, left)
                some(ceiling, together, first, past)
                first = past
        return context.get_dummy_value()

    address = types.int64
    return types.void(path, lanes, address, address, address, INTS, FLOATS, *[address] * 5), generate
