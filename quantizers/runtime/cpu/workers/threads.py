"""Rows of compiled functions shared out over as many threads as `torch.get_num_threads()` says."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache

from nash_swarm.quantizers.runtime.cpu.aligned import aligned_empty, whole_lines
from nash_swarm.quantizers.runtime.cpu.workers import openmp
from nash_swarm.sharing import SMALLEST_SHARE, cut, run_spans

Function = Callable[..., None]
Workers = Callable[[Function, tuple[int, ...], int, int, int, int, int], None]
"""`run(function, arguments, workspace, size, rows, shares, threads)`; returns when all shares are finished.

Behind the shares' workspaces, of `size` bytes each, are `openmp.ROOM` bytes for the workers themselves.
"""


def share_compiled(
    function: Function, arguments: tuple[int, ...], rows: int, *, workspace: int = 0, smallest: int = SMALLEST_SHARE
) -> None:
    """Call `function(*arguments, room, first, past)` on contiguous shares that cover `range(rows)` once.

    Several threads may call at once. What each waits for are shares that a thread has begun.

    Args:
        function: compiled by Numba for `ARGUMENTS` (of `workers.atomics`) + 3 int64, with `nogil`; raises nothing, and
            writes only what belongs to its own rows, and at `room`.
        arguments: its first ones.
        rows: what is shared out; nothing is called if there are none.
        workspace: bytes that each share has at `room`, which is a multiple of `aligned.LINE`.
        smallest: rows below which a share is not worth another thread.
    """
    threads, shares = cut(rows, smallest)
    size = whole_lines(workspace)
    memory = aligned_empty(size * shares + openmp.ROOM)
    if threads > 1:
        _workers()(function, arguments, memory.ctypes.data, size, rows, shares, threads)
    elif rows:
        function(*arguments, memory.ctypes.data, 0, rows)


def pool(
    function: Function, arguments: tuple[int, ...], workspace: int, size: int, rows: int, shares: int, threads: int
) -> None:
    """`Workers` that are plain Python threads."""

    def work(share: int, _: int) -> None:
        function(*arguments, workspace + size * share, rows * share // shares, rows * (share + 1) // shares)

    run_spans(work, [(share, share + 1) for share in range(shares)], threads)


@cache
def _found() -> Workers:
    return openmp.run if openmp.runtime() else pool


_workers: Callable[[], Workers] = _found


def _forget_threads() -> None:
    # those of the runtime are gone in a forked child, which would wait for them in vain
    global _workers
    _workers = _only_pool


def _only_pool() -> Workers:
    return pool


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)
