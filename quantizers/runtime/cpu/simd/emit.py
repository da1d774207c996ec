"""Small pieces of LLVM code that the intrinsics share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from llvmlite.binding import get_host_cpu_name
from numba.core import cgutils

LANES = 16
ON_ZEN = get_host_cpu_name().startswith("znver")

PASSING, SECOND_CACHE, ALL_CACHES = 0, 2, 3
"""Where prefetched lines go, in LLVM's terms."""
STREAMED = PASSING if ON_ZEN else SECOND_CACHE
"""Packed weights are read once a token: through the second cache they only drive out what is needed again. But Intel's
processors wait for fewer lines at a time on their way to the first cache than to the second one: past it, weights came
at two thirds of the speed."""

BYTE, SHORT, INT, LONG = (ir.IntType(bits) for bits in (8, 16, 32, 64))
FLOAT = ir.FloatType()


def vector(element: ir.Type, count: int = LANES) -> ir.VectorType:
    """The type of `count` elements."""
    return ir.VectorType(element, count)


INTS, FLOATS = vector(INT), vector(FLOAT)


def constant(kind: ir.VectorType, value: float) -> ir.Constant:
    """`value` in every lane."""
    return ir.Constant(kind, [value] * kind.count)


def load(builder: ir.IRBuilder, address: ir.Value, kind: ir.Type) -> ir.Value:
    """Read at an integer address that need not be aligned."""
    value = builder.load(builder.inttoptr(address, kind.as_pointer()))
    value.align = 1
    return value


def load_bytes(builder: ir.IRBuilder, address: ir.Value) -> ir.Value:
    """Sixteen bytes, one a lane."""
    return builder.zext(load(builder, address, vector(BYTE)), INTS)


def store(builder: ir.IRBuilder, address: ir.Value, value: ir.Value) -> None:
    """Write at an integer address that need not be aligned."""
    builder.store(value, builder.inttoptr(address, value.type.as_pointer())).align = 1


def prefetch(builder: ir.IRBuilder, address: ir.Value, locality: int) -> None:
    """Ask for the cache line of an address, which need not exist."""
    hints = [ir.Constant(INT, hint) for hint in (0, locality, 1)]  # to read, data
    call(builder, "llvm.prefetch.p0", ir.VoidType(), [builder.inttoptr(address, BYTE.as_pointer()), *hints])


def offset(builder: ir.IRBuilder, address: ir.Value, count: int) -> ir.Value:
    """The address `count` bytes on."""
    return builder.add(address, ir.Constant(LONG, count)) if count else address


def element(builder: ir.IRBuilder, address: ir.Value, index: ir.Value, size: int, after: int = 0) -> ir.Value:
    """The address of element `index + after` of an array with elements of `size` bytes."""
    return offset(builder, builder.add(address, builder.mul(index, ir.Constant(LONG, size))), after * size)


def fused(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
    """a * b + c of sixteen floats, rounded once on every CPU; one that cannot asks its mathematical library."""
    return call(builder, "llvm.fma.v16f32", FLOATS, [a, b, c])


def add_product_to(builder: ir.IRBuilder, address: ir.Value, a: ir.Value, b: ir.Value) -> None:
    """Add a * b, rounded once, to the sixteen floats in memory."""
    store(builder, address, fused(builder, a, b, load(builder, address, FLOATS)))


@contextmanager
def loop(builder: ir.IRBuilder, past: ir.Value, first: ir.Value | None = None, step: int = 1) -> Iterator[ir.Value]:
    """A loop over int64 `range(first, past, step)` whose body is what is emitted inside."""
    start = ir.Constant(LONG, 0) if first is None else first
    with cgutils.for_range_slice(builder, start, past, ir.Constant(LONG, step), LONG) as (index, _):
        yield index


def cases(builder: ir.IRBuilder, value: ir.Value, keys: Sequence[int]) -> Iterator[int]:
    """Code for each key, run if the int64 value is that key; the last one's also if it is none of them."""
    yield from _branches(builder, keys, lambda key: builder.icmp_signed("==", value, ir.Constant(LONG, key)))


def at_most(builder: ir.IRBuilder, value: ir.Value, keys: Sequence[int]) -> Iterator[int]:
    """Code for each of the rising keys, run if it is the first that the int64 value does not exceed, or the last."""
    yield from _branches(builder, keys, lambda key: builder.icmp_signed("<=", value, ir.Constant(LONG, key)))


def _branches(builder: ir.IRBuilder, keys: Sequence[int], test: Callable[[int], ir.Value]) -> Iterator[int]:
    after = builder.append_basic_block("after")
    for key in keys[:-1]:
        then, otherwise = builder.append_basic_block(f"case{key}"), builder.append_basic_block("next")
        builder.cbranch(test(key), then, otherwise)
        builder.position_at_end(then)
        yield key
        builder.branch(after)
        builder.position_at_end(otherwise)
    yield keys[-1]
    builder.branch(after)
    builder.position_at_end(after)


def splat(builder: ir.IRBuilder, value: ir.Value, count: int = LANES) -> ir.Value:
    """A scalar in every lane."""
    undefined = ir.Constant(vector(value.type, count), ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(INT, 0))
    return builder.shuffle_vector(first, undefined, constant(vector(INT, count), 0))


def total(builder: ir.IRBuilder, values: Sequence[ir.Value]) -> ir.Value:
    """The sum of one or more vectors of integers."""
    result = values[0]
    for value in values[1:]:
        result = builder.add(result, value)
    return result


def pick(builder: ir.IRBuilder, value: ir.Value, lanes: Sequence[int]) -> ir.Value:
    """The named lanes of a vector."""
    mask = ir.Constant(vector(INT, len(lanes)), list(lanes))
    return builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), mask)


def call(builder: ir.IRBuilder, name: str, result: ir.Type, arguments: Sequence[ir.Value]) -> Any:
    """Call an LLVM intrinsic by its mangled name (llvmlite's own declarations know no vectors)."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    return builder.call(function, arguments)
