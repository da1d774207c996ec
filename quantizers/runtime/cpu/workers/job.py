"""What threads share out, as it stands in memory: a compiled function, its arguments, and rows cut into shares."""

from __future__ import annotations

from nash_swarm.compiling import njit
from nash_swarm.quantizers.runtime.cpu.workers.atomics import ARGUMENTS, call, load, store

_ROWS, _SHARES, _FUNCTION, _WORKSPACE, _WORKSPACE_SIZE, _FIRST_ARGUMENT = range(0, 48, 8)
JOB_BYTES = _FIRST_ARGUMENT + 8 * ARGUMENTS


@njit
def write_job(
    job: int, function: int, arguments: tuple[int, ...], workspace: int, size: int, rows: int, shares: int
) -> None:
    """Fill the `JOB_BYTES` at address `job`.

    function: address of one that takes `ARGUMENTS` + 3 int64: its own, then the address of a workspace that no other
    share has, then the first row and the one past the last. workspace: address of the first share's; the others follow,
    `size` bytes each.
    """
    for i in range(ARGUMENTS):
        store(job + _FIRST_ARGUMENT + 8 * i, arguments[i])
    store(job + _FUNCTION, function)
    store(job + _WORKSPACE, workspace)
    store(job + _WORKSPACE_SIZE, size)
    store(job + _ROWS, rows)
    store(job + _SHARES, shares)


@njit
def shares_of(job: int) -> int:
    """Into how many shares a job is cut."""
    return load(job + _SHARES)


@njit
def do_share(job: int, index: int) -> None:
    """Do the share of that number, from 0."""
    a = job + _FIRST_ARGUMENT
    arguments = (load(a), load(a + 8), load(a + 16), load(a + 24), load(a + 32), load(a + 40))
    shares, rows = load(job + _SHARES), load(job + _ROWS)
    workspace = load(job + _WORKSPACE) + index * load(job + _WORKSPACE_SIZE)
    call(load(job + _FUNCTION), arguments, workspace, rows * index // shares, rows * (index + 1) // shares)
