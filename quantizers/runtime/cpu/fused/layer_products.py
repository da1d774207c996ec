"""Products of one token inside a decoder layer: those of the same input are one run of tiles.

Workers share the run out; alone, the calling thread does all of it. What the products are of stands in a table of
int64, one after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from nash_swarm.compiling import njit
from nash_swarm.quantizers.runtime.cpu.fingerprint import fingerprint
from nash_swarm.quantizers.runtime.cpu.fused.single_token import LANES
from nash_swarm.quantizers.runtime.cpu.simd.vectors import add_floats, load_floats, load_long, store_floats
from nash_swarm.quantizers.runtime.cpu.workers.atomics import ARGUMENTS, address, call
from nash_swarm.quantizers.runtime.cpu.workers.spinning import share_out

_FUNCTION, _MATRIX, _CHUNK, _TILES, _ROWS, _BIAS, _READY, _SMALLEST, PRODUCT = range(0, 72, 8)
HELPERS = ("workers", "shares", "scratch", "scratch_size", "products", "attend")
"""What the workers' caller has, int64: their address; how many shares pay; memory of the shares, and how much of it
each has, in bytes; addresses of the compiled `products` and of `decoder_stack.attention`."""
WORKERS, SHARES, SCRATCH, SCRATCH_SIZE, PRODUCTS, ATTEND = range(0, 8 * len(HELPERS), 8)


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
        smallest: tiles below which a share is not worth another worker.
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
    smallest: int


def product_row(product: OneToken, ready: bool) -> list[int]:
    """A product's part of the table; ready: its input is the one before's, rounded alike."""
    own = (product.function, product.matrix, product.chunk, product.tiles, product.rows, product.bias)
    return [*own, int(ready), product.smallest]


@njit(inline="always")
def add_to(x: int, y: int, out: int, size: int) -> None:
    """out = x + y, float32 (size,); size is a multiple of `LANES`."""
    for k in range(0, 4 * size, 4 * LANES):
        store_floats(out + k, add_floats(load_floats(x + k), load_floats(y + k)))


@njit
def _some_tiles(
    own: int, count: int, inputs: int, out: int, second: int, third: int, work: int, first: int, past: int
) -> None:
    """Tiles `first` to `past` of up to three products' tiles, which follow each other."""
    for k in range(count):
        tiles = load_long(own + _TILES)
        low, high = max(first, 0), min(past, tiles)
        if low < high:
            arguments = (load_long(own + _MATRIX), 0, inputs, out, 1, load_long(own + _CHUNK))
            call(load_long(own + _FUNCTION), arguments, work, low, high)
        first, past, own, out = first - tiles, past - tiles, own + PRODUCT, second if k == 0 else third


@njit
def multiply_token(
    own: int, count: int, x: int, out: int, second: int, third: int, inputs: int, work: int, helpers: int
) -> None:
    """Products of one token x.

    own: address of the first one's part of the table. count: how many. out, second, third: where their outputs go.
    inputs, work: memory of what the neediest asks for. helpers: address of `HELPERS`, or 0.
    """
    k = 0
    while k < count:
        # without tiles this only rounds the input
        arguments = (load_long(own + _MATRIX), x, inputs, 0, 1, load_long(own + _CHUNK))
        call(load_long(own + _FUNCTION), arguments, work, 0, 1)
        together, tiles, end = 1, load_long(own + _TILES), own + PRODUCT
        while k + together < count and load_long(end + _READY) != 0:
            tiles += load_long(end + _TILES)
            together, end = together + 1, end + PRODUCT
        shares = 1 if helpers == 0 else min(load_long(helpers + SHARES), tiles // load_long(own + _SMALLEST))
        if shares > 1:
            share_out(
                load_long(helpers + WORKERS), load_long(helpers + PRODUCTS),
                (own, together, inputs, out, second, third),
                load_long(helpers + SCRATCH), load_long(helpers + SCRATCH_SIZE), tiles, shares,
            )  # fmt: skip
        else:
            _some_tiles(own, together, inputs, out, second, third, work, 0, tiles)
        for _ in range(together):
            if load_long(own + _BIAS) != 0:
                add_to(out, load_long(own + _BIAS), out, load_long(own + _ROWS))
            own, out, second = own + PRODUCT, second, third
        k += together


@cache
def products() -> int:
    """Address of a C function: tiles `first` to `past` of up to three products.

    `run(own, count, inputs, out, second, third, work, first, past)`; compiled now if it is not yet.
    """
    return address(_compile(fingerprint()))


def _compile(source: int) -> Callable[..., None]:
    # the constant is a cell of the closure, which Numba's disk cache tells apart
    @njit(f"void({', '.join(['int64'] * (ARGUMENTS + 3))})", nogil=True, cache=True, error_model="numpy")
    def run_products(
        own: int, count: int, inputs: int, out: int, second: int, third: int, work: int, first: int, past: int
    ) -> None:
        _ = source
        _some_tiles(own, count, inputs, out, second, third, work, first, past)

    run: Any = run_products
    return run
