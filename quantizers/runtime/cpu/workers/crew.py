"""Threads that stay with one caller through many small jobs, each too short to bring threads together for.

A crew is called together once: one thread does what there is to do, and shares out what is worth it; the others serve,
awake, until they are dismissed. One word has the number of shares that nobody has begun; a share is taken by replacing
it. Only then is it read what the job is, which stays what it is until all of its shares are finished. The caller takes
shares like everybody else and waits only for those that somebody has begun.
"""

from __future__ import annotations

from nash_swarm.compiling import njit
from nash_swarm.quantizers.runtime.cpu.aligned import LINE, whole_lines
from nash_swarm.quantizers.runtime.cpu.workers.atomics import add, load, pause, replace, store
from nash_swarm.quantizers.runtime.cpu.workers.job import JOB_BYTES, do_share, shares_of, write_job

_OPEN, _FINISHED, _JOB = range(0, 3 * LINE, LINE)
CREW_BYTES = _JOB + whole_lines(JOB_BYTES)
"""Of a crew's memory, zero at the beginning, at a multiple of `LINE`."""
_DISMISSED = -1


@njit
def _take(crew: int) -> int:
    """A share, counted from `shares` down to 1; 0 if there is none now, or `_DISMISSED`."""
    while True:
        left = load(crew + _OPEN)
        if left <= 0 or replace(crew + _OPEN, left, left - 1):
            return left


@njit
def _work(crew: int, share: int) -> None:
    do_share(crew + _JOB, shares_of(crew + _JOB) - share)
    add(crew + _FINISHED, 1)


@njit
def serve(crew: int) -> None:
    """Work on shares until the crew is dismissed."""
    share = 0
    while share != _DISMISSED:
        if share > 0:
            _work(crew, share)
        else:
            pause()
        share = _take(crew)


@njit
def share_out(
    crew: int, function: int, arguments: tuple[int, ...], workspace: int, size: int, rows: int, shares: int
) -> None:
    """Have the crew call a function for shares of `range(rows)`; returns when all are finished.

    function, arguments, workspace, size, rows, shares: see `job.write_job`.
    """
    write_job(crew + _JOB, function, arguments, workspace, size, rows, shares)
    store(crew + _FINISHED, 0)
    store(crew + _OPEN, shares)
    share = _take(crew)
    while share > 0:
        _work(crew, share)
        share = _take(crew)
    while load(crew + _FINISHED) != shares:
        pause()


@njit
def dismiss(crew: int) -> None:
    """Let everybody go; the caller's last job is finished."""
    store(crew + _OPEN, _DISMISSED)
