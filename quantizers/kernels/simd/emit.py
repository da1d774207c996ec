"""Small pieces of LLVM code that the intrinsics share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

LANES = 16

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


def store(builder: ir.IRBuilder, address: ir.Value, value: ir.Value) -> None:
    """Write at an integer address that need not be aligned."""
    builder.store(value, builder.inttoptr(address, value.type.as_pointer())).align = 1


def offset(builder: ir.IRBuilder, address: ir.Value, count: int) -> ir.Value:
    """The address `count` bytes on."""
    return builder.add(address, ir.Constant(LONG, count)) if count else address


def splat(builder: ir.IRBuilder, value: ir.Value, count: int = LANES) -> ir.Value:
    """A scalar in every lane."""
    undefined = ir.Constant(vector(value.type, count), ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(INT, 0))
    return builder.shuffle_vector(first, undefined, constant(vector(INT, count), 0))


def pick(builder: ir.IRBuilder, value: ir.Value, lanes: Sequence[int]) -> ir.Value:
    """The named lanes of a vector."""
    mask = ir.Constant(vector(INT, len(lanes)), list(lanes))
    return builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), mask)


def call(builder: ir.IRBuilder, name: str, result: ir.Type, arguments: Sequence[ir.Value]) -> Any:
    """Call an LLVM intrinsic by its mangled name (llvmlite's own declarations know no vectors)."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    return builder.call(function, arguments)
