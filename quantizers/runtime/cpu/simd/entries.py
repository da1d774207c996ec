"""What the bytes of small entries say, see `runtime.cpu.entries`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from nash_swarm.quantizers.formats.native.scale_ranges import COARSE, LAST
from nash_swarm.quantizers.runtime.cpu.entries import MOST_BITS, meanings
from nash_swarm.quantizers.runtime.cpu.simd import emit
from nash_swarm.quantizers.runtime.cpu.simd.vectors import INTS

_WIDTHS = range(MOST_BITS, 1, -1)


@intrinsic(prefer_literal=True)
def first_codes(typing: Any, tabled: Any, bits: Any, windows: Any) -> Any:
    """First scale codes of a width's windows, from the rows' bytes at `windows`; tabled: as of `add_few_tokens`."""

    def first(builder: ir.IRBuilder, windows: ir.Value, meaning: tuple[int, int, int]) -> ir.Value:
        lowest = builder.and_(emit.load_bytes(builder, windows), emit.constant(emit.INTS, LAST - 1))
        return builder.add(lowest, emit.constant(emit.INTS, meaning[0]))

    return INTS(tabled, bits, types.int64), _by_width(tabled, bits, first)


@intrinsic
def place_shifts(typing: Any, windows: Any) -> Any:
    """By how many bits a place is shifted to steps of its row's window."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        coarse = builder.and_(emit.load_bytes(builder, args[0]), emit.constant(emit.INTS, 1))
        return builder.mul(coarse, emit.constant(emit.INTS, COARSE.bit_length() - 1))

    return INTS(types.int64), generate


@intrinsic
def codes_at(typing: Any, entry: Any, first: Any, shifts: Any) -> Any:
    """Scale codes of a small entry; first, shifts: of `first_codes` and `place_shifts`."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        places = builder.lshr(emit.load_bytes(builder, args[0]), emit.constant(emit.INTS, 4))
        codes = builder.add(args[1], builder.shl(places, args[2]))
        last = emit.constant(emit.INTS, LAST)
        return builder.select(builder.icmp_unsigned("<", codes, last), codes, last)

    return INTS(types.int64, INTS, INTS), generate


@intrinsic(prefer_literal=True)
def zeros_at(typing: Any, tabled: Any, bits: Any, entry: Any) -> Any:
    """Levels of a small entry's zero-points; tabled: as of `add_few_tokens`."""

    def zeros(builder: ir.IRBuilder, entry: ir.Value, meaning: tuple[int, int, int]) -> ir.Value:
        codes = builder.and_(emit.load_bytes(builder, entry), emit.constant(emit.INTS, 15))
        steps = builder.mul(codes, emit.constant(emit.INTS, meaning[2]))
        return builder.add(steps, emit.constant(emit.INTS, meaning[1]))

    return INTS(tabled, bits, types.int64), _by_width(tabled, bits, zeros)


def _by_width(tabled: Any, bits: Any, body: Callable[[ir.IRBuilder, ir.Value, Any], ir.Value]) -> Any:
    """Code of the width that is known, or of each of them."""
    table = meanings("normal" if tabled.literal_value else "uniform").tolist()

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        _, bits_, address = args
        if isinstance(bits, types.Literal):
            # what takes wider groups is compiled too, and never run
            return body(builder, address, table[min(bits.literal_value, MOST_BITS)])
        result = cgutils.alloca_once(builder, emit.INTS)
        for width in emit.cases(builder, bits_, _WIDTHS):
            builder.store(body(builder, address, table[width]), result)
        return builder.load(result)

    return generate
