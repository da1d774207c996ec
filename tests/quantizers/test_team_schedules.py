"""The source of the team's compiled functions, run as Python under random schedules: every step can come in between.

In compiled code what could go wrong has a window of nanoseconds; here it is as wide as any other step.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import pytest
from support.schedules import Schedule

from nash_swarm.quantizers.runtime.cpu.workers import job as job_in_memory
from nash_swarm.quantizers.runtime.cpu.workers import team


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make the team's functions on the memory of a schedule, whose jobs call a Python function."""

    def make(schedule: Schedule, function: Any) -> Any:
        steps = {
            "load": schedule.load,
            "store": schedule.store,
            "add": schedule.add,
            "replace": schedule.replace,
            "pause": lambda: None,
            "call": function,
            "_new_lock": schedule.new_lock,
            "_close": schedule.close,
            "_open": schedule.open,
            "njit": lambda *_, **__: lambda compiled: compiled,
        }
        for module in (team, job_in_memory):
            inner = {name: each.py_func for name, each in vars(module).items() if hasattr(each, "py_func")}
            for name, step in (steps | inner).items():
                monkeypatch.setattr(module, name, step, raising=False)
        return team._compile(0)

    return make


@pytest.mark.parametrize(("callers", "helpers", "rounds"), [(1, 1, 0), (1, 1, 1), (2, 1, 0), (2, 2, 0), (6, 1, 0)])
def test_no_order_of_steps_loses_a_call(uncompiled: Any, callers: int, helpers: int, rounds: int) -> None:
    for seed in range(120 // callers**2 + 2):
        schedule = Schedule(seed)
        rows: Counter[tuple[int, int]] = Counter()
        here: Counter[int] = Counter()

        def work(
            job: int, arguments: tuple[int, ...], workspace: int, first: int, past: int,
            schedule: Schedule = schedule, rows: Any = rows, here: Any = here,
        ) -> None:  # fmt: skip
            rows.update((job, row) for row in range(first, past))
            assert arguments == (job, 2, 3, 4, 5, 6) and workspace == 100 * job + 10 * first
            here[job] += 1
            # nobody goes before a helper has come, unless there is no slot left for all
            while here[job] < 2 and callers <= team._SLOTS:
                schedule.step()

        functions = uncompiled(schedule, work)

        def caller(number: int, functions: Any = functions) -> None:
            for job in range(3 * number + 1, 3 * number + 4):
                functions.run(0, job, (job, 2, 3, 4, 5, 6), 100 * job, 10, 3, 3, helpers, rounds)

        functions.prepare(0)
        schedule.run([partial(caller, number) for number in range(callers)], [partial(functions.serve, 0)] * helpers)
        assert rows == Counter({(job, row): 1 for job in range(1, 3 * callers + 1) for row in range(3)})
