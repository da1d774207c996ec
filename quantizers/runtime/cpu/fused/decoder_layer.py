"""A decoder layer for one token as two calls: all that comes before its keys and values are kept, and all after.

What the products are of, and where, stands in a table of int64 (`LayerTable`), as matrices' own do. Both kernels take
addresses and release the GIL; whoever calls has checked that the memory is there. They do what the kernels of
`single_token` and of the products do one by one, in the same order, and so come to the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from nash_swarm.compiling import njit
from nash_swarm.quantizers.runtime.cpu.aligned import whole_lines
from nash_swarm.quantizers.runtime.cpu.fingerprint import fingerprint
from nash_swarm.quantizers.runtime.cpu.fused.layer_products import (
    PRODUCT,
    OneToken,
    add_to,
    multiply_token,
    product_row,
)
from nash_swarm.quantizers.runtime.cpu.fused.single_token import gate_body, norm_body, rotate_body
from nash_swarm.quantizers.runtime.cpu.simd.vectors import load_float, load_long

PRODUCTS = ("q", "k", "v", "o", "gate", "up", "down")
_HIDDEN, _INNER, QUERIES, KEYS, HEAD, SCALE = range(0, 48, 8)
_INPUTS, _WORK, _GATE, _UP, ROOM = range(48, 88, 8)
_FIRST_NORM, _SECOND_NORM, _QUERY_NORM, _KEY_NORM = range(88, 152, 16)
_TABLE = 152
_Q, _K, _V, _O, _GATE_PRODUCT, _UP_PRODUCT, _DOWN = range(_TABLE, _TABLE + 7 * PRODUCT, PRODUCT)


def layer_table(
    products: Mapping[str, OneToken],
    norms: Sequence[tuple[int, float]],
    scale: float,
    hidden: int,
    inner: int,
    heads: tuple[int, int],
    size: int,
) -> tuple[npt.NDArray[np.int64], int]:
    """What the kernels want to know of a layer, and how many bytes of room a call needs.

    Args:
        products: by the names of `PRODUCTS`.
        norms: addresses of gains, and epsilons: before the attention and before the MLP, float32 (hidden,); of queries'
            and keys' heads, float32 (size,), if there are any.
        scale: of products of queries with keys.
        hidden: elements of a token.
        inner: rows of `gate` and `up`, columns of `down`.
        heads: of queries, and of keys.
        size: elements of a head.
    """
    widest = whole_lines(4 * max(hidden, inner))
    inputs = whole_lines(max(product.inputs for product in products.values()))
    work = whole_lines(max(product.work for product in products.values()))
    places = np.cumsum([widest, inputs, work, widest, widest])
    header = [hidden, inner, heads[0], heads[1], size, _bits(scale), *places]
    for gain, epsilon in [*norms, (0, 0.0), (0, 0.0)][:4]:
        header += [gain, _bits(epsilon)]
    last: Any = None
    rows: list[int] = []
    for name in PRODUCTS:
        product = products[name]
        # q, k and v have one input, and so have gate and up
        ready = name in ("k", "v", "up") and product.input_kind == last
        rows += product_row(product, ready)
        last = product.input_kind
    return np.array(header + rows, np.int64), int(places[-1])


def _bits(value: float) -> int:
    return int(np.float32(value).view(np.int32))


@dataclass(frozen=True)
class LayerKernels:
    """The compiled kernels.

    Attributes:
        before: `before(table, x, cosines, sines, queries, keys, values, room)`: norm, three products, and norms, if
            there are any, and rotation of the heads of queries and keys.
        after: `after(table, x, attended, out, room)`: product of what the attention gives, residual, norm, gated MLP
            with SiLU, residual.
    """

    before: Callable[[int, int, int, int, int, int, int, int], None]
    after: Callable[[int, int, int, int, int], None]


@njit(inline="always")
def _norm(table: int, norm: int, x: int, out: int, count: int, size: int) -> None:
    norm_body(x, load_long(table + norm), out, count, size, load_float(table + norm + 8))


@njit(inline="always")
def _multiply(
    table: int, product: int, count: int, x: int, out: int, second: int, third: int, room: int, helpers: int
) -> None:
    inputs, work = room + load_long(table + _INPUTS), room + load_long(table + _WORK)
    multiply_token(table + product, count, x, out, second, third, inputs, work, helpers)


@njit(inline="always")
def before_body(
    table: int, x: int, cosines: int, sines: int, queries: int, keys: int, values: int, room: int, helpers: int
) -> None:
    """See `LayerKernels.before`; helpers: as of `layer_products.multiply_token`."""
    heads, key_heads, size = load_long(table + QUERIES), load_long(table + KEYS), load_long(table + HEAD)
    _norm(table, _FIRST_NORM, x, room, 1, load_long(table + _HIDDEN))
    _multiply(table, _Q, 3, room, queries, keys, values, room, helpers)
    if load_long(table + _QUERY_NORM) != 0:
        _norm(table, _QUERY_NORM, queries, queries, heads, size)
        _norm(table, _KEY_NORM, keys, keys, key_heads, size)
    rotate_body(queries, cosines, sines, heads, size)
    rotate_body(keys, cosines, sines, key_heads, size)


@njit(inline="always")
def after_body(table: int, x: int, attended: int, out: int, room: int, helpers: int) -> None:
    """See `LayerKernels.after`; out may be x. helpers: as of `layer_products.multiply_token`."""
    hidden, inner = load_long(table + _HIDDEN), load_long(table + _INNER)
    gate, up = room + load_long(table + _GATE), room + load_long(table + _UP)
    _multiply(table, _O, 1, attended, room, 0, 0, room, helpers)
    add_to(x, room, out, hidden)
    _norm(table, _SECOND_NORM, out, room, 1, hidden)
    _multiply(table, _GATE_PRODUCT, 2, room, gate, up, 0, room, helpers)
    gate_body(gate, up, gate, inner)
    _multiply(table, _DOWN, 1, gate, room, 0, 0, room, helpers)
    add_to(out, room, out, hidden)


@cache
def kernels() -> LayerKernels:
    """Compiled now if they are not yet."""
    return _compile(fingerprint())


def _compile(source: int) -> LayerKernels:
    # the constant is a cell of the closures, which Numba's disk cache tells apart
    def compiled(addresses: int) -> Any:
        return njit(f"void({', '.join(['int64'] * addresses)})", nogil=True, cache=True, error_model="numpy")

    @compiled(8)
    def before(table: int, x: int, cosines: int, sines: int, queries: int, keys: int, values: int, room: int) -> None:
        _ = source
        before_body(table, x, cosines, sines, queries, keys, values, room, 0)

    @compiled(5)
    def after(table: int, x: int, attended: int, out: int, room: int) -> None:
        _ = source
        after_body(table, x, attended, out, room, 0)

    return LayerKernels(before, after)
