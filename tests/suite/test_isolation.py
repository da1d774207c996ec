"""Tasks in processes of their own."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nash_swarm.errors import UsageError
from nash_swarm.suite.isolation import OutOfTime, Unfinished, run_alone
from nash_swarm.suite.memory import forget_peak, peak_memory

Begin = Callable[[], None]


def add(begin: Begin, one: int, other: int) -> int:
    begin()
    return one + other


def refuse(begin: Begin) -> None:
    raise UsageError("not like this")


def fail(begin: Begin) -> None:
    begin()
    raise ZeroDivisionError("nothing to share")


def die(begin: Begin) -> None:
    os._exit(3)


def sleep(begin: Begin) -> None:
    begin()
    time.sleep(600)


def fill(begin: Begin, megabytes: int) -> tuple[int, int]:
    """Peak memory with so much of it in use, and after it was given back and forgotten."""
    block = np.ones(megabytes << 17)
    peak = peak_memory()
    del block
    forget_peak()
    return peak, peak_memory()


def test_a_task_answers() -> None:
    assert run_alone(add, 2, 3, limit=60) == 5


def test_errors_are_told() -> None:
    with pytest.raises(Unfinished, match=r"^not like this$"):
        run_alone(refuse, limit=60)
    with pytest.raises(Unfinished, match=r"^ZeroDivisionError: nothing to share$"):
        run_alone(fail, limit=60)
    with pytest.raises(Unfinished, match="ended with code 3"):
        run_alone(die, limit=60)


def test_a_task_is_stopped_at_its_limit() -> None:
    with pytest.raises(OutOfTime, match=r"took more than 0\.2 s"):
        run_alone(sleep, limit=0.2)


def test_peak_memory_is_the_tasks_own() -> None:
    block = np.ones(300 << 17)  # 300 MB that the task does not have
    small, _ = run_alone(fill, 1, limit=60)
    large, after = run_alone(fill, 200, limit=60)
    assert peak_memory() > block.nbytes
    assert 190e6 < large - small < 220e6
    assert after < large - 150e6 or not Path("/proc/self/clear_refs").exists()
