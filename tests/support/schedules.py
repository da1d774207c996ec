"""Threads that take turns step by step, in a random order that a seed repeats, to try code made for many threads."""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence


class Stuck(Exception):
    """All threads sleep, or nothing has come of a great many steps."""


class _Over(BaseException):
    """Ends a thread that would never end."""


class Schedule:
    """Memory of int64, locks in it, and threads of which one runs at a time.

    Reading and writing memory are steps: before each of them the turn goes to any thread that does not sleep.

    Args:
        seed: of the order.
        most_steps: after which nothing is expected any more.
        inertia: probability that a thread goes on instead, so that others are held up for long.
    """

    def __init__(self, seed: int, most_steps: int = 20_000, inertia: float = 0.0) -> None:
        self.memory: defaultdict[int, int] = defaultdict(int)
        self._random = random.Random(seed)
        self._steps = most_steps
        self._inertia = inertia
        self._turns: dict[int, threading.Lock] = {}
        self._asleep: dict[int, int] = {}
        self._stuck = self._over = False

    def run(self, wanted: Sequence[Callable[[], object]], endless: Sequence[Callable[[], object]]) -> None:
        """Run all at once until the wanted ones have ended.

        Raises:
            Stuck: they do not.
        """
        failures: list[BaseException] = []
        left = len(wanted)
        ready = threading.Event()

        def work(task: Callable[[], object], counts: bool) -> None:
            nonlocal left
            me = threading.get_ident()
            ready.wait()
            self._turns[me].acquire()
            try:
                task()
                left -= counts
            except _Over:
                pass
            except BaseException as error:
                failures.append(error)
            del self._turns[me]
            self._over |= left == 0 or bool(failures) or self._stuck
            self._pass_on()

        threads = [
            threading.Thread(target=work, args=(task, i < len(wanted))) for i, task in enumerate([*wanted, *endless])
        ]
        for thread in threads:
            thread.start()
            assert thread.ident is not None
            self._turns[thread.ident] = threading.Lock()
            self._turns[thread.ident].acquire()
        ready.set()
        self._pass_on()
        for thread in threads:
            thread.join(60)
        if self._stuck:
            raise Stuck
        if failures:
            raise failures[0]

    def _pass_on(self) -> None:
        awake = [thread for thread in self._turns if self._over or thread not in self._asleep]
        if not awake and self._turns:
            self._stuck = self._over = True
            awake = list(self._turns)
        if awake:
            me = threading.get_ident()
            goes_on = self._inertia > 0 and me in awake and self._random.random() < self._inertia
            self._turns[me if goes_on else self._random.choice(awake)].release()

    def step(self) -> None:
        """Let others run."""
        turn = self._turns.get(threading.get_ident())
        if turn is None:
            return
        self._steps -= 1
        if self._steps < 0:
            self._stuck = self._over = True
        self._pass_on()
        turn.acquire()
        if self._over:
            raise _Over

    def load(self, address: int) -> int:
        self.step()
        return self.memory[address]

    def store(self, address: int, value: int) -> None:
        self.step()
        self.memory[address] = value

    def add(self, address: int, value: int) -> int:
        self.step()
        before = self.memory[address]
        self.memory[address] = before + value
        return before

    def replace(self, address: int, old: int, new: int) -> bool:
        self.step()
        found = self.memory[address] == old
        if found:
            self.memory[address] = new
        return found

    def new_lock(self) -> int:
        """An address that nothing else has."""
        lock = -1 - len([key for key in self.memory if key < 0])
        self.memory[lock] = 0
        return lock

    def close(self, lock: int, _wait: int) -> None:
        """Sleep until the lock is open, then close it."""
        self.step()
        while self.memory[lock] == 1:
            self._asleep[threading.get_ident()] = lock
            self.step()
        self.memory[lock] = 1

    def open(self, lock: int) -> None:
        """Wake whoever sleeps in a lock, which is closed."""
        self.step()
        assert self.memory[lock] == 1, "opened twice"
        self.memory[lock] = 0
        for thread in [thread for thread, held in self._asleep.items() if held == lock]:
            del self._asleep[thread]
