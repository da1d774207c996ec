"""Rows shared out over plain Python threads: the kernels release the GIL and touch only their own rows."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

ForRows = Callable[[Callable[[int, int], object]], None]

_SMALLEST_SHARE = 64


@contextmanager
def row_threads(rows: int) -> Iterator[ForRows]:
    """A function that calls `work(first, past)` on contiguous shares that cover `range(rows)` once."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    shares = max(1, min(cores, rows // _SMALLEST_SHARE))
    edges = [rows * i // shares for i in range(shares + 1)]

    if shares == 1:
        yield lambda work: _all(map(work, [0], [rows]))
        return
    with ThreadPoolExecutor(shares) as pool:
        yield lambda work: _all(pool.map(work, edges[:-1], edges[1:]))


def _all(results: Iterator[object]) -> None:
    """Wait for every share, and raise what one of them raised."""
    for _ in results:
        pass
