"""Threads that share out the rows of a compiled function without ever holding the GIL.

Waking a thread takes longer than many a product does, so a helper that has nothing to do first spins for a moment, and
so does a caller whose last shares are with others. What they agree by lies in one block of memory:

- A job stands in a slot. One word has the shares that nobody has begun and the seats that are free for helpers; a share
  is taken by replacing the word, a newcomer's seat along with it. Arguments are read once a share has been taken: until
  that share is finished, so is not the job, and its slot is not filled again.
- A helper raises its flag before it looks for open jobs a last time and then sleeps in its lock; a caller opens a job
  before it looks at the flags. All agree on one order of these four, so that one of the two sees the other. Who lowers
  the flag decides: a caller opens the lock, exactly once; a helper does not sleep. Callers sleep likewise.

Callers wait only for shares that somebody has begun, whatever the helpers do.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from threading import Lock, Thread
from typing import Any

from numba import types

from nash_swarm.compiling import njit
from nash_swarm.game.spans import cores
from nash_swarm.quantizers.runtime.cpu.aligned import LINE, aligned_empty
from nash_swarm.quantizers.runtime.cpu.fingerprint import fingerprint
from nash_swarm.quantizers.runtime.cpu.workers.atomics import ARGUMENTS, add, call, load, pause, replace, store
from nash_swarm.quantizers.runtime.cpu.workers.job import JOB_BYTES, do_share, shares_of, write_job

MOST_HELPERS = 255
SPIN_SECONDS = 200e-6
"""How long threads wait awake, which is longer than a single-token step takes between two products."""

_SLOTS = 4
"""Callers that are helped at once; more do their work alone."""
# of a slot, in bytes
_OPEN, _FINISHED, _WAITS, _FREE, _JOB, _SLOT = range(0, 6 * LINE, LINE)
_LOCK = _JOB + JOB_BYTES
_SEAT = 1 << 32
"""The word at `_OPEN` has shares below, seats from here on."""
# of the block: two numbers, the slots, then a line for each helper, its flag and its lock
_HELPERS, _ROUNDS, _FIRST_SLOT, _FIRST_HELPER = 0, 8, LINE, LINE + _SLOTS * _SLOT
_BYTES = _FIRST_HELPER + LINE * MOST_HELPERS

# locks of the C API, which open and close without the GIL; whoever closes one that is closed sleeps
_new_lock = types.ExternalFunction("PyThread_allocate_lock", types.int64())
_close = types.ExternalFunction("PyThread_acquire_lock", types.int32(types.int64, types.int32))
_open = types.ExternalFunction("PyThread_release_lock", types.void(types.int64))


class Team:
    """Helpers, as many as the largest job has asked for, and the memory they share with callers."""

    def __init__(self) -> None:
        self._functions = functions()
        self._memory = aligned_empty(_BYTES)
        self._memory.fill(0)
        self._block = self._memory.ctypes.data
        self._functions.prepare(self._block)
        # the fastest, as a thread that is held up meanwhile seems slow
        took = min(_seconds(lambda: self._functions.spin(self._block, 1000)) for _ in range(3))
        self._rounds = int(1000 * SPIN_SECONDS / took)
        self._processors = cores()
        self._threads: list[Thread] = []
        self._growing = Lock()

    def run(
        self, function: int, arguments: tuple[int, ...], workspace: int, size: int, rows: int, shares: int,
        helpers: int,
    ) -> None:  # fmt: skip
        """Call a function for shares of `range(rows)`, in the calling thread and in up to `helpers` others.

        Args:
            function, arguments, workspace, size: see `job.write_job`.
            rows: at least `shares`.
            shares: at least 1.
            helpers: at most `MOST_HELPERS`.
        """
        if len(self._threads) < helpers:
            self._grow(helpers)
        # without a processor for each thread, one that spins would hold up one that works
        rounds = self._rounds if helpers < self._processors else 0
        self._functions.run(self._block, function, arguments, workspace, size, rows, shares, helpers, rounds)

    def _grow(self, helpers: int) -> None:
        with self._growing:
            while len(self._threads) < helpers:
                # it never comes back, so that its arguments keep the memory even when the interpreter ends
                thread = Thread(target=_serve, args=(self._functions, self._block, self._memory), daemon=True)
                thread.name = "nash-swarm"
                thread.start()
                self._threads.append(thread)


def _serve(functions: Functions, block: int, memory: object) -> None:
    functions.serve(block)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@dataclass(frozen=True)
class Functions:
    """The compiled functions. `prepare` fills a new block, `serve` is what helpers do and never returns."""

    prepare: Callable[[int], None]
    spin: Callable[[int, int], bool]
    run: Callable[[int, int, tuple[int, ...], int, int, int, int, int, int], None]
    serve: Callable[[int], None]


@njit
def _slot(block: int, number: int) -> int:
    return block + _FIRST_SLOT + number * _SLOT


@njit
def _take(slot: int, newcomer: bool) -> int:
    """A share, counted from `shares` down to 1; 0 if none is left, or no seat for a newcomer."""
    while True:
        word = load(slot + _OPEN)
        if word % _SEAT == 0 or (newcomer and word < _SEAT):
            return 0
        if replace(slot + _OPEN, word, word - 1 - (_SEAT if newcomer else 0)):
            return word % _SEAT


@njit
def _work(slot: int, share: int) -> None:
    """Work on a share that has been taken, and on what else is left of its job."""
    while share != 0:
        shares, lock = shares_of(slot + _JOB), load(slot + _LOCK)
        do_share(slot + _JOB, shares - share)
        if add(slot + _FINISHED, 1) + 1 == shares and replace(slot + _WAITS, 1, 0):
            # if the next job is in the slot by now, its caller looks once more than it needs
            _open(lock)
        share = _take(slot, False)


@njit
def _spin(block: int, rounds: int) -> bool:
    """Whether a job is open to a newcomer, now or soon."""
    for _ in range(rounds + 1):
        for number in range(_SLOTS):
            word = load(_slot(block, number) + _OPEN)
            if word % _SEAT != 0 and word >= _SEAT:
                return True
        pause()
    return False


@njit
def _wait(slot: int, shares: int, rounds: int) -> None:
    """Return when all shares are finished."""
    spun = 0
    while load(slot + _FINISHED) != shares:
        if spun < rounds:
            spun += 1
            pause()
            continue
        store(slot + _WAITS, 1)
        if load(slot + _FINISHED) != shares or not replace(slot + _WAITS, 1, 0):
            _close(load(slot + _LOCK), 1)


@njit
def _wake(block: int, helpers: int) -> None:
    for number in range(load(block + _HELPERS)):
        helper = block + _FIRST_HELPER + number * LINE
        if helpers == 0:
            return
        if load(helper) == 1 and replace(helper, 1, 0):
            _open(load(helper + 8))
            helpers -= 1


@cache
def functions() -> Functions:
    """Compiled now if they are not yet."""
    return _compile(fingerprint())


def _compile(source: int) -> Functions:
    # the constant is a cell of the closures, which Numba's disk cache tells apart
    def compiled(signature: str) -> Any:
        return njit(signature, nogil=True, cache=True, error_model="numpy")

    @compiled("void(int64)")
    def prepare(block: int) -> None:
        _ = source
        for number in range(_SLOTS):
            slot = _slot(block, number)
            lock = _new_lock()
            _close(lock, 1)
            store(slot + _LOCK, lock)
            store(slot + _FREE, 1)

    @compiled("boolean(int64, int64)")
    def spin(block: int, rounds: int) -> bool:
        _ = source
        return _spin(block, rounds)

    @compiled(f"void(int64, int64, UniTuple(int64, {ARGUMENTS}), int64, int64, int64, int64, int64, int64)")
    def run(
        block: int, function: int, arguments: tuple[int, ...], workspace: int, size: int, rows: int, shares: int,
        helpers: int, rounds: int,
    ) -> None:  # fmt: skip
        _ = source
        for number in range(_SLOTS):
            slot = _slot(block, number)
            if load(slot + _FREE) == 1 and replace(slot + _FREE, 1, 0):
                write_job(slot + _JOB, function, arguments, workspace, size, rows, shares)
                store(slot + _FINISHED, 0)
                store(block + _ROUNDS, rounds)
                store(slot + _OPEN, helpers * _SEAT + shares)
                _wake(block, helpers)
                _work(slot, _take(slot, False))
                _wait(slot, shares, rounds)
                store(slot + _FREE, 1)
                return
        call(function, arguments, workspace, 0, rows)

    @compiled("void(int64)")
    def serve(block: int) -> None:
        _ = source
        helper = block + _FIRST_HELPER + add(block + _HELPERS, 1) * LINE
        lock = _new_lock()
        _close(lock, 1)
        store(helper + 8, lock)
        while True:
            if _spin(block, load(block + _ROUNDS)):
                for number in range(_SLOTS):
                    slot = _slot(block, number)
                    _work(slot, _take(slot, True))
                continue
            store(helper, 1)
            if not (_spin(block, 0) and replace(helper, 1, 0)):
                _close(lock, 1)

    return Functions(prepare, spin, run, serve)
