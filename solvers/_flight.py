"""One round of a particle of the swarm: neighbours align prices, agents respond, congestion moves the prices."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nash_swarm.compiling import njit
from nash_swarm.game.chance import chance
from nash_swarm.game.coupling.coupled import Coupled
from nash_swarm.game.profiles import Choices, pick
from nash_swarm.solvers.toolbox.responding import best_responses

_GAIN = 4.0
"""Rise of a price's logarithm if the profile takes all the room between the smallest and the largest one too much."""
_FASTEST = 1.0
"""Most by which congestion moves the logarithm of a price in one round."""


class Flight(NamedTuple):
    """How particles move; the meaning of each field is in `Swarm`."""

    particles: int
    rounds: int
    spread: float
    momentum: float
    attraction: float
    imitation: float


class Particle(NamedTuple):
    """A profile and what its communities believe. All arrays are changed in place.

    Attributes:
        choices: uint8 (agents,).
        prices: float64 (communities,), logarithms of their estimates of the price.
        velocity: float64 (communities,), how those move.
        excess: float64 (communities,), estimates of the mean number of bits that a community takes too much.
        taken: float64 (communities,), bits that each took when it looked last, less its share.
    """

    choices: Choices
    prices: npt.NDArray[np.float64]
    velocity: npt.NDArray[np.float64]
    excess: npt.NDArray[np.float64]
    taken: npt.NDArray[np.float64]


class Found(NamedTuple):
    """The best profile of a particle, or of all.

    Attributes:
        cost: its total cost.
        choices: uint8 (agents,), inside the budget.
        prices: float64 (communities,), logarithms of the prices at which it was found.
    """

    cost: float
    choices: Choices
    prices: npt.NDArray[np.float64]

    @property
    def price(self) -> float:
        """The mean of the prices."""
        return math.exp(float(self.prices.mean()))


class Market(NamedTuple):
    """What particles share.

    Attributes:
        game: the game.
        weights: what `neighbours` returns.
        shares: float64 (communities,), each community's part of the capacity; they sum to the capacity.
        room: bits between the smallest and the largest profile, the unit of congestion.
    """

    game: Coupled
    weights: npt.NDArray[np.float64]
    shares: npt.NDArray[np.float64]
    room: float


def neighbours(graph: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """How much communities listen to one another, float64 (communities, communities); rows and columns sum to 1.

    Neighbours are coupled or next to one another in the model. The weights are those of Metropolis (L. Xiao, S. Boyd &
    S. Lall, "A scheme for robust distributed sensor fusion based on average consensus", IPSN 2005): with them, repeated
    averaging among neighbours ends in the mean of all.
    """
    place = np.arange(len(graph))
    linked = (graph != 0) | (np.abs(place[:, None] - place) == 1)
    np.fill_diagonal(linked, False)
    degree = linked.sum(axis=1)
    weights = np.where(linked, 1.0 / (1 + np.maximum(degree[:, None], degree)), 0.0)
    weights[place, place] = 1.0 - weights.sum(axis=1)
    return weights


def fly(market: Market, particle: Particle, own: Found, best: Found, flight: Flight, seed: int) -> None:
    """Move a particle by one round.

    Args:
        market: what all particles share.
        particle: changed.
        own: its best profile, to whose prices it is drawn.
        best: that of the swarm, to whose prices it is drawn, and which a few agents imitate.
        flight: by how much.
        seed: of the round.
    """
    game, choices = market.game, particle.choices
    _align(market.weights, particle, own.prices, best.prices, flight.momentum, flight.attraction, seed)
    # cohesion: agents respond to their community's price
    imitating = _draws(seed, game.agents) < flight.imitation
    choices[imitating] = best.choices[imitating]
    seen, prices = game.marginal(choices), np.exp(particle.prices)[game.arena.community]
    wanted = best_responses(seen, prices, choices)[0]
    wanted[imitating] = choices[imitating]
    game.follow(seen, choices, wanted, prices)
    _congest(market.weights, bits_of(game, choices) - market.shares, market.room, particle)


def bits_of(game: Coupled, choices: Choices) -> npt.NDArray[np.float64]:
    """Bits that each community takes, float64 (communities,)."""
    memory = pick(np.broadcast_to(game.tables.memory, game.tables.damage.shape), choices)
    return np.bincount(game.arena.community, weights=memory, minlength=len(game.arena.graph)).astype(np.float64)


@njit(nogil=True, cache=True)
def _draws(seed, count):  # type: ignore[no-untyped-def]
    """Numbers in [0, 1), float64 (count,)."""
    out = np.empty(count)
    for i in range(count):
        out[i] = chance(seed, i)
    return out


@njit(nogil=True, cache=True)
def _align(weights, particle, own, best, momentum, attraction, seed):  # type: ignore[no-untyped-def]
    """Alignment: prices follow their velocity and those of the neighbours."""
    count = len(weights)
    moved = np.empty(count)
    for c in range(count):
        one, two = chance(seed, -1 - 2 * c), chance(seed, -2 - 2 * c)
        particle.velocity[c] = (
            momentum * particle.velocity[c]
            + attraction * one * (own[c] - particle.prices[c])
            + attraction * two * (best[c] - particle.prices[c])
        )
        moved[c] = particle.prices[c] + particle.velocity[c]
    for c in range(count):
        total = 0.0
        for other in range(count):
            total += weights[c, other] * moved[other]
        particle.prices[c] = total


@njit(nogil=True, cache=True)
def _congest(weights, taken, room, particle):  # type: ignore[no-untyped-def]
    """Separation: communities agree on how crowded the budget is, and a crowded one is dearer."""
    count = len(weights)
    heard = np.empty(count)
    for c in range(count):
        total = 0.0
        for other in range(count):
            total += weights[c, other] * particle.excess[other]
        heard[c] = total + taken[c] - particle.taken[c]
    for c in range(count):
        particle.excess[c] = heard[c]
        particle.taken[c] = taken[c]
        push = _GAIN * heard[c] * count / room
        particle.prices[c] += min(max(push, -_FASTEST), _FASTEST)
