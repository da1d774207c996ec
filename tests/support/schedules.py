"""Threads that take turns step by step, in a random order that a seed repeats, to try code made for many threads."""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence


class Stuck(Exception):
    """Nothing has come of a great many steps."""


class _Over(BaseException):
    """Ends a thread of a schedule that is over."""


class Schedule:
    """Memory of int64, and threads of which one runs at a time.

    Reading and writing memory are steps: before each of them the turn goes to any thread.

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
        self._stuck = self._over = False

    def run(self, tasks: Sequence[Callable[[], object]]) -> None:
        """Run all at once until they have ended.

        Raises:
            Stuck: they do not.
        """
        failures: list[BaseException] = []
        ready = threading.Event()

        def work(task: Callable[[], object]) -> None:
            me = threading.get_ident()
            ready.wait()
            self._turns[me].acquire()
            try:
                task()
            except _Over:
                pass
            except BaseException as error:
                failures.append(error)
            del self._turns[me]
            self._over |= bool(failures) or self._stuck
            self._pass_on()

        threads = [threading.Thread(target=work, args=(task,)) for task in tasks]
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
        if self._turns:
            me = threading.get_ident()
            goes_on = self._inertia > 0 and me in self._turns and self._random.random() < self._inertia
            self._turns[me if goes_on else self._random.choice(list(self._turns))].release()

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
