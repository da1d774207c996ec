"""A multiple-choice knapsack for HiGHS, in this process or in one of its own that can be stopped.

HiGHS looks at the clock between its steps, and on programs with hundreds of thousands of variables a step can take
minutes; so large programs are given to a process that ends when the time is up. Run as a script, this file is that
process: it needs NumPy and SciPy only.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_LARGE = 20_000
"""Variables from which on a program is solved in a process of its own."""
_GRACE = 5.0
"""Seconds, and as a share of the limit a tenth, that such a process may take to start and to hand over its result."""


class Program(NamedTuple):
    """Minimize the cost of one option for each agent, the options' sizes adding up to at most the room.

    Attributes:
        agent: int64 (options,), whose option it is; every agent has one.
        cost: float64 (options,), not negative.
        size: int64 (options,).
        room: what the sizes may add up to.
    """

    agent: npt.NDArray[np.int64]
    cost: npt.NDArray[np.float64]
    size: npt.NDArray[np.int64]
    room: int


class Answer(NamedTuple):
    """What HiGHS found in the time.

    Attributes:
        chosen: float64 (options,), about 1 for what is chosen and about 0 for the rest; empty if nothing was found.
        bound: no choice costs less; -inf if that is all that is known.
        proven: whether the choice is proven to be the best.
    """

    chosen: npt.NDArray[np.float64]
    bound: float
    proven: bool


_NOTHING = Answer(np.zeros(0), -np.inf, False)


def branch_and_bound(program: Program, time_limit: float) -> Answer:
    """What HiGHS finds in about `time_limit` seconds."""
    frozen = getattr(sys, "frozen", False)  # then the interpreter is the program itself
    if len(program.agent) < _LARGE or not sys.executable or frozen:
        with _stdout_to_stderr():
            return _solve(program, time_limit)
    return _solve_apart(program, time_limit)


def _solve(program: Program, time_limit: float) -> Answer:
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array

    options = len(program.agent)
    columns = np.arange(options)
    one_each = csr_array((np.ones(options), (program.agent, columns)), shape=(int(program.agent.max()) + 1, options))
    unit = max(1, int(np.gcd.reduce(program.size)))
    scale = max(float(program.cost.max()), 1e-300)
    result = milp(
        program.cost / scale,
        integrality=np.ones(options),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(one_each, 1, 1),
            LinearConstraint(csr_array(program.size[None, :] / unit), -np.inf, program.room // unit),
        ],
        options={"time_limit": time_limit, "mip_rel_gap": 0},
    )
    bound = result.mip_dual_bound
    known = bound is not None and np.isfinite(bound)
    found = np.zeros(0) if result.x is None else result.x
    return Answer(found, float(bound) * scale if known else -np.inf, result.status == 0)


def _solve_apart(program: Program, time_limit: float) -> Answer:
    from nash_swarm.errors import DataError  # this file is also a script of its own
    from nash_swarm.files.temporary import temporary_folder

    with tempfile.TemporaryDirectory(prefix="nash-swarm-milp-", dir=temporary_folder()) as folder:
        asked, told = Path(folder) / "program.npz", Path(folder) / "answer.npz"
        np.savez(asked, **program._asdict())
        command = [sys.executable, "-P", __file__, str(asked), str(told), repr(time_limit)]
        # `run` kills the process when the time is up, and when this one is interrupted
        with contextlib.suppress(subprocess.TimeoutExpired):
            ended = subprocess.run(
                command, timeout=1.1 * time_limit + _GRACE, check=False, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            if not told.exists():
                raise DataError(
                    f"HiGHS ended without an answer (exit code {ended.returncode}); it may lack memory: take "
                    "another solver, or fewer agents"
                )
        if not told.exists():
            return _NOTHING
        with np.load(told) as values:
            return Answer(values["chosen"], float(values["bound"]), bool(values["proven"]))


def _main(asked: str, told: str, time_limit: str) -> None:
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    with np.load(asked) as values:
        program = Program(values["agent"], values["cost"], values["size"], int(values["room"]))
    answer = _solve(program, float(time_limit))
    # under its name only when it is whole
    with Path(f"{told}.part").open("wb") as file:
        np.savez(file, **answer._asdict())
    Path(f"{told}.part").replace(told)


def _end_with(parent: int) -> None:
    """End this process soon after its parent, which may have been killed."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Some HiGHS versions print from C++ even when told not to, which would break machine-readable output."""
    if sys.stdout is not None:
        sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


if __name__ == "__main__":
    _main(*sys.argv[1:])
