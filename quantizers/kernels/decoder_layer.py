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
from numba import njit

from nash_swarm.quantizers.kernels.aligned import whole_lines
from nash_swarm.quantizers.kernels.atomics import call
from nash_swarm.quantizers.kernels.fingerprint import fingerprint
from nash_swarm.quantizers.kernels.simd.vectors import (
    add_floats,
    load_float,
    load_floats,
    load_long,
    store_floats,
)
from nash_swarm.quantizers.kernels.single_token import LANES, gate_body, norm_body, rotate_body

PRODUCTS = ("q", "k", "v", "o", "gate", "up", "down")
_HIDDEN, _INNER, QUERIES, KEYS, HEAD, SCALE = range(0, 48, 8)
_INPUTS, _WORK, _GATE, _UP, ROOM = range(48, 88, 8)
_FIRST_NORM, _SECOND_NORM, _QUERY_NORM, _KEY_NORM = range(88, 152, 16)
_FUNCTION, _MATRIX, _CHUNK, _TILES, _ROWS, _BIAS, _READY, _PRODUCT = range(0, 64, 8)
_TABLE = 152
_Q, _K, _V, _O, _GATE_PRODUCT, _UP_PRODUCT, _DOWN = range(_TABLE, _TABLE + 7 * _PRODUCT, _PRODUCT)


@dataclass(frozen=True)
class OneToken:
    """A product of one token.

    Attributes:
        function: address of the compiled product, see `compiled.kernel`.
        matrix: address of its table, see `descriptor`.
        chunk: what it takes at once.
        tiles: of 16 rows.
        rows: outputs.
        bias: address of float32 (rows,), or 0.
        inputs: bytes of the rounded input.
        work: bytes of its own.
        input_kind: products with equal kinds can use the same rounded input.
    """

    function: int
    matrix: int
    chunk: int
    tiles: int
    rows: int
    bias: int
    inputs: int
    work: int
    input_kind: Any


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
        rows += [product.function, product.matrix, product.chunk, product.tiles, product.rows, product.bias, ready]
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
def _add(x: int, y: int, out: int, size: int) -> None:
    for k in range(0, 4 * size, 4 * LANES):
        store_floats(out + k, add_floats(load_floats(x + k), load_floats(y + k)))


@njit
def _multiply(table: int, product: int, x: int, out: int, room: int) -> None:
    inputs, work = room + load_long(table + _INPUTS), room + load_long(table + _WORK)
    own = table + product
    given = x if load_long(own + _READY) == 0 else 0
    arguments = (load_long(own + _MATRIX), given, inputs, out, 1, load_long(own + _CHUNK))
    call(load_long(own + _FUNCTION), arguments, work, 0, load_long(own + _TILES))
    if load_long(own + _BIAS) != 0:
        _add(out, load_long(own + _BIAS), out, load_long(own + _ROWS))


@njit(inline="always")
def _norm(table: int, norm: int, x: int, out: int, count: int, size: int) -> None:
    norm_body(x, load_long(table + norm), out, count, size, load_float(table + norm + 8))


@njit(inline="always")
def before_body(table: int, x: int, cosines: int, sines: int, queries: int, keys: int, values: int, room: int) -> None:
    """See `LayerKernels.before`."""
    heads, key_heads, size = load_long(table + QUERIES), load_long(table + KEYS), load_long(table + HEAD)
    _norm(table, _FIRST_NORM, x, room, 1, load_long(table + _HIDDEN))
    _multiply(table, _Q, room, queries, room)
    _multiply(table, _K, room, keys, room)
    _multiply(table, _V, room, values, room)
    if load_long(table + _QUERY_NORM) != 0:
        _norm(table, _QUERY_NORM, queries, queries, heads, size)
        _norm(table, _KEY_NORM, keys, keys, key_heads, size)
    rotate_body(queries, cosines, sines, heads, size)
    rotate_body(keys, cosines, sines, key_heads, size)


@njit(inline="always")
def after_body(table: int, x: int, attended: int, out: int, room: int) -> None:
    """See `LayerKernels.after`; out may be x."""
    hidden, inner = load_long(table + _HIDDEN), load_long(table + _INNER)
    gate, up = room + load_long(table + _GATE), room + load_long(table + _UP)
    _multiply(table, _O, attended, room, room)
    _add(x, room, out, hidden)
    _norm(table, _SECOND_NORM, out, room, 1, hidden)
    _multiply(table, _GATE_PRODUCT, room, gate, room)
    _multiply(table, _UP_PRODUCT, room, up, room)
    gate_body(gate, up, gate, inner)
    _multiply(table, _DOWN, gate, room, room)
    _add(out, room, out, hidden)


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
        before_body(table, x, cosines, sines, queries, keys, values, room)

    @compiled(5)
    def after(table: int, x: int, attended: int, out: int, room: int) -> None:
        _ = source
        after_body(table, x, attended, out, room)

    return LayerKernels(before, after)
