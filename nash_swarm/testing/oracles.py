"""The same facts as in the certificate, computed the slow and obvious way: for small games only."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

from nash_swarm.game.bitgame import BitGame


def profiles(game: BitGame) -> npt.NDArray[np.uint8]:
    """All profiles of strategy indices, uint8 (strategies ** agents, agents)."""
    return np.array(list(itertools.product(range(len(game.strategies)), repeat=game.agents)), np.uint8)


def optimum(game: BitGame, capacity: int) -> float:
    """The least total damage of any profile within `capacity` bits."""
    everything = profiles(game)
    agents = np.arange(game.agents)
    fits = game.memory[agents, everything].sum(axis=1) <= capacity
    return float(game.damage[agents, everything].sum(axis=1, dtype=np.float64)[fits].min())


def changes(game: BitGame, choices: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Bits taken and damage saved by each agent's change to each strategy, shape (agents, strategies) both."""
    agents = np.arange(game.agents)
    damage = game.damage.astype(np.float64)
    bits = game.memory - game.memory[agents, choices][:, None]
    return bits, damage[agents, choices][:, None] - damage


def unilateral_regret(game: BitGame, choices: npt.NDArray[np.uint8], price: float) -> float:
    """The most that one agent gains at `price` by changing alone."""
    bits, saved = changes(game, choices)
    return float((saved - price * bits).max())


def exchange_regret(game: BitGame, choices: npt.NDArray[np.uint8], slack: int) -> float:
    """The best fall of the total damage by one agent within `slack` bits, or by one giving and another taking."""
    bits, saved = changes(game, choices)
    best = float(saved[bits <= slack].max(initial=0.0))
    for giver, taker in itertools.permutations(range(game.agents), 2):
        for s, t in itertools.product(range(len(game.strategies)), repeat=2):
            trade = bits[giver, s] < 0 < bits[taker, t] and bits[giver, s] + bits[taker, t] <= slack
            if trade:
                best = max(best, float(saved[giver, s] + saved[taker, t]))
    return best
