"""Rows of a compiled function shared out over the threads that torch's own operations run on.

Threads of an OpenMP runtime stay awake for a while after a parallel region: GNU's for milliseconds on two processors.
Threads of our own would share a processor with one that only waits, and a product between two operations of torch would
be no faster on two threads than on one. Torch's threads are awake already. This is for Linux builds of torch, which
bring the GNU runtime or another one with its interface.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

from nash_swarm.compiling import njit
from nash_swarm.quantizers.runtime.cpu.aligned import LINE, whole_lines
from nash_swarm.quantizers.runtime.cpu.workers.atomics import ARGUMENTS, add, address, fork_and_join, store
from nash_swarm.quantizers.runtime.cpu.workers.job import JOB_BYTES, do_share, shares_of, write_job

_BEGUN, _JOB = 0, LINE
"""Of a call's memory, in bytes: the number of shares that somebody has begun, and, on another line, the job."""
ROOM = _JOB + whole_lines(JOB_BYTES)
"""Bytes of it."""

_Run = Callable[[int, int, int, int, tuple[int, ...], int, int, int, int, int], None]


@cache
def runtime() -> int:
    """Address of the runtime's `GOMP_parallel`; 0 if torch runs on none that has it."""
    if not sys.platform.startswith("linux") or not torch.backends.openmp.is_available():
        return 0
    package = Path(torch.__file__).parent
    bundled = [*(package / "lib").glob("lib*omp*.so*"), *(package.parent / "torch.libs").glob("lib*omp*.so*")]
    for name in (*map(str, bundled), "libgomp.so.1"):
        try:
            # only what is loaded already: a second runtime would have threads of its own
            library = ctypes.CDLL(name, mode=os.RTLD_NOLOAD | os.RTLD_NOW)
            return ctypes.cast(library.GOMP_parallel, ctypes.c_void_p).value or 0
        except (OSError, AttributeError):
            continue
    return 0


def run(
    function: Callable[..., None], arguments: tuple[int, ...], workspace: int, size: int, rows: int, shares: int,
    threads: int,
) -> None:  # fmt: skip
    """`threads.Workers` that are the runtime's threads, the calling one among them; only where there is a `runtime`."""
    work, call = functions()
    room = workspace + size * shares
    call(runtime(), work, room, address(function), arguments, workspace, size, rows, shares, threads)


@cache
def functions() -> tuple[int, _Run]:
    """Address of what a thread of the runtime does, and what shares out a job; compiled now if they are not yet."""

    def compiled(signature: str) -> Any:
        return njit(signature, nogil=True, cache=True, error_model="numpy")

    @compiled("void(int64)")
    def work(room: int) -> None:
        shares = shares_of(room + _JOB)
        index = add(room + _BEGUN, 1)
        while index < shares:
            do_share(room + _JOB, index)
            index = add(room + _BEGUN, 1)

    @compiled(f"void(int64, int64, int64, int64, UniTuple(int64, {ARGUMENTS}), int64, int64, int64, int64, int64)")
    def run(
        runtime: int, work: int, room: int, function: int, arguments: tuple[int, ...], workspace: int, size: int,
        rows: int, shares: int, threads: int,
    ) -> None:  # fmt: skip
        write_job(room + _JOB, function, arguments, workspace, size, rows, shares)
        store(room + _BEGUN, 0)
        fork_and_join(runtime, work, room, threads)

    return address(work), run
