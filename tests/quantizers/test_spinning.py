"""Workers that spin: every share once, in whatever order threads come and are held up."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numba import njit
from support.schedules import Schedule
from support.shares import note

from nash_swarm.quantizers.runtime.cpu.aligned import aligned_empty
from nash_swarm.quantizers.runtime.cpu.workers import job as job_in_memory
from nash_swarm.quantizers.runtime.cpu.workers import spinning
from nash_swarm.quantizers.runtime.cpu.workers import threads as threads_
from nash_swarm.quantizers.runtime.cpu.workers.atomics import address
from nash_swarm.quantizers.runtime.cpu.workers.spinning import WORKERS_BYTES, dismiss, serve, share_out
from nash_swarm.quantizers.runtime.cpu.workers.threads import share_compiled


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put the workers' functions on the memory of a schedule, whose jobs call a Python function."""

    def make(schedule: Schedule, function: Any) -> None:
        steps = {
            "load": schedule.load, "store": schedule.store, "add": schedule.add, "replace": schedule.replace,
            "pause": schedule.step, "call": function,
        }  # fmt: skip
        for module in (spinning, job_in_memory):
            inner = {name: each.py_func for name, each in vars(module).items() if hasattr(each, "py_func")}
            for name, step in (steps | inner).items():
                monkeypatch.setattr(module, name, step, raising=False)

    return make


@pytest.mark.parametrize("helpers", [0, 1, 2, 3])
@pytest.mark.parametrize("shares", [1, 2, 5])
def test_no_order_of_steps_loses_a_share_or_mixes_jobs(uncompiled: Any, helpers: int, shares: int) -> None:
    for seed in range(80):
        schedule, rows = Schedule(seed, inertia=0.9 * (seed % 2)), Counter[tuple[int, int]]()
        current: list[int] = []

        def work(
            job: int, arguments: tuple[int, ...], workspace: int, first: int, past: int,
            schedule: Schedule = schedule, rows: Any = rows, current: Any = current,
        ) -> None:  # fmt: skip
            assert arguments == (job, 2, 3, 4, 5, 6)
            assert workspace == 100 * job + 10 * [7 * share // shares for share in range(shares)].index(first)
            schedule.step()
            # the caller has not gone on to the next job
            assert current == [job]
            rows.update((job, row) for row in range(first, past))

        uncompiled(schedule, work)

        def caller(current: Any = current) -> None:
            for job in range(1, 5):
                current[:] = [job]
                spinning.share_out(0, job, (job, 2, 3, 4, 5, 6), 100 * job, 10, 7, shares)
            spinning.dismiss(0)

        schedule.run([caller, *[partial(spinning.serve, 0)] * helpers])
        assert rows == Counter({(job, row): 1 for job in range(1, 5) for row in range(7)})


@njit("void(int64, int64, int64, int64, int64, int64, int64, int64, int64)", nogil=True)
def many_jobs(
    workers: int, function: int, counts: int, places: int, rows: int, shares: int, _w: int, first: int, _past: int
) -> None:
    if first > 0:
        serve(workers)
        return
    for _ in range(1000):
        share_out(workers, function, (counts, places, 0, 0, 0, 0), counts + 8 * rows, 8, rows, shares)
    dismiss(workers)


@pytest.fixture(params=["OpenMP", "pool"])
def means(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's own threads, or ours."""
    if request.param == "pool":
        monkeypatch.setattr(threads_, "_workers", lambda: threads_.pool)


@pytest.mark.usefixtures("means")
@pytest.mark.parametrize("threads", [1, 2, 3])
@given(st.integers(1, 40), st.integers(1, 9))
def test_every_row_of_every_job_is_worked_on_once(threads: int, rows: int, shares: int) -> None:
    shares = min(shares, rows)
    counts, places = np.zeros(rows + shares, np.int64), np.zeros(rows, np.int64)
    workers = aligned_empty(WORKERS_BYTES)
    workers[:] = 0
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    arguments = (workers.ctypes.data, address(note), counts.ctypes.data, places.ctypes.data, rows, shares)
    share_compiled(many_jobs, arguments, threads, smallest=1)
    torch.set_num_threads(before)
    assert (counts[:rows] == 1000).all()
    # each share has memory of its own
    assert len(np.unique(places)) == shares
