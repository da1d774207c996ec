"""Compiled kernels: one function per instruction path and activation mode, cached on disk."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from nash_swarm.compiling import njit
from nash_swarm.quantizers.runtime.cpu.activation_rounding import quantize
from nash_swarm.quantizers.runtime.cpu.descriptor import CODES, TILES
from nash_swarm.quantizers.runtime.cpu.simd.vectors import load_long
from nash_swarm.quantizers.runtime.cpu.sixteen_tokens import TOKENS
from nash_swarm.quantizers.runtime.cpu.tiles import multiply
from nash_swarm.quantizers.runtime.cpu.tuning import FLOAT_TOKENS_AT_ONCE, TOKENS_AT_ONCE

Kernel = Callable[[int, int, int, int, int, int, int, int, int], None]


@cache
def kernel(path: int, exact: bool) -> Kernel:
    """`run(matrix, x, activations, out, tokens, chunk, work, first, past)`: all addresses and sizes as int64.

    Rounds x, float32 (tokens, columns), into the block at `activations`, unless x is 0 because that has been done; then
    writes rows of tiles `first:past` of out, float32 (tokens, rows). If out is 0, rounds runs `first:past` of 16 tokens
    and does no more. Releases the GIL; ranges may be done by different threads, each with a `work` of its own.
    """
    lanes, float_lanes = TOKENS_AT_ONCE[path], FLOAT_TOKENS_AT_ONCE[path]
    as_they_are = int(exact)

    # these four are cells of the closure, which Numba's disk cache tells apart
    def run(
        matrix: int, x: int, activations: int, out: int, tokens: int, chunk: int, work: int, first: int, past: int
    ) -> None:
        if x != 0:
            codes = load_long(matrix + CODES) + load_long(load_long(matrix + TILES) + 16 * first)
            first_token, past_token = 0, tokens
            if out == 0:
                first_token, past_token = TOKENS * first, min(TOKENS * past, tokens)
            quantize(as_they_are, lanes, matrix, x, activations, work, tokens, codes, first_token, past_token)
        if out != 0:
            multiply(path, as_they_are, lanes, float_lanes, matrix, activations, out, work, tokens, chunk, first, past)

    # Compiled code is found by its name, which Numba only makes unique within the process that has compiled it: two
    # variants that two processes have put into the disk cache may have one name, and a third took one for the other.
    run.__qualname__ = f"{run.__qualname__}_{path}_{as_they_are}"
    made: Kernel = njit(f"void({', '.join(['int64'] * 9)})", nogil=True, cache=True, error_model="numpy")(run)
    return made
