"""Work shared out over threads: everything once, errors come back, nobody waits for ever."""

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

from nash_swarm.sharing import share_rows


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@given(st.integers(0, 300), st.integers(1, 80), st.integers(1, 5))
def test_every_row_is_worked_on_once(rows: int, smallest: int, threads: int) -> None:
    torch.set_num_threads(threads)
    counts = np.zeros(rows, np.int64)
    shares: list[tuple[int, int]] = []

    def work(first: int, past: int) -> None:
        counts[first:past] += 1
        shares.append((first, past))

    share_rows(rows, work, smallest=smallest)
    assert (counts == 1).all()
    assert all(past - first >= min(smallest, rows) for first, past in shares)


def test_one_thread_is_the_calling_one() -> None:
    torch.set_num_threads(1)
    workers = set()
    share_rows(1000, lambda first, past: workers.add(threading.get_ident()), smallest=1)
    assert workers == {threading.get_ident()}


def test_the_pool_is_made_once() -> None:
    # a barrier that only three threads at a time get past: the shares really run side by side
    barrier = threading.Barrier(3, timeout=30)
    share_rows(3, lambda first, past: barrier.wait(), smallest=1)
    before = threading.active_count()
    for _ in range(20):
        share_rows(300, lambda first, past: None, smallest=1)
    assert threading.active_count() == before


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_what_a_share_raises_comes_back_after_all_have_ended(error: BaseException) -> None:
    ended = []

    def work(first: int, past: int) -> None:
        ended.append(first)
        if first == 0:
            raise error

    with pytest.raises(type(error)):
        share_rows(60, work, smallest=1)
    assert len(ended) == 6


def test_shares_may_be_shared_out_again_by_many_callers_at_once() -> None:
    def outer(total: np.ndarray) -> int:
        def inner(row: int) -> None:
            share_rows(12, lambda first, past: total[row, first:past].fill(1), smallest=1)

        share_rows(12, lambda first, past: [inner(row) for row in range(first, past)], smallest=1)
        return int(total.sum())

    with ThreadPoolExecutor(8) as callers:
        sums = callers.map(outer, [np.zeros((12, 12), np.int64) for _ in range(40)], timeout=60)
        assert list(sums) == [144] * 40


FORK = """
import os, sys, threading
import torch
from nash_swarm.sharing import share_rows

def meet():
    barrier = threading.Barrier(3, timeout=30)
    share_rows(3, lambda first, past: barrier.wait(), smallest=1)

torch.set_num_threads(3)
meet()
child = os.fork()
if child == 0:
    meet()
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
meet()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_a_forked_child_makes_threads_of_its_own() -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], check=True, timeout=120)
