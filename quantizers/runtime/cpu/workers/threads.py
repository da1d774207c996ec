"""Work shared out over threads, as many as `torch.get_num_threads()` says, the calling one among them.

`share_rows` is for anything that releases the GIL for most of its time: plain Python threads. `share_compiled` is for
compiled functions that take little longer than waking a thread. They run on torch's own threads where those can be
asked (`kernels.openmp`), and else in a team that works without the GIL (`kernels.team`).

Pool and team are each one set of helpers in the process, made when first needed and made anew in a forked child. The
calling thread takes shares like any other and waits only for shares that somebody has begun, so that several threads
may call at once, and a share of `share_rows` may itself be shared out, without waiting for ever.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable
from functools import cache
from queue import SimpleQueue
from threading import Thread

import torch

from nash_swarm.quantizers.runtime.cpu.aligned import aligned_empty, whole_lines
from nash_swarm.quantizers.runtime.cpu.workers import openmp, team
from nash_swarm.quantizers.runtime.cpu.workers.atomics import address

Work = Callable[[int, int], object]

_SMALLEST_SHARE = 64
_SHARES_PER_THREAD = 2
"""More shares than threads, so that a thread that other programs hold up takes fewer of them."""


def share_rows(rows: int, work: Work, *, smallest: int = _SMALLEST_SHARE) -> None:
    """Call `work(first, past)` on contiguous shares that cover `range(rows)` once.

    Args:
        rows: what is shared out; nothing is called if there are none.
        work: releases the GIL for most of its time and writes only what belongs to its own rows.
        smallest: rows below which a share is not worth another thread.

    Raises:
        BaseException: what one of the shares raised.
    """
    threads = min(torch.get_num_threads(), rows // smallest)
    if threads <= 1:
        if rows:
            work(0, rows)
        return
    shares = min(threads * _SHARES_PER_THREAD, rows // smallest)
    edges = [rows * i // shares for i in range(shares + 1)]
    job = _Job(work, deque(itertools.pairwise(edges)))
    _pool.ask(job, threads - 1)
    job.help()
    failures = [failure for failure in (job.done.get() for _ in range(shares)) if failure is not None]
    if failures:
        raise failures[0]


def share_compiled(
    function: Callable[..., None],
    arguments: tuple[int, ...],
    rows: int,
    *,
    workspace: int = 0,
    smallest: int = _SMALLEST_SHARE,
) -> None:
    """Call `function(*arguments, room, first, past)` on contiguous shares that cover `range(rows)` once.

    Args:
        function: compiled by Numba for `ARGUMENTS` (of `kernels.atomics`) + 3 int64, with `nogil`; raises nothing, and
            writes only what belongs to its own rows, and at `room`.
        arguments: its first ones.
        rows: what is shared out; nothing is called if there are none.
        workspace: bytes that each share has at `room`, which is a multiple of `aligned.LINE`.
        smallest: rows below which a share is not worth another thread.
    """
    threads = min(torch.get_num_threads(), rows // smallest, team.MOST_HELPERS + 1)
    shares = 1 if threads <= 1 else min(threads * _SHARES_PER_THREAD, rows // smallest)
    size = whole_lines(workspace)
    memory = aligned_empty(size * shares + openmp.ROOM)
    room = memory.ctypes.data
    if threads <= 1:
        if rows:
            function(*arguments, room, 0, rows)
    elif runtime := _runtime():
        openmp.run(runtime, room + size * shares, address(function), arguments, room, size, rows, shares, threads)
    else:
        _team().run(address(function), arguments, room, size, rows, shares, threads - 1)


class _Job:
    """Shares that nobody has begun, and for each finished one what it raised, or `None`."""

    __slots__ = ("done", "shares", "work")

    def __init__(self, work: Work, shares: deque[tuple[int, int]]) -> None:
        self.work, self.shares = work, shares
        self.done: SimpleQueue[BaseException | None] = SimpleQueue()

    def help(self) -> None:
        """Take shares until none is left."""
        while True:
            try:
                share = self.shares.popleft()
            except IndexError:
                return
            failure: BaseException | None = None
            try:
                self.work(*share)
            except BaseException as error:
                failure = error
            self.done.put(failure)


class _Pool:
    """Threads that help with jobs; there are as many as the largest job has asked for."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[_Job] = SimpleQueue()
        self._threads: deque[Thread] = deque()

    def ask(self, job: _Job, helpers: int) -> None:
        """Have up to `helpers` threads help with a job as soon as they are free."""
        while len(self._threads) < helpers:
            # two callers at once may start one thread too many, which does no harm
            thread = Thread(target=self._serve, name="nash-swarm", daemon=True)
            self._threads.append(thread)
            thread.start()
        for _ in range(helpers):
            self._jobs.put(job)

    def _serve(self) -> None:
        while True:
            self._jobs.get().help()


_pool = _Pool()


_runtime: Callable[[], int] = openmp.runtime


@cache
def _team() -> team.Team:
    return team.Team()


def _forget_threads() -> None:
    global _pool, _runtime
    _pool = _Pool()
    _runtime = int
    _team.cache_clear()


if hasattr(os, "register_at_fork"):
    # a child has only the thread that forked: the others, and whatever they held, are gone
    os.register_at_fork(after_in_child=_forget_threads)
