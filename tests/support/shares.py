"""Compiled functions to share out: one notes what it was called for, one needs other threads beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, types

from nash_swarm.quantizers.runtime.cpu.workers.atomics import add, load, store
from nash_swarm.quantizers.runtime.cpu.workers.threads import share_compiled

_yield = types.ExternalFunction("sched_yield", types.int32())
_PATIENCE = 2_000_000
"""Times that a share lets other threads run before it gives up; more than a minute on one that is alone."""


def _compiled(function: Any) -> Callable[..., None]:
    signature = f"void({', '.join(['int64'] * 9)})"
    compiled: Callable[..., None] = njit(signature, nogil=True, cache=True)(function)
    return compiled


@_compiled
def note(counts: int, places: int, _c: int, _d: int, _e: int, _f: int, workspace: int, first: int, past: int) -> None:
    """Add 1 to the int64 of each row; leave each row's workspace, and the share's first row in it."""
    store(workspace, first)
    for row in range(first, past):
        add(counts + 8 * row, 1)
        store(places + 8 * row, workspace)


@_compiled
def meet(here: int, wanted: int, released: int, left: int, _e: int, _f: int, _w: int, first: int, past: int) -> None:
    """Arrive, and leave when `wanted` shares have arrived and `released` is not 0; `left` counts those who did."""
    add(here, 1)
    for _ in range(_PATIENCE):
        if load(here) >= wanted and load(released) != 0:
            add(left, 1)
            return
        _yield()


class Meeting:
    """A job of as many shares as threads, none of which ends before all have begun.

    Attributes:
        released: may be set to 0 before, so that none ends until it is 1.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._state = np.zeros(48, np.int64)
        self.released = self._state[16:17]
        self.released[0] = 1

    def hold(self) -> bool:
        """Whether everybody came; to be called once."""
        here, released, left = (self._state[i:].ctypes.data for i in (0, 16, 32))
        share_compiled(meet, (here, self._threads, released, left, 0, 0), self._threads, smallest=1)
        return bool(self._state[32] == self._threads)
