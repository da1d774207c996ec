"""Integer programming: the optimum, with its proof, as far as the time allows."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from nash_swarm.errors import UsageError
from nash_swarm.game.bitgame import BitGame
from nash_swarm.game.demand import totals
from nash_swarm.game.market import clear
from nash_swarm.game.tables import Tables
from nash_swarm.solvers._fill import close_bracket, fill
from nash_swarm.solvers._single import never_worse
from nash_swarm.solvers.base import Callback, Play, Solver


@dataclass(frozen=True)
class Milp(Solver):
    """The multiple-choice knapsack as a 0/1 program, solved by HiGHS (Q. Huangfu & J. Hall 2018) through SciPy.

    minimize sum c_i(s) x_i(s) subject to sum_s x_i(s) = 1 for each agent and sum m_i(s) x_i(s) <= capacity.

    With `reduce`, a Lagrangian solution comes first: at the clearing price, a strategy whose damage and price exceed
    the agent's best by more than that solution's distance to the dual bound cannot be part of a better solution (R.
    Dembo & P. Hammer 1980), so only the few agents that are nearly indifferent are left to decide. Without it the
    program is what a textbook would write down. HiGHS works to a relative accuracy of about 1e-9; where the time runs
    out or rounding would break the budget, the Lagrangian solution stands. With a time limit that is reached, results
    depend on the machine.

    Coupling is ignored when choosing.

    Attributes:
        time_limit: seconds that HiGHS may take.
        reduce: leave out strategies that cannot be part of a better solution than the Lagrangian one.
    """

    name: ClassVar[str] = "milp"
    summary: ClassVar[str] = "integer programming (HiGHS); the optimum if the time suffices"
    separable: ClassVar[bool] = True

    time_limit: float = 60.0
    reduce: bool = True

    def __post_init__(self) -> None:
        if self.time_limit <= 0:
            raise UsageError("milp: time_limit must be positive")

    def play(self, game: BitGame, capacity: int, *, rng: np.random.Generator, callback: Callback) -> Play:
        """See `Solver.play`; nothing is random."""
        tables = Tables.of(game)
        clearing = clear(tables, capacity)
        choices = clearing.narrow.copy()
        close_bracket(tables, choices, clearing.wide, capacity - totals(tables, choices).memory)
        fill(tables, choices, capacity - totals(tables, choices).memory)
        choices = never_worse(game, capacity, choices)
        known = totals(tables, choices)
        possible = np.ones(game.damage.shape, np.bool_)
        if self.reduce:
            above = game.damage + clearing.price * (game.memory - game.memory[:, :1])
            above -= above.min(axis=1, keepdims=True)
            possible = above <= (known.damage - clearing.bound) * (1 + 1e-9)
            possible[np.arange(game.agents), choices] = True
        better, proven = _branch_and_bound(game, capacity, choices, possible, self.time_limit)
        point = totals(tables, better)
        if point.memory <= capacity and point.damage < known.damage:
            choices = better
            fill(tables, choices, capacity - point.memory)
        end = totals(tables, choices)
        record = {
            "memory": float(end.memory),
            "damage": end.damage,
            "variables": float(np.count_nonzero(possible)),
            "proven": float(proven),
        }
        callback(record)
        return Play(choices, trace=(record,))


def _branch_and_bound(
    game: BitGame,
    capacity: int,
    choices: npt.NDArray[np.uint8],
    possible: npt.NDArray[np.bool_],
    time_limit: float,
) -> tuple[npt.NDArray[np.uint8], bool]:
    """The best choices HiGHS finds among the possible ones, and whether it proved them so."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array

    undecided = np.flatnonzero(possible.sum(axis=1) > 1)
    choices = np.where(possible.sum(axis=1) > 1, choices, possible.argmax(axis=1)).astype(np.uint8)
    if not len(undecided):
        return choices, True
    agent, strategy = np.nonzero(possible[undecided])
    memory, damage = game.memory[undecided], game.damage[undecided].astype(np.float64)
    # above each agent's least, so that numbers of very different size meet as little as possible
    bits = (memory - memory[:, :1])[agent, strategy]
    cost = (damage - damage.min(axis=1, keepdims=True))[agent, strategy]
    settled = np.delete(np.arange(game.agents), undecided)
    room = capacity - int(game.memory[settled, choices[settled]].sum()) - int(memory[:, 0].sum())
    unit = max(1, int(np.gcd.reduce(bits)))
    columns = np.arange(len(agent))
    one_each = csr_array((np.ones(len(agent)), (agent, columns)), shape=(len(undecided), len(agent)))
    with _stdout_to_stderr():
        result = milp(
            cost / max(cost.max(), 1e-300),
            integrality=np.ones(len(agent)),
            bounds=Bounds(0, 1),
            constraints=[
                LinearConstraint(one_each, 1, 1),
                LinearConstraint(csr_array(bits[None, :] / unit), -np.inf, room // unit),
            ],
            options={"time_limit": time_limit, "mip_rel_gap": 0},
        )
    if result.x is not None:
        table = np.full((len(undecided), possible.shape[1]), -1.0)
        table[agent, strategy] = result.x
        choices[undecided] = table.argmax(axis=1)
    return choices, result.status == 0


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
