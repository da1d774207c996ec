"""What a packed model is put through by `test_concurrency.py`, in a process of its own: `scenarios.py NAME FOLDER`.

A scenario that hangs says where after a while; the test ends the process.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from joblib import Parallel, delayed
from torch.utils.data import DataLoader, Dataset

import nash_swarm as ns

THREADS, NEW_TOKENS = 8, 6


def prompt(number: int) -> torch.Tensor:
    """Token ids (1, length), of another length for every number."""
    generator = torch.Generator().manual_seed(number)
    return torch.randint(3, 500, (1, 4 + number), generator=generator)


def write(model: Any, number: int) -> list[int]:
    """Greedy continuation of a prompt."""
    with torch.no_grad():
        ids = prompt(number)
        made = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=2
        )
    return [int(token) for token in made[0]]


def write_from(folder: Path, number: int) -> list[int]:
    """As `write`, by a model that is loaded here."""
    return write(ns.load(folder), number)


class Continuations(Dataset[list[int]]):
    """Continuations as a data set."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __len__(self) -> int:
        return 4

    def __getitem__(self, number: int) -> list[int]:
        return write(self.model, number)


def threads(model: Any, folder: Path) -> None:
    """Eight threads at once, one model, several times over."""
    expected = [write(model, number) for number in range(THREADS)]
    together = threading.Barrier(THREADS)

    def work(number: int) -> list[list[int]]:
        together.wait()
        return [write(model, number) for _ in range(3)]

    with ThreadPoolExecutor(THREADS) as pool:
        for number, found in enumerate(pool.map(work, range(THREADS))):
            assert found == [expected[number]] * 3, number


def joblib_threads(model: Any, folder: Path) -> None:
    """joblib's threading backend."""
    expected = [write(model, number) for number in range(4)]
    assert Parallel(n_jobs=4, backend="threading")(delayed(write)(model, number) for number in range(4)) == expected


def joblib_processes(model: Any, folder: Path) -> None:
    """joblib's own processes, which load the model or are sent it."""
    expected = [write(model, number) for number in range(2)]
    calls = [delayed(write_from)(folder, 0), delayed(write)(model, 1)]
    assert Parallel(n_jobs=2, backend="loky")(calls) == expected


def data_loader(model: Any, folder: Path) -> None:
    """Workers of a DataLoader, forked after this process has used all its threads."""
    data = Continuations(model)
    expected = [write(model, number) for number in range(len(data))]
    for _ in range(2):
        loader = DataLoader(data, batch_size=None, num_workers=2, multiprocessing_context="fork")
        assert [list(tokens) for tokens in loader] == expected


def fork(model: Any, folder: Path) -> None:
    """A fork in the middle of other threads' work; the child goes on alone and forks once more."""
    expected = write(model, 0)
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            write(model, 1)

    busy = [threading.Thread(target=work) for _ in range(2)]
    for thread in busy:
        thread.start()
    try:
        for _ in range(3):
            _in_child(lambda: write(model, 0) == expected and _in_child(lambda: write(model, 0) == expected))
    finally:
        stop.set()
        for thread in busy:
            thread.join()
    assert write(model, 0) == expected


def _in_child(work: Callable[[], bool]) -> bool:
    child = os.fork()
    if child == 0:
        # torch's own OpenMP threads do not survive a fork; one thread does not miss them
        torch.set_num_threads(1)
        os._exit(0 if work() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return True


if __name__ == "__main__":
    faulthandler.dump_traceback_later(240, exit=True)
    torch.set_num_threads(2)
    globals()[sys.argv[1]](ns.load(sys.argv[2]), Path(sys.argv[2]))
    print("done")
