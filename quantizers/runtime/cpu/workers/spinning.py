"""Threads that stay with one caller through many small jobs, each too short to bring threads together for.

Workers are called together once: one thread runs the whole step and shares out what is worth it; the others serve,
awake, until they are dismissed. One word has the number of shares that no thread has begun; a share is taken by
replacing it. Only then is the job read, which does not change until all of its shares are finished. The caller takes
shares like the others and waits only for those that another thread has begun.
"""

from __future__ import annotations

from nash_swarm.compiling import njit
from nash_swarm.quantizers.runtime.cpu.aligned import LINE, whole_lines
from nash_swarm.quantizers.runtime.cpu.workers.atomics import add, load, pause, replace, store
from nash_swarm.quantizers.runtime.cpu.workers.job import JOB_BYTES, do_share, shares_of, write_job

_OPEN, _FINISHED, _JOB = range(0, 3 * LINE, LINE)
WORKERS_BYTES = _JOB + whole_lines(JOB_BYTES)
"""Size of the workers' memory, zero at the beginning, at a multiple of `LINE`."""
_DISMISSED = -1


@njit
def _take(workers: int) -> int:
    """A share, counted from `shares` down to 1; 0 if there is none now, or `_DISMISSED`."""
    while True:
        left = load(workers + _OPEN)
        if left <= 0 or replace(workers + _OPEN, left, left - 1):
            return left


@njit
def _work(workers: int, share: int) -> None:
    do_share(workers + _JOB, shares_of(workers + _JOB) - share)
    add(workers + _FINISHED, 1)


@njit
def serve(workers: int) -> None:
    """Work on shares until the workers are dismissed."""
    share = 0
    while share != _DISMISSED:
        if share > 0:
            _work(workers, share)
        else:
            pause()
        share = _take(workers)


@njit
def share_out(
    workers: int, function: int, arguments: tuple[int, ...], workspace: int, size: int, rows: int, shares: int
) -> None:
    """Have the workers call a function for shares of `range(rows)`; returns when all are finished.

    function, arguments, workspace, size, rows, shares: see `job.write_job`.
    """
    write_job(workers + _JOB, function, arguments, workspace, size, rows, shares)
    store(workers + _FINISHED, 0)
    store(workers + _OPEN, shares)
    share = _take(workers)
    while share > 0:
        _work(workers, share)
        share = _take(workers)
    while load(workers + _FINISHED) != shares:
        pause()


@njit
def dismiss(workers: int) -> None:
    """End `serve` of all workers; the caller's last job is finished."""
    store(workers + _OPEN, _DISMISSED)
