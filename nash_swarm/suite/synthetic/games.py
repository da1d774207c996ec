"""Synthetic games of any size, one kind for each thing that is hard about allocating bits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from nash_swarm.errors import UsageError
from nash_swarm.game.bitgame import BitGame
from nash_swarm.game.budget import Budget
from nash_swarm.game.streaming import StreamedGame
from nash_swarm.testing.games import couple

WIDTHS = (2, 3, 4, 5, 6, 8)
SHARE = 1 / 3
"""Of the way from the smallest size to the largest: about 3.5 to 4 bits."""
RANK = 8
"""Of the coupling vectors."""
_COMMUNITIES = 100
_CHUNK = 1 << 20
_SIZES = np.array([4096, 8192, 16384])
"""Weights of an agent."""
_HEADER = 512

Scales = Callable[[np.random.Generator, int], npt.NDArray[np.float64]]


def _lognormal(rng: np.random.Generator, agents: int) -> npt.NDArray[np.float64]:
    return rng.lognormal(0, 2, (agents, 1))


def _pareto(rng: np.random.Generator, agents: int) -> npt.NDArray[np.float64]:
    return rng.pareto(0.6, (agents, 1)) + 1


def separable(agents: int, seed: int, *, shared: bool = False, scales: Scales = _lognormal) -> BitGame:
    """Damage that falls about fourfold a bit and differs by orders of magnitude between agents; no coupling.

    Args:
        agents: how many.
        seed: of everything random.
        shared: all agents have one size, in one row of memory, as at `parameter` granularity.
        scales: factors of the agents' damage, (agents, 1); log-normal, a factor e^2 to a standard deviation.
    """
    rng = np.random.default_rng(seed)
    widths = np.array(WIDTHS)
    damage = np.empty((agents, len(widths)), np.float32)
    for start in range(0, agents, _CHUNK):
        part = damage[start : start + _CHUNK]
        scale = scales(rng, len(part))
        part[:] = scale * np.sort(4.0**-widths * rng.uniform(0.7, 1.3, part.shape), axis=1)[:, ::-1]
    own = widths if shared else widths * rng.choice(_SIZES, (agents, 1)) + _HEADER
    return BitGame(WIDTHS, damage, np.broadcast_to(own, damage.shape), 1000, agents * 512)


def heavy_tailed(agents: int, seed: int) -> BitGame:
    """Damage of infinite mean (Pareto, exponent 0.6): a few agents carry most of it, whatever the size of the game."""
    return separable(agents, seed, scales=_pareto)


def ties(agents: int, seed: int) -> BitGame:
    """Prices at which thousands of agents are indifferent at once, each between three or four of its widths.

    An agent saves 2^k per bit on its first two steps between neighbouring widths and a quarter of that on the other
    three, exactly, with k out of eight numbers. So there are ten prices in all; the one that clears the market decides
    next to nothing, and since sizes are 3, 5 or 7 units, what fits into the budget is a matter of arithmetic.
    """
    rng = np.random.default_rng(seed)
    units = rng.choice(np.array([3, 5, 7]), (agents, 1))
    saved = np.diff(WIDTHS) * np.array([1, 1, 0.25, 0.25, 0.25])
    remaining = np.append(np.cumsum(saved[::-1])[::-1], 0.0)
    damage = units * 2.0 ** -rng.integers(8, 16, (agents, 1)) * remaining
    return BitGame(WIDTHS, damage.astype(np.float32), 1024 * units * np.array(WIDTHS), 1000, agents * 512)


def coupled(agents: int, seed: int) -> BitGame:
    """The separable game, coupled in up to 100 communities; what pairs add is of the order of agents' own damage.

    The share of the coupling is the same at every size: the interaction of two agents is the weaker the more of them a
    community has. Otherwise pairs would soon be all there is.
    """
    rng = np.random.default_rng([seed, 1])
    communities = max(1, min(_COMMUNITIES, agents // 10))
    strength = min(1.0, 2 * communities / agents)
    game = separable(agents, seed)
    return couple(rng, game, communities=communities, rank=RANK, strength=strength, likeness=1.0)


FAMILIES: dict[str, Callable[[int, int], BitGame]] = {
    "separable": separable,
    "coupled": coupled,
    "ties": ties,
    "heavy-tailed": heavy_tailed,
}


def make_game(family: str, agents: int, seed: int = 0) -> BitGame:
    """The game of that family and size, the same whenever it is asked for.

    Raises:
        UsageError: there is no such family, or no agent.
    """
    if family not in FAMILIES:
        raise UsageError(f"no synthetic game named {family!r}; there are: {', '.join(FAMILIES)}")
    if agents < 1:
        raise UsageError(f"a game needs at least one agent, not {agents}")
    return FAMILIES[family](agents, seed)


def table_bytes(family: str, agents: int) -> int:
    """What the tables of such a game take in memory: float32 damage and vectors, int64 bits."""
    return agents * len(WIDTHS) * (4 + 8 + (4 * RANK if family == "coupled" else 0))


def budget_of(game: BitGame | StreamedGame) -> Budget:
    """A third of the way from the smallest size to the largest."""
    return Budget(
        int(game.smallest_bits() + SHARE * (game.largest_bits() - game.smallest_bits())), "a third of the way"
    )


def numpy_quantile(damage: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """The 10/20/70 % rule as the document that the project started from has it, in NumPy; widths (agents,)."""
    importance = damage[:, 0]
    edges = np.quantile(importance, [0.7, 0.9])
    return np.array([2, 4, 8], np.uint8)[np.digitize(importance, edges)]
