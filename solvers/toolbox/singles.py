"""Profiles in which every agent plays the same strategy."""

from __future__ import annotations

import numpy as np

from nash_swarm.game.bitgame import BitGame
from nash_swarm.game.interaction import Interaction
from nash_swarm.game.profiles import Choices
from nash_swarm.solvers.toolbox.filling import fill


def single_memory(game: BitGame) -> list[int]:
    """Bits that all agents take together with each strategy."""
    return [int(column.sum()) for column in game.memory.T]


def never_worse(game: Interaction, capacity: int, choices: Choices) -> Choices:
    """`choices`, or the best single strategy that fits (then filled) where that has a smaller total cost.

    Only strategies off the convex hull of an agent, a few large agents, or coupling can make a price-based profile lose
    to it.
    """
    singles = [game.single(strategy) for strategy in range(game.strategies)]
    fitting = [strategy for strategy, point in enumerate(singles) if point.memory <= capacity]
    if not fitting:
        return choices
    best = min(fitting, key=lambda strategy: singles[strategy].damage)
    if game.total(choices).damage <= singles[best].damage:
        return choices
    other = np.full(game.agents, best, np.uint8)
    fill(game, other, capacity - singles[best].memory)
    return other
