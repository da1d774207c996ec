"""The 10/20/70 % rule: the most important agents get 8 bits, the next ones 4, the rest 2."""

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
from nash_swarm.solvers.base import Callback, Play, Solver
from nash_swarm.solvers.toolbox import fill, single_memory


@dataclass(frozen=True)
class Quantile(Solver):
    """Widths by the rank of an agent's importance, thresholds moved to meet the budget.

    The rule of the document that this project started from: the top 10 % of the agents by importance get 8 bits, the
    next 20 % get 4, the other 70 % get 2. Importance is the damage of the cheapest strategy per bit it takes. The two
    upper shares are scaled together (1 : 2 by default) until the budget is met; once every agent is upgraded, the
    middle share gives way to the upper one. Widths that the game does not have are replaced by the nearest ones it has.
    What is then left of the budget is spent on the best upgrades per bit.

    Sorting the importances (float32) is the largest cost; the agents themselves are not sorted.

    Coupling is ignored when choosing.

    Attributes:
        wide_share: share of the agents that get 8 bits before scaling.
        middle_share: share of the agents that get 4 bits before scaling.
    """

    name: ClassVar[str] = "quantile"
    summary: ClassVar[str] = "the 10/20/70 % -> 8/4/2 bits rule on importance, thresholds moved to meet the budget"
    baseline: ClassVar[bool] = True
    separable: ClassVar[bool] = True

    wide_share: float = 0.1
    middle_share: float = 0.2

    def __post_init__(self) -> None:
        if not (0 < self.wide_share <= 1 and 0 <= self.middle_share <= 1):
            raise UsageError(f"quantile: shares must lie in (0, 1], not {self.wide_share}, {self.middle_share}")

    def play(self, game: BitGame, capacity: int, *, rng: np.random.Generator, callback: Callback) -> Play:
        """See `Solver.play`; nothing is random."""
        tables = Tables.of(game)
        importance = _importance(tables)
        ranked = np.sort(importance)[::-1]
        widths = [_nearest(game.strategies, bits) for bits in (2, 4, 8)]
        if single_memory(game)[widths[0]] > capacity:
            widths[0] = 0
        levels = np.array(widths, np.uint8)
        choices = np.empty(game.agents, np.uint8)
        trace = []

        def assign(upper: int) -> int:
            middle = min(game.agents - upper, round(upper * self.middle_share / self.wide_share))
            counts = (upper, upper + middle)
            edges = [ranked[count - 1] if count else np.float32(np.inf) for count in counts]
            ties = [count - np.count_nonzero(importance > edge) for count, edge in zip(counts, edges, strict=True)]
            used = _assign(tables.memory, importance, *edges, *ties, levels, choices)
            record = {"memory": float(used), "wide": upper / game.agents, "middle": middle / game.agents}
            trace.append(record)
            callback(record)
            return int(used)

        fits, too_many = 0, game.agents + 1
        while too_many - fits > 1:
            upper = (fits + too_many) // 2
            fits, too_many = (upper, too_many) if assign(upper) <= capacity else (fits, upper)
        fill(Separate(tables), choices, capacity - assign(fits))
        return Play(choices, trace=tuple(trace))


def _nearest(strategies: tuple[int, ...], bits: int) -> int:
    return min(range(len(strategies)), key=lambda s: abs(strategies[s] - bits))


def _importance(tables: Tables) -> npt.NDArray[np.float32]:
    # zero damage and negative zero must not sort apart
    return np.abs(tables.damage[:, 0] / tables.memory[:, 0].astype(np.float32))


@njit(nogil=True, cache=True)
def _assign(memory, importance, wide_edge, middle_edge, wide_ties, middle_ties, levels, choices):  # type: ignore[no-untyped-def]
    """Choose by importance; of equal ones at an edge the first in agent order go up. Returns the memory taken.

    `middle_ties` counts agents at the lower edge that get the middle width or the upper one.
    """
    step = 0 if memory.shape[0] == 1 else 1
    used = 0
    for i in range(len(choices)):
        level = 0
        if importance[i] > middle_edge:
            level = 1
        elif importance[i] == middle_edge and middle_ties > 0:
            middle_ties -= 1
            level = 1
        if importance[i] > wide_edge:
            level = 2
        elif importance[i] == wide_edge and wide_ties > 0:
            wide_ties -= 1
            level = 2
        choices[i] = levels[level]
        used += memory[i * step, levels[level]]
    return used
