"""Levels of codes, looked up in a table of bytes, by each instruction set."""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir

from nash_swarm.quantizers.formats.native.codebooks import NORMAL_WIDTHS, ROW
from nash_swarm.quantizers.runtime.cpu.simd import emit
from nash_swarm.quantizers.runtime.cpu.simd.paths import AVX2, AVX512VNNI, GENERIC

BYTES = 64
"""Codes of a vector."""
_ENTRIES = 16
"""Levels that one instruction chooses from."""


def most_bits(width: int, tabled: bool) -> int:
    """How wide the largest number is that codes of a width come to."""
    return 8 if tabled and width in NORMAL_WIDTHS else width


def load_table(builder: ir.IRBuilder, width: int, tabled: bool, address: ir.Value) -> list[ir.Value]:
    """Emit the loading of a width's levels from the table at an address, sixteen at a time; none if they are even.

    tabled: whether there is a table.
    """
    if not tabled or width not in NORMAL_WIDTHS:
        return []
    parts = max(1, 2**width // _ENTRIES)
    kind = emit.vector(emit.BYTE, _ENTRIES)
    return [emit.load(builder, emit.offset(builder, address, ROW * width + _ENTRIES * i), kind) for i in range(parts)]


def look_up(
    builder: ir.IRBuilder, path: int, width: int, table: Sequence[ir.Value], quads: Sequence[ir.Value]
) -> list[ir.Value]:
    """Emit the levels of the codes in the bytes of vectors; without a table they are the codes themselves."""
    if not table:
        return list(quads)
    method = {AVX512VNNI: _shuffle_avx512, AVX2: _shuffle_avx2, GENERIC: _select}[path]
    found = []
    for quad in quads:
        codes = builder.bitcast(quad, emit.vector(emit.BYTE, BYTES))
        values = method(builder, table[0], codes, min(_ENTRIES, 2**width))
        if len(table) > 1:
            # shuffles look at the low four bits only
            above = builder.icmp_unsigned(">=", codes, emit.constant(codes.type, _ENTRIES))
            low = builder.and_(codes, emit.constant(codes.type, _ENTRIES - 1))
            values = builder.select(above, method(builder, table[1], low, _ENTRIES), values)
        found.append(builder.bitcast(values, emit.INTS))
    return found


def _repeated(builder: ir.IRBuilder, table: ir.Value, times: int) -> ir.Value:
    return emit.pick(builder, table, list(range(_ENTRIES)) * times)


def _shuffle_avx512(builder: ir.IRBuilder, table: ir.Value, codes: ir.Value, count: int) -> ir.Value:
    return emit.call(builder, "llvm.x86.avx512.pshuf.b.512", codes.type, [_repeated(builder, table, 4), codes])


def _shuffle_avx2(builder: ir.IRBuilder, table: ir.Value, codes: ir.Value, count: int) -> ir.Value:
    half = emit.vector(emit.BYTE, BYTES // 2)
    twice = _repeated(builder, table, 2)
    parts = [
        emit.call(builder, "llvm.x86.avx2.pshuf.b", half, [twice, emit.pick(builder, codes, range(first, first + 32))])
        for first in (0, 32)
    ]
    return builder.shuffle_vector(*parts, ir.Constant(emit.vector(emit.INT, BYTES), list(range(BYTES))))


def _select(builder: ir.IRBuilder, table: ir.Value, codes: ir.Value, count: int) -> ir.Value:
    """For every CPU: one level after the other, as long as codes are not smaller."""
    result: ir.Value | None = None
    for code in range(count):
        level = emit.splat(builder, builder.extract_element(table, ir.Constant(emit.INT, code)), BYTES)
        if result is None:
            result = level
        else:
            reached = builder.icmp_unsigned(">=", codes, emit.constant(codes.type, code))
            result = builder.select(reached, level, result)
    assert result is not None
    return result
