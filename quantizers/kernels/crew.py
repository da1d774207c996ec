"""Threads that stay with one caller through many small jobs, each too short to bring threads together for.

A crew is called together once: one thread does what there is to do, and shares out what is worth it; the others serve,
awake, until they are dismissed. One word has the shares that nobody has begun, and above them a number that no two jobs
have in common; a share is taken by replacing the word. The caller takes shares like everybody else and waits only for
those that somebody has begun. Until the last one is finished, the job stays what it is.
"""

from __future__ import annotations

from numba import njit

from nash_swarm.quantizers.kernels.aligned import LINE, whole_lines
from nash_swarm.quantizers.kernels.atomics import add, load, pause, replace, store
from nash_swarm.quantizers.kernels.job import JOB_BYTES, do_share, shares_of, write_job

_OPEN, _FINISHED, _JOB = range(0, 3 * LINE, LINE)
CREW_BYTES = _JOB + whole_lines(JOB_BYTES)
"""Of a crew's memory, zero at the beginning, at a multiple of `LINE`."""
_TURN = 1 << 32
_DISMISSED = -1


@njit
def _take(crew: int) -> int:
    """A share, counted from `shares` down to 1; 0 if there is none now, or `_DISMISSED`."""
    while True:
        word = load(crew + _OPEN)
        if word == _DISMISSED or word % _TURN == 0:
            return min(word, 0)
        if replace(crew + _OPEN, word, word - 1):
            return word % _TURN


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
    store(crew + _OPEN, (load(crew + _OPEN) // _TURN + 1) * _TURN + shares)
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
