"""Profiles in which every agent plays the same strategy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nash_swarm.game.bitgame import BitGame
from nash_swarm.game.demand import totals
from nash_swarm.game.tables import Tables
from nash_swarm.solvers._fill import fill


def strategy_memory(game: BitGame) -> list[int]:
    """Bits that all agents take together with each strategy."""
    return [int(column.sum()) for column in game.memory.T]


def never_worse(game: BitGame, capacity: int, choices: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """`choices`, or the best single strategy that fits (then filled) where that has less damage in total.

    Only strategies off the convex hull of an agent, or a few large agents, can make a price-based profile lose to it.
    """
    tables = Tables.of(game)
    fitting = [s for s, bits in enumerate(strategy_memory(game)) if bits <= capacity]
    if not fitting:
        return choices
    single = min(fitting, key=lambda s: float(game.damage[:, s].sum(dtype=np.float64)))
    if totals(tables, choices).damage <= float(game.damage[:, single].sum(dtype=np.float64)):
        return choices
    other = np.full(game.agents, single, np.uint8)
    fill(tables, other, capacity - totals(tables, other).memory)
    return other
