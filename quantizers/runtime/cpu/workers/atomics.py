"""Atomic operations on int64 in memory, and what else a compiled function needs that waits for other threads.

Addresses are int64 and aligned to 8 bytes. All operations are sequentially consistent: all threads see them in one
order.
"""

# ruff: noqa: D103
from __future__ import annotations

from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from nash_swarm.quantizers.runtime.cpu.simd import emit

ARGUMENTS = 6
"""What a function that `call` calls takes before its workspace and its rows."""
_ORDER = "seq_cst"
_PAUSES = {
    "x86_64": ("llvm.x86.sse2.pause", []),
    "i686": ("llvm.x86.sse2.pause", []),
    "aarch64": ("llvm.aarch64.hint", [1]),
    "arm64": ("llvm.aarch64.hint", [1]),
}
"""By processor: the instruction that leaves what a core has to others for a moment."""


@cache
def address(function: Any) -> int:
    """Of a function that Numba has compiled for one signature, as a C function."""
    (compiled,) = function.overloads.values()
    return int(compiled.library.get_pointer_to_function(compiled.fndesc.llvm_cfunc_wrapper_name))


def _pointer(builder: ir.IRBuilder, address: ir.Value) -> ir.Value:
    return builder.inttoptr(address, emit.LONG.as_pointer())


@intrinsic
def load(typing: Any, address: Any) -> Any:
    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        return builder.load_atomic(_pointer(builder, args[0]), _ORDER, 8)

    return types.int64(types.int64), generate


@intrinsic
def store(typing: Any, address: Any, value: Any) -> Any:
    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        builder.store_atomic(args[1], _pointer(builder, args[0]), _ORDER, 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def add(typing: Any, address: Any, value: Any) -> Any:
    """Add to what is there; returns what was there before."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", _pointer(builder, args[0]), args[1], _ORDER)

    return types.int64(types.int64, types.int64), generate


@intrinsic
def replace(typing: Any, address: Any, old: Any, new: Any) -> Any:
    """Put `new` where `old` is; returns whether it was."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        result = builder.cmpxchg(_pointer(builder, args[0]), args[1], args[2], _ORDER, _ORDER)
        return builder.extract_value(result, 1)

    return types.boolean(types.int64, types.int64, types.int64), generate


@intrinsic
def pause(typing: Any) -> Any:
    """Let a moment pass in a loop that waits for another thread."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        name, hints = _PAUSES.get(builder.module.triple.split("-")[0], (None, []))
        if name is not None:
            emit.call(builder, name, ir.VoidType(), [ir.Constant(emit.INT, hint) for hint in hints])
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def call(typing: Any, function: Any, arguments: Any, workspace: Any, first: Any, past: Any) -> Any:
    """Call the C function at an address with a tuple of `ARGUMENTS` int64 and the other three."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [emit.LONG] * (ARGUMENTS + 3))
        own = [builder.extract_value(args[1], i) for i in range(ARGUMENTS)]
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), [*own, *args[2:]])
        return context.get_dummy_value()

    return types.void(types.int64, types.UniTuple(types.int64, ARGUMENTS), *[types.int64] * 3), generate


@intrinsic
def fork_and_join(typing: Any, runtime: Any, function: Any, argument: Any, threads: Any) -> Any:
    """Call the C function `function(argument)` on so many threads of an OpenMP runtime; returns when all have.

    runtime: address of `GOMP_parallel(function, argument, threads, flags)`.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [emit.LONG, emit.LONG, emit.INT, emit.INT])
        threads = builder.trunc(args[3], emit.INT)
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), [*args[1:3], threads, ir.Constant(emit.INT, 0)])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), generate
