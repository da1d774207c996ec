"""All decoder layers for one token in one call, with the token's keys and values written where they are kept.

Each layer does what the functions of `decoder_layer` and the attention of `single_token` do, in the same order, and so
comes to the same bits, however many threads share out its products and heads. The kernel takes addresses and releases
the GIL; whoever calls has checked that the memory is there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from nash_swarm.compiling import njit
from nash_swarm.quantizers.runtime.cpu.aligned import aligned_empty, whole_lines
from nash_swarm.quantizers.runtime.cpu.fingerprint import fingerprint
from nash_swarm.quantizers.runtime.cpu.fused.decoder_layer import (
    HEAD,
    KEYS,
    QUERIES,
    ROOM,
    SCALE,
    WINDOW,
    after_body,
    before_body,
)
from nash_swarm.quantizers.runtime.cpu.fused.layer_products import (
    ATTEND,
    HELPERS,
    SCRATCH,
    SCRATCH_SIZE,
    SHARES,
    WORKERS,
    products,
)
from nash_swarm.quantizers.runtime.cpu.fused.single_token import LANES, attend_body, attention_room
from nash_swarm.quantizers.runtime.cpu.simd.vectors import load_float, load_floats, load_long, store_floats
from nash_swarm.quantizers.runtime.cpu.workers.atomics import ARGUMENTS, address
from nash_swarm.quantizers.runtime.cpu.workers.spinning import WORKERS_BYTES, dismiss, serve, share_out

KEPT = ("keys", "values", "key_head", "key_token", "value_head", "value_token", "tokens")
"""Of a layer's cache, int64: addresses of float32 (key heads, tokens, head), strides in elements, and how many tokens
there are, behind which is room for one more."""
_KEYS, _VALUES, _KEY_HEAD, _KEY_TOKEN, _VALUE_HEAD, _VALUE_TOKEN, _TOKENS, _KEPT = range(0, 8 * len(KEPT) + 8, 8)
CALL = ("tables", "kept", "count", "x", "cosines", "sines", "room", "helpers")
"""What the kernel is called with, int64, see `kernel`."""
_TABLES, _CACHES, _COUNT, _X, _COSINES, _SINES, _ROOM, _HELPERS = range(0, 8 * len(CALL), 8)
_SHARED = 1 << 14
"""Products of queries with keys that are worth handing over to a thread that is waiting for them."""
_whole = njit(inline="always")(whole_lines)

StackKernel = Callable[[int, int, int, int, int, int, int, int, int], None]


def stack_room(layer: int, queries: int, keys: int, group: int, tokens: int) -> int:
    """Bytes of room that `kernel` needs.

    Args:
        layer: what the neediest layer needs for itself, in bytes.
        queries, keys: elements of a token's queries, and of its keys.
        group: query heads of a key head.
        tokens: in any layer's cache at most, the new one included.
    """
    lines = [whole_lines(size) for size in (layer, 4 * queries, 4 * queries, 4 * keys, 4 * keys)]
    return sum(lines) + 4 * attention_room(group, tokens)


def gather_helpers(threads: int, work: int, group: int, tokens: int) -> npt.NDArray[np.uint8]:
    """Memory for one call on so many threads, at whose address is what `CALL` has of helpers.

    Args:
        threads: the calling one included.
        work: bytes that the neediest product needs for itself.
        group, tokens: as of `stack_room`.
    """
    size = whole_lines(max(work, 4 * attention_room(group, tokens)))
    table = whole_lines(8 * len(HELPERS))
    memory = aligned_empty(table + WORKERS_BYTES + size * threads)
    start = memory.ctypes.data
    memory[: table + WORKERS_BYTES] = 0
    fields = (start + table, threads, start + table + WORKERS_BYTES, size, products(), attention())
    memory[: 8 * len(HELPERS)].view(np.int64)[:] = fields
    return memory


@cache
def kernel() -> StackKernel:
    """Compiled now if it is not yet.

    `run(call, 0, 0, 0, 0, 0, 0, first, past)`: thread 0, for which `first` is 0, does it all, with what help it gets;
    others serve it until it is done. What stands at address `call` is named in `CALL`:

    - tables: addresses of the layers' `decoder_layer.layer_table`, int64 (count,);
    - kept: int64 (count, `KEPT`);
    - x: the token, float32, in whose place comes what the last layer gives;
    - cosines, sines: of its position, for every kind of positions that the layers have;
    - room: see `stack_room`;
    - helpers: address of `layer_products.HELPERS`, 0 if there are no other threads.
    """
    return _functions()[0]


def attention() -> int:
    """Address of a C function, the attention of query heads `first` to `past`; compiled now if it is not yet.

    `run(queries, attended, kept, table, tokens, 0, scores, first, past)`: a layer's, as `kernel` sees it, over the last
    `tokens` tokens, the new one included.
    """
    return _functions()[1]


@cache
def _functions() -> tuple[StackKernel, int]:
    run, attend = _compile(fingerprint())
    return run, address(attend)


@njit
def _keep(states: int, heads: int, size: int, kept: int, head: int) -> None:
    """Write states (heads, size) to `kept`, where heads stand `head` elements apart."""
    for k in range(heads):
        for at in range(0, 4 * size, 4 * LANES):
            store_floats(kept + 4 * head * k + at, load_floats(states + 4 * size * k + at))


@njit
def _attend(
    queries: int, attended: int, kept: int, table: int, tokens: int, scores: int, first: int, past: int
) -> None:
    """See `attention`."""
    size, heads = load_long(table + HEAD), load_long(table + QUERIES)
    group = heads // load_long(table + KEYS)
    key_head, key_token = load_long(kept + _KEY_HEAD), load_long(kept + _KEY_TOKEN)
    value_head, value_token = load_long(kept + _VALUE_HEAD), load_long(kept + _VALUE_TOKEN)
    passed = load_long(kept + _TOKENS) + 1 - tokens
    keys = load_long(kept + _KEYS) + 4 * passed * key_token
    values = load_long(kept + _VALUES) + 4 * passed * value_token
    while first < past:
        head = first // group
        end = min(past, (head + 1) * group)
        place = 4 * first * size
        attend_body(
            queries + place, keys + 4 * head * key_head, values + 4 * head * value_head, attended + place, scores, 1,
            end - first, tokens, size, key_head, key_token, value_head, value_token, load_float(table + SCALE),
        )  # fmt: skip
        first = end


@njit
def _share_attention(
    queries: int, attended: int, kept: int, table: int, tokens: int, scores: int, helpers: int
) -> None:
    """All heads, by whoever is there."""
    heads, shares = load_long(table + QUERIES), 1
    if helpers != 0:
        worth = heads * tokens * load_long(table + HEAD) // _SHARED
        shares = min(load_long(helpers + SHARES), heads, worth)
    if shares > 1:
        share_out(
            load_long(helpers + WORKERS), load_long(helpers + ATTEND), (queries, attended, kept, table, tokens, 0),
            load_long(helpers + SCRATCH), load_long(helpers + SCRATCH_SIZE), heads, shares,
        )  # fmt: skip
    else:
        _attend(queries, attended, kept, table, tokens, scores, 0, heads)


@njit
def _decode(call: int) -> None:
    """See `kernel`."""
    kept, helpers = load_long(call + _CACHES), load_long(call + _HELPERS)
    x, room = load_long(call + _X), load_long(call + _ROOM)
    cosines, sines = load_long(call + _COSINES), load_long(call + _SINES)
    for k in range(load_long(call + _COUNT)):
        table = load_long(load_long(call + _TABLES) + 8 * k)
        heads, size = load_long(table + KEYS), load_long(table + HEAD)
        tokens, window = load_long(kept + _TOKENS), load_long(table + WINDOW)
        wide, narrow = 4 * load_long(table + QUERIES) * size, 4 * heads * size
        # right behind each other, as one product of them all writes them
        queries = room + load_long(table + ROOM)
        keys, values = queries + wide, queries + wide + narrow
        attended = queries + _whole(wide + 2 * narrow)
        before_body(table, x, cosines, sines, queries, keys, values, room, helpers)
        places = load_long(kept + _KEYS), load_long(kept + _VALUES)
        _keep(keys, heads, size, places[0] + 4 * load_long(kept + _KEY_TOKEN) * tokens, load_long(kept + _KEY_HEAD))
        _keep(
            values, heads, size, places[1] + 4 * load_long(kept + _VALUE_TOKEN) * tokens, load_long(kept + _VALUE_HEAD)
        )
        seen = tokens + 1 if window == 0 else min(window, tokens + 1)
        _share_attention(queries, attended, kept, table, seen, attended + _whole(wide), helpers)
        after_body(table, x, attended, x, room, helpers)
        kept += _KEPT


def _compile(source: int) -> tuple[Any, Any]:
    # the constant is a cell of the closures, which Numba's disk cache tells apart
    compiled = njit(f"void({', '.join(['int64'] * (ARGUMENTS + 3))})", nogil=True, cache=True, error_model="numpy")

    @compiled
    def run_stack(call: int, _b: int, _c: int, _d: int, _e: int, _f: int, _work: int, first: int, past: int) -> None:
        _ = source
        helpers = load_long(call + _HELPERS)
        if first == 0:
            _decode(call)
            if helpers != 0:
                dismiss(load_long(helpers + WORKERS))
        else:
            serve(load_long(helpers + WORKERS))

    @compiled
    def attend(
        queries: int, attended: int, kept: int, table: int, tokens: int, _f: int, scores: int, first: int, past: int
    ) -> None:
        _ = source
        _attend(queries, attended, kept, table, tokens, scores, first, past)

    return run_stack, attend
