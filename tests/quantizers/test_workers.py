"""Compiled functions shared out: every row once, on as many threads as torch has, and no caller waits for ever."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.shares import Meeting, note

from nash_swarm.quantizers.runtime.cpu.aligned import LINE
from nash_swarm.quantizers.runtime.cpu.workers import openmp, threads
from nash_swarm.quantizers.runtime.cpu.workers.threads import share_compiled

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the functions of these tests yield as POSIX does")


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=["OpenMP", "pool"])
def means(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's own threads, or ours."""
    if request.param == "pool":
        monkeypatch.setattr(threads, "_workers", lambda: threads.pool)
    elif not openmp.runtime():
        pytest.skip("torch does not run on an OpenMP runtime with GNU's interface")


@pytest.mark.usefixtures("means")
@given(st.integers(0, 300), st.integers(1, 80), st.integers(1, 5))
def test_every_row_is_worked_on_once(rows: int, smallest: int, count: int) -> None:
    torch.set_num_threads(count)
    counts, places = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
    share_compiled(note, (counts.ctypes.data, places.ctypes.data, 0, 0, 0, 0), rows, workspace=8, smallest=smallest)
    assert (counts == 1).all()
    # one workspace to each share
    edges = np.flatnonzero(np.diff(places)) + 1
    assert len(np.unique(places)) == len(edges) + (rows > 0)
    # no two of them write to one cache line
    assert (np.diff(np.unique(places)) == LINE).all()
    assert (places % LINE == 0).all()
    assert all(len(share) >= min(smallest, rows) for share in np.split(places, edges))


@pytest.mark.usefixtures("means")
def test_many_callers_at_once() -> None:
    def call(_: int) -> bool:
        counts = np.zeros(8, np.int64)
        for _ in range(300):
            arguments = (counts.ctypes.data, places.ctypes.data, 0, 0, 0, 0)
            share_compiled(note, arguments, 8, workspace=8, smallest=1)
        return bool((counts == 300).all())

    places = np.zeros(8, np.int64)
    with ThreadPoolExecutor(9) as callers:
        assert all(callers.map(call, range(9), timeout=60))


@pytest.mark.usefixtures("means")
def test_a_caller_waits_for_what_others_have_begun() -> None:
    for _ in range(10):
        meeting = Meeting(2)
        meeting.released[0] = 0
        timer = threading.Timer(0.004, lambda meeting=meeting: meeting.released.fill(1))
        timer.start()
        assert meeting.hold()
        timer.join()


@pytest.mark.usefixtures("means")
@pytest.mark.parametrize("count", [2, 3, 5])
def test_as_many_threads_as_torch_has(count: int) -> None:
    torch.set_num_threads(count)
    for _ in range(20):
        assert Meeting(count).hold()


@pytest.mark.usefixtures("means")
def test_several_callers_at_once() -> None:
    def call(_: int) -> bool:
        return all(Meeting(2).hold() for _ in range(50))

    with ThreadPoolExecutor(4) as callers:
        assert all(callers.map(call, range(4), timeout=60))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the runtime is looked for on Linux alone")
def test_torchs_own_threads_are_found() -> None:
    # this is what keeps ours from sharing processors with torch's, which wait awake
    assert openmp.runtime() or "OpenMP" not in torch.__config__.parallel_info()


def test_the_pool_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_workers", lambda: threads.pool)
    torch.set_num_threads(3)
    assert Meeting(3).hold()
    before = threading.active_count()
    for _ in range(20):
        assert Meeting(3).hold()
    torch.set_num_threads(2)
    assert Meeting(2).hold()
    assert threading.active_count() == before


def test_one_thread_needs_no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(threads, "_workers")
    torch.set_num_threads(1)
    assert Meeting(1).hold()


FORK = """
import os, torch
from support.shares import Meeting

torch.set_num_threads(3)
assert Meeting(3).hold()
child = os.fork()
if child == 0:
    os._exit(7 if Meeting(3).hold() else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert Meeting(3).hold()
"""

EXIT = """
import threading, time, torch
from nash_swarm.quantizers.runtime.cpu.workers import threads
from support.shares import Meeting

torch.set_num_threads(2)
threads._workers = lambda: threads.pool
assert Meeting(2).hold()
waiting = Meeting(2)  # a job that is not finished while the interpreter ends
waiting.released[0] = 0
threading.Thread(target=waiting.hold, daemon=True).start()
time.sleep(0.1)
"""


@pytest.mark.parametrize("code", [FORK, EXIT], ids=["forked children", "the end"])
def test_processes(code: str) -> None:
    command = [sys.executable, "-W", "ignore", "-c", code]
    ran = subprocess.run(command, timeout=120, capture_output=True, text=True, cwd="tests")
    assert (ran.returncode, ran.stderr) == (0, "")
