"""Dynamic programming over the memory: the optimum, on a grid of bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from nash_swarm.compiling import njit
from nash_swarm.errors import UsageError
from nash_swarm.game.bitgame import BitGame
from nash_swarm.game.interaction import Separate
from nash_swarm.game.tables import Tables
from nash_swarm.solvers.base import Callback, Play, Progress, Solver, ignore_progress
from nash_swarm.solvers.toolbox import fill, never_worse

_CELLS_AT_ONCE = 1 << 24
"""Cells of the table that are filled between two words on the progress."""


@dataclass(frozen=True)
class Dp(Solver):
    """The multiple-choice knapsack by dynamic programming (K. Dudzinski & S. Walukiewicz, "Exact methods for the
    knapsack problem and its relaxations", EJOR 28, 1987; Kellerer, Pferschy & Pisinger, "Knapsack Problems", ch. 11).

    Memory is counted above each agent's cheapest strategy, in units of `grid` bits. Each difference is rounded up, so
    that the budget always holds; the result is the optimum of the rounded game, and of the game itself where the grid
    divides all differences (the trace says so: `exact`). What rounding left over is filled. Time is O(agents *
    strategies * capacity / grid), memory one byte per agent and unit of capacity.

    Coupling is ignored when choosing.

    Attributes:
        grid: bits per unit; by default the finest grid that needs no more than `most_cells`.
        most_cells: limit on the table, in cells of one byte.
    """

    name: ClassVar[str] = "dp"
    summary: ClassVar[str] = "dynamic programming; exact on a grid of bits, for small games"
    separable: ClassVar[bool] = True

    grid: int | None = None
    most_cells: int = 1 << 28

    def __post_init__(self) -> None:
        if (self.grid is not None and self.grid < 1) or self.most_cells < 1:
            raise UsageError("dp: grid and most_cells must be positive")

    def play(
        self,
        game: BitGame,
        capacity: int,
        *,
        rng: np.random.Generator,
        callback: Callback,
        progress: Progress = ignore_progress,
    ) -> Play:
        """See `Solver.play`; nothing is random.

        Raises:
            UsageError: the table would be larger than `most_cells`.
        """
        if 2 * game.agents > self.most_cells:
            raise UsageError(
                f"dp: {game.agents} agents need a table of at least {2 * game.agents} cells, more than the limit "
                f"{self.most_cells}; raise most_cells or take another solver"
            )
        tables = Tables.of(game)
        above = tables.memory - tables.memory[:, :1]
        room = min(capacity - int(game.memory[:, 0].sum()), int(game.memory[:, -1].sum() - game.memory[:, 0].sum()))
        divisor = max(1, int(np.gcd.reduce(above, axis=None)))
        finest = divisor * max(1, -(-room // ((self.most_cells // game.agents - 1) * divisor)))
        grid = self.grid or finest
        if game.agents * (room // grid + 1) > self.most_cells:
            raise UsageError(
                f"dp: a grid of {grid} bits needs {game.agents * (room // grid + 1)} cells, more than the limit "
                f"{self.most_cells}; take a grid of {finest} bits or more, or raise most_cells"
            )
        choices = _solve(tables.damage, -(-above // grid), room // grid, progress)
        seen = Separate(tables)
        fill(seen, choices, capacity - seen.total(choices).memory)
        choices = never_worse(seen, capacity, choices)
        end = seen.total(choices)
        record = {
            "memory": float(end.memory),
            "damage": end.damage,
            "grid": float(grid),
            "exact": float(divisor % grid == 0),
        }
        callback(record)
        return Play(choices, trace=(record,))


def _solve(
    damage: npt.NDArray[np.float32], units: npt.NDArray[np.int64], capacity: int, progress: Progress
) -> npt.NDArray[np.uint8]:
    agents = len(damage)
    chosen = np.zeros((agents, capacity + 1), np.uint8)
    before, after = np.zeros(capacity + 1), np.empty(capacity + 1)
    # some agents at a time, so that it can be told how far it is
    part = max(1, _CELLS_AT_ONCE // (capacity + 1))
    for start in range(0, agents, part):
        stop = min(start + part, agents)
        before, after = _tabulate(damage, units, start, stop, before, after, chosen)
        progress(stop / agents)
    choices = np.empty(agents, np.uint8)
    _trace_back(units, chosen, choices)
    return choices


@njit(nogil=True, cache=True)
def _tabulate(damage, units, start, stop, before, after, chosen):  # type: ignore[no-untyped-def]
    """For agents from `start` to `stop` and k units: what each plays if it and all before share at most k at best.

    `before` is the least damage of the agents before `start`, by units; returns that of those before `stop`, and the
    other array.
    """
    step = 0 if units.shape[0] == 1 else 1
    width = chosen.shape[1]
    for i in range(start, stop):
        row = i * step
        for k in range(width):
            after[k] = before[k] + damage[i, 0]
        for s in range(1, damage.shape[1]):
            taken = units[row, s]
            harm = np.float64(damage[i, s])
            for k in range(taken, width):
                total = before[k - taken] + harm
                if total < after[k]:
                    after[k] = total
                    chosen[i, k] = s
        before, after = after, before
    return before, after


@njit(nogil=True, cache=True)
def _trace_back(units, chosen, choices):  # type: ignore[no-untyped-def]
    step = 0 if units.shape[0] == 1 else 1
    k = chosen.shape[1] - 1
    for i in range(len(choices) - 1, -1, -1):
        choices[i] = chosen[i, k]
        k -= units[i * step, choices[i]]
