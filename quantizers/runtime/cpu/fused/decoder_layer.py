"""A decoder layer for one token: all that comes before its keys and values are kept, and all that comes after.

What the products are of, and where, stands in a table of int64 (`layer_table`), as matrices' own do. The functions take
addresses; whoever calls has checked that the memory is there. They do what the kernels of `single_token` and of the
products do one by one, in the same order, and so come to the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from nash_swarm.compiling import njit
from nash_swarm.quantizers.runtime.cpu.aligned import whole_lines
from nash_swarm.quantizers.runtime.cpu.fused.layer_products import (
    PRODUCT,
    OneToken,
    add_to,
    multiply_token,
    product_row,
)
from nash_swarm.quantizers.runtime.cpu.fused.single_token import gate_body, norm_body, rotate_body
from nash_swarm.quantizers.runtime.cpu.simd.vectors import load_float, load_long

FIELDS = (
    "hidden", "inner", "queries", "keys", "head", "scale", "rotary", "positions", "window", "activation", "inputs",
    "work", "gate", "up", "room", "projections", "gates",
)  # fmt: skip
"""What a layer's table begins with, int64: `layer_table` says what is what."""
NORMS = ("before_attention", "queries", "keys", "after_attention", "before_mlp", "after_mlp")
"""Then of each norm the address of its gain, 0 if there is none, and its epsilon."""
PRODUCTS = ("q", "k", "v", "o", "gate", "up", "down")
"""Then each product's `layer_products.product_row`."""
_FIRST_NORM = 8 * len(FIELDS)
_FIRST_PRODUCT = _FIRST_NORM + 16 * len(NORMS)
(
    _HIDDEN, _INNER, QUERIES, KEYS, HEAD, SCALE, _ROTARY, _POSITIONS, WINDOW, _ACTIVATION, _INPUTS, _WORK, _GATE, _UP,
    ROOM, _PROJECTIONS, _GATES,
) = range(0, _FIRST_NORM, 8)  # fmt: skip
_BEFORE_ATTENTION, _OF_QUERIES, _OF_KEYS, _AFTER_ATTENTION, _BEFORE_MLP, _AFTER_MLP = range(
    _FIRST_NORM, _FIRST_PRODUCT, 16
)
_Q, _K, _V, _O, _GATE_PRODUCT, _UP_PRODUCT, _DOWN = range(
    _FIRST_PRODUCT, _FIRST_PRODUCT + len(PRODUCTS) * PRODUCT, PRODUCT
)


def layer_table(
    products: Mapping[str, OneToken], norms: Mapping[str, tuple[int, float]], settings: Mapping[str, int], scale: float
) -> tuple[npt.NDArray[np.int64], int]:
    """What the kernels want to know of a layer, and how many bytes of room a call needs.

    Args:
        products: by the names of `PRODUCTS`; `q` alone may be of the rows of `q`, `k` and `v`, `gate` of both.
        norms: addresses of gains, and epsilons, by the names of `NORMS`: of the token, float32 (hidden,), before and
            after attention and MLP; of the heads of queries and keys, float32 (head,).
        settings: `hidden`, elements of a token; `inner`, columns of `down`; `queries` and `keys`, numbers of heads;
            `head`, elements of one; `rotary`, how many of these are rotated; `positions`, which of the call's cosines
            and sines; `window`, tokens that are seen at most, or 0; `activation`, see `single_token.gate_body`.
        scale: of products of queries with keys.
    """
    widest = whole_lines(4 * max(settings["hidden"], settings["inner"]))
    inputs = whole_lines(max(product.inputs for product in products.values()))
    work = whole_lines(max(product.work for product in products.values()))
    gate, inner = widest + inputs + work, 4 * settings["inner"]
    values = {
        **settings, "scale": _bits(scale), "inputs": widest, "work": widest + inputs, "gate": gate, "up": gate + inner,
        "room": gate + whole_lines(2 * inner), "projections": sum(name in products for name in "qkv"),
        "gates": sum(name in products for name in ("gate", "up")),
    }  # fmt: skip
    rows = [values[name] for name in FIELDS]
    for name in NORMS:
        gain, epsilon = norms.get(name, (0, 0.0))
        rows += [gain, _bits(epsilon)]
    last: Any = None
    for name in PRODUCTS:
        product = products.get(name)
        if product is None:
            rows += [0] * (PRODUCT // 8)
            continue
        # q, k and v have one input, and so have gate and up
        rows += product_row(product, name in ("k", "v", "up") and product.input_kind == last)
        last = product.input_kind
    return np.array(rows, np.int64), values["room"]


def _bits(value: float) -> int:
    return int(np.float32(value).view(np.int32))


@njit(inline="always")
def _norm(table: int, norm: int, x: int, out: int, count: int, size: int) -> None:
    norm_body(x, load_long(table + norm), out, count, size, load_float(table + norm + 8))


@njit
def _norm_if_any(table: int, norm: int, x: int, count: int, size: int) -> None:
    if load_long(table + norm) != 0:
        norm_body(x, load_long(table + norm), x, count, size, load_float(table + norm + 8))


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
    """Norm, products, and norms, if there are any, and rotation of the heads of queries and keys.

    cosines, sines: of all kinds of positions, one after the other. queries, keys, values: written, one right behind the
    other. helpers: as of `layer_products.multiply_token`.
    """
    heads, key_heads, size = load_long(table + QUERIES), load_long(table + KEYS), load_long(table + HEAD)
    rotary = load_long(table + _ROTARY)
    place = 4 * rotary * load_long(table + _POSITIONS)
    _norm(table, _BEFORE_ATTENTION, x, room, 1, load_long(table + _HIDDEN))
    _multiply(table, _Q, load_long(table + _PROJECTIONS), room, queries, keys, values, room, helpers)
    _norm_if_any(table, _OF_QUERIES, queries, heads, size)
    _norm_if_any(table, _OF_KEYS, keys, key_heads, size)
    rotate_body(queries, cosines + place, sines + place, heads, size, rotary)
    rotate_body(keys, cosines + place, sines + place, key_heads, size, rotary)


@njit(inline="always")
def after_body(table: int, x: int, attended: int, out: int, room: int, helpers: int) -> None:
    """Product of what the attention gives, its norm if there is one, residual; norm, gated MLP, norm, residual.

    out: may be x. helpers: as of `layer_products.multiply_token`.
    """
    hidden, inner = load_long(table + _HIDDEN), load_long(table + _INNER)
    gate, up = room + load_long(table + _GATE), room + load_long(table + _UP)
    _multiply(table, _O, 1, attended, room, 0, 0, room, helpers)
    _norm_if_any(table, _AFTER_ATTENTION, room, 1, hidden)
    add_to(x, room, out, hidden)
    _norm(table, _BEFORE_MLP, out, room, 1, hidden)
    _multiply(table, _GATE_PRODUCT, load_long(table + _GATES), room, gate, up, 0, room, helpers)
    gate_body(gate, up, gate, inner, load_long(table + _ACTIVATION))
    _multiply(table, _DOWN, 1, gate, room, 0, 0, room, helpers)
    _norm_if_any(table, _AFTER_MLP, room, 1, hidden)
    add_to(out, room, out, hidden)
