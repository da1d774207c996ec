"""Work shared out over threads: the one pool of plain Python threads that the game, rounding and packed models use.

The work is expected to call kernels that release the GIL: Numba's own parallel back ends abort or stall when two Python
threads enter them or when torch's OpenMP runs beside them. `over_spans` is for results that must not depend on the
number of threads, `share_rows` for rows that are independent of each other. Compiled functions that take little longer
than waking a thread have workers of their own, see `nash_swarm.quantizers.runtime.cpu.workers`.

The helpers are made when first needed and anew in a forked child. The calling thread takes shares like any other and
waits only for shares that a thread has begun, so that several threads may call at once, and a share may itself be
shared out, without waiting for ever.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")
Span = tuple[int, int]

SPAN = 1 << 16
"""Rows of one span. Fixed, so that sums and tie-breaks do not depend on the number of threads."""
SMALLEST_SHARE = 64
SHARES_PER_THREAD = 2
"""More shares than threads, so that a thread that other programs hold up takes fewer of them."""


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def most_threads() -> int:
    """Threads that a piece of work may take: as many as torch takes where it is loaded, else one for each processor."""
    torch: Any = sys.modules.get("torch")
    return torch.get_num_threads() if torch is not None else cores()


def over_spans(task: Callable[[int, int], T], rows: int, span: int | None = None) -> list[T]:
    """`task(first, past)` for consecutive spans of `span` (by default `SPAN`) rows, results in span order.

    Raises:
        BaseException: what one of the tasks raised.
    """
    edges = [*range(0, rows, span or SPAN), rows]
    return run_spans(task, list(itertools.pairwise(edges)), cores())


def share_rows(rows: int, work: Callable[[int, int], object], *, smallest: int = SMALLEST_SHARE) -> None:
    """Call `work(first, past)` on contiguous shares that cover `range(rows)` once.

    Args:
        rows: what is shared out; nothing is called if there are none.
        work: releases the GIL for most of its time and writes only what belongs to its own rows.
        smallest: rows below which a share is not worth another thread.

    Raises:
        BaseException: what one of the shares raised.
    """
    threads, shares = cut(rows, smallest)
    edges = [rows * i // shares for i in range(shares + 1)]
    if rows:
        run_spans(work, list(itertools.pairwise(edges)), threads)


def cut(rows: int, smallest: int) -> tuple[int, int]:
    """How many threads are worth having for some rows, and into how many shares the rows are cut."""
    threads = min(most_threads(), rows // smallest)
    return (1, 1) if threads <= 1 else (threads, min(threads * SHARES_PER_THREAD, rows // smallest))


def run_spans(task: Callable[[int, int], T], spans: Sequence[Span], threads: int) -> list[T]:
    """`task(*span)` for each, on up to so many threads, the calling one among them; results in the order of the spans.

    Raises:
        BaseException: what one of the tasks raised, once all have ended.
    """
    helpers = min(threads, len(spans)) - 1
    if helpers <= 0:
        return [task(*span) for span in spans]
    job = _Job(task, deque(enumerate(spans)))
    _pool.ask(job, helpers)
    job.help()
    results: list[Any] = [None] * len(spans)
    failures = []
    for _ in spans:
        place, result, failure = job.done.get()
        results[place] = result
        if failure is not None:
            failures.append(failure)
    if failures:
        raise failures[0]
    return results


class _Job:
    """Spans that no thread has begun, and for each finished one its place, its result and what it raised."""

    __slots__ = ("done", "spans", "task")

    def __init__(self, task: Callable[[int, int], object], spans: deque[tuple[int, Span]]) -> None:
        self.task, self.spans = task, spans
        self.done: SimpleQueue[tuple[int, Any, BaseException | None]] = SimpleQueue()

    def help(self) -> None:
        """Take spans until none is left."""
        while True:
            try:
                place, span = self.spans.popleft()
            except IndexError:
                return
            try:
                self.done.put((place, self.task(*span), None))
            except BaseException as error:
                self.done.put((place, None, error))


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


def _forget_threads() -> None:
    global _pool
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    # a child has only the thread that forked: the others, and whatever they held, are gone
    os.register_at_fork(after_in_child=_forget_threads)
