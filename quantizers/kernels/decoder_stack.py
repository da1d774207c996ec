"""All decoder layers for one token in one call, with the token's keys and values written where they are kept.

Each layer does what the kernels of `decoder_layer` and the attention of `single_token` do, in the same order, and so
comes to the same bits. The kernel takes addresses and releases the GIL; whoever calls has checked that the memory is
there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from numba import njit

from nash_swarm.quantizers.kernels.aligned import whole_lines
from nash_swarm.quantizers.kernels.decoder_layer import HEAD, KEYS, QUERIES, ROOM, SCALE, after_body, before_body
from nash_swarm.quantizers.kernels.fingerprint import fingerprint
from nash_swarm.quantizers.kernels.simd.vectors import load_float, load_floats, load_long, store_floats
from nash_swarm.quantizers.kernels.single_token import LANES, attend_body, attention_room

KEPT = ("keys", "values", "key_head", "key_token", "value_head", "value_token")
"""Of a layer's cache, int64: addresses of float32 (key heads, tokens, head), and strides in elements."""
_KEYS, _VALUES, _KEY_HEAD, _KEY_TOKEN, _VALUE_HEAD, _VALUE_TOKEN, _KEPT = range(0, 56, 8)
_whole = njit(inline="always")(whole_lines)

StackKernel = Callable[[int, int, int, int, int, int, int, int], None]


def stack_room(layer: int, queries: int, keys: int, group: int, tokens: int) -> int:
    """Elements of room that `kernel` needs.

    Args:
        layer: what the neediest layer needs for itself.
        queries, keys: elements of a token's queries, and of its keys.
        group: query heads of a key head.
        tokens: in the cache, the new one included.
    """
    lines = [whole_lines(4 * count) for count in (layer, queries, queries, keys, keys)]
    return sum(lines) // 4 + attention_room(group, tokens)


@cache
def kernel() -> StackKernel:
    """Compiled now if it is not yet.

    `run(tables, kept, count, x, cosines, sines, tokens, room)`. tables: addresses of the layers'
    `decoder_layer.layer_table`, int64 (count,). kept: int64 (count, `KEPT`), with memory for `tokens` tokens and one
    more. x: the token, float32, in whose place comes what the last layer gives. room: see `stack_room`.
    """
    return _compile(fingerprint())


@njit(inline="always")
def _keep(states: int, heads: int, size: int, kept: int, head: int) -> None:
    """Write states (heads, size) to `kept`, where heads stand `head` elements apart."""
    for k in range(heads):
        for at in range(0, 4 * size, 4 * LANES):
            store_floats(kept + 4 * head * k + at, load_floats(states + 4 * size * k + at))


def _compile(source: int) -> Any:
    # the constant is a cell of the closure, which Numba's disk cache tells apart
    @njit(f"void({', '.join(['int64'] * 8)})", nogil=True, cache=True, error_model="numpy")
    def run_stack(tables: int, kept: int, count: int, x: int, cosines: int, sines: int, tokens: int, room: int) -> None:
        _ = source
        for k in range(count):
            table = load_long(tables + 8 * k)
            heads, size = load_long(table + KEYS), load_long(table + HEAD)
            group = load_long(table + QUERIES) // heads
            wide, narrow = _whole(4 * heads * group * size), _whole(4 * heads * size)
            queries = room + load_long(table + ROOM)
            attended, keys, values = queries + wide, queries + 2 * wide, queries + 2 * wide + narrow
            before_body(table, x, cosines, sines, queries, keys, values, room)
            key_head, key_token = load_long(kept + _KEY_HEAD), load_long(kept + _KEY_TOKEN)
            value_head, value_token = load_long(kept + _VALUE_HEAD), load_long(kept + _VALUE_TOKEN)
            all_keys, all_values = load_long(kept + _KEYS), load_long(kept + _VALUES)
            _keep(keys, heads, size, all_keys + 4 * key_token * tokens, key_head)
            _keep(values, heads, size, all_values + 4 * value_token * tokens, value_head)
            attend_body(
                queries, all_keys, all_values, attended, values + narrow, heads, group, tokens + 1, size, key_head,
                key_token, value_head, value_token, load_float(table + SCALE),
            )  # fmt: skip
            after_body(table, x, attended, x, room)
            kept += _KEPT

    return run_stack
