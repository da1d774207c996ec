"""The same facts as in the certificate, computed the slow and obvious way: for small games only."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt

from nash_swarm.game.bitgame import BitGame
from nash_swarm.testing.couplings import Pairs


def profiles(game: BitGame) -> npt.NDArray[np.uint8]:
    """All profiles of strategy indices, uint8 (strategies ** agents, agents)."""
    shape = (len(game.strategies),) * game.agents
    return np.stack(np.unravel_index(np.arange(math.prod(shape)), shape), axis=1).astype(np.uint8)


def total_damage(game: BitGame, choices: npt.NDArray[np.uint8]) -> float:
    """The agents' damage and what every two of them add, pair by pair."""
    total = float(game.damage[np.arange(game.agents), choices].sum(dtype=np.float64))
    pairs = Pairs.of(game)
    return total + sum(_pair(pairs, choices, i, j) for i, j in itertools.combinations(range(game.agents), 2))


def optimum(game: BitGame, capacity: int) -> float:
    """The least total damage of any profile within `capacity` bits."""
    everything = profiles(game)
    agents = np.arange(game.agents)
    fits = game.memory[agents, everything].sum(axis=1) <= capacity
    totals = game.damage[agents, everything].sum(axis=1, dtype=np.float64)
    if game.coupling is not None:
        pairs = Pairs.of(game)
        played = pairs.vectors[agents, everything]
        totals += 0.5 * np.einsum("pik,ij,pjk->p", played, pairs.others, played, optimize=True)
    return float(totals[fits].min())


def changes(game: BitGame, choices: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Bits taken and total damage saved by each agent's change to each strategy, shape (agents, strategies) both."""
    agents = np.arange(game.agents)
    damage = game.damage.astype(np.float64)
    if game.coupling is not None:
        pairs = Pairs.of(game)
        damage += np.einsum("isk,ij,jk->is", pairs.vectors, pairs.others, pairs.vectors[agents, choices])
    bits = game.memory - game.memory[agents, choices][:, None]
    return bits, damage[agents, choices][:, None] - damage


def unilateral_regret(game: BitGame, choices: npt.NDArray[np.uint8], price: float) -> float:
    """The most that one agent gains at `price` by changing alone."""
    bits, saved = changes(game, choices)
    return float((saved - price * bits).max())


def exchange_regret(game: BitGame, choices: npt.NDArray[np.uint8], slack: int) -> float:
    """The best fall of the total damage by one agent within `slack` bits, or by one giving and another taking."""
    bits, saved = changes(game, choices)
    pairs = Pairs.of(game)
    best = float(saved[bits <= slack].max(initial=0.0))
    for giver, taker in itertools.permutations(range(game.agents), 2):
        for s, t in itertools.product(range(len(game.strategies)), repeat=2):
            trade = bits[giver, s] < 0 < bits[taker, t] and bits[giver, s] + bits[taker, t] <= slack
            if trade:
                both = choices.copy()
                both[[giver, taker]] = s, t
                alone = choices.copy(), choices.copy()
                alone[0][giver], alone[1][taker] = s, t
                # what the two changes add to one another
                extra = _pair(pairs, both, giver, taker) + _pair(pairs, choices, giver, taker)
                extra -= sum(_pair(pairs, one, giver, taker) for one in alone)
                best = max(best, float(saved[giver, s] + saved[taker, t] - extra))
    return best


def _pair(pairs: Pairs, choices: npt.NDArray[np.uint8], i: int, j: int) -> float:
    """What agents i and j add to the total damage together."""
    return float(pairs.weights[i, j] * (pairs.vectors[i, choices[i]] @ pairs.vectors[j, choices[j]]))
