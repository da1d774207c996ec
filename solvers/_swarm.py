"""A population of particles that explores profiles of a game, each inside the budget."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nash_swarm.game.arena import Arena, Members
from nash_swarm.game.market import clear
from nash_swarm.solvers._coupled_market import Record, fit
from nash_swarm.solvers._flight import Particle, Pull, fly, neighbours
from nash_swarm.solvers.base import Progress, ignore_progress

_COMMUNITIES = 64
"""Communities that agents without coupling are divided into."""
_GAIN = 4.0
"""Rise of a price's logarithm if the profile takes all the room between the smallest and the largest one too much."""
_ROUNDS = 2
"""Rounds of the fill that a particle gets: the best ones are filled to the end later."""


class Flight(NamedTuple):
    """How particles move; the meaning of each field is in `Swarm`."""

    particles: int
    rounds: int
    spread: float
    momentum: float
    attraction: float
    imitation: float


class Found(NamedTuple):
    """The best profile of one particle.

    Attributes:
        cost: its total cost.
        choices: uint8 (agents,), inside the budget.
        prices: float64 (communities,), logarithms of the prices at which it was found.
    """

    cost: float
    choices: npt.NDArray[np.uint8]
    prices: npt.NDArray[np.float64]

    @property
    def price(self) -> float:
        """The mean of the prices."""
        return math.exp(float(self.prices.mean()))


def explore(
    arena: Arena,
    capacity: int,
    flight: Flight,
    rng: np.random.Generator,
    record: Record,
    progress: Progress = ignore_progress,
) -> list[Found]:
    """Let particles fly; returns the best profile of each, the best one first."""
    if not arena.vectors.shape[2]:
        arena = _divide(arena)
    count = len(arena.graph)
    members, weights = Members.of(arena), neighbours(arena.graph)
    clearing = clear(arena.tables, capacity)
    narrowest, widest = (_taken(arena, np.full(arena.agents, s, np.uint8)) for s in (0, arena.damage.shape[1] - 1))
    room = max(float(np.sum(widest - narrowest)), 1.0)
    shares = narrowest + (widest - narrowest) * ((capacity - narrowest.sum()) / room)
    start = math.log(clearing.price) if clearing.price > 0 else _cheap(arena)
    leader = fit(arena, clearing.narrow, capacity)
    best = Found(arena.total(leader).damage, leader, np.full(count, start))
    particles, bests = [], []
    for number in range(flight.particles):
        # the first particle starts where the market clears, the others around it
        prices = np.full(count, start) + (number > 0) * flight.spread * rng.normal(size=count)
        particles.append(Particle(clearing.narrow.copy(), prices, *(np.zeros(count) for _ in range(3))))
        bests.append(best._replace(prices=prices.copy()))
    for turn in range(flight.rounds):
        for number, particle in enumerate(particles):
            progress((turn * len(particles) + number) / (flight.rounds * len(particles)))
            pull = Pull(
                bests[number].prices, best.prices, best.choices,
                flight.momentum, flight.attraction, flight.attraction, flight.imitation,
            )  # fmt: skip
            sums = arena.sums(particle.choices)
            seed = int(rng.integers(2**62))
            fly(arena, members, weights, shares, room, sums, particle, pull, _GAIN, seed)
            particle.choices[:] = fit(arena, particle.choices, capacity, _ROUNDS)
            cost = arena.total(particle.choices).damage
            if cost < bests[number].cost or not number:
                bests[number] = Found(cost, particle.choices.copy(), particle.prices.copy())
        best = min([best, *bests], key=lambda found: found.cost)
        spread = float(np.mean([particle.prices.std() for particle in particles]))
        point = arena.total(best.choices, best.price)
        record(point, {"disagreement": spread})
    return sorted([best, *bests], key=lambda found: found.cost)


def _divide(arena: Arena) -> Arena:
    """The arena of agents that are not coupled, in communities that only share what they know of the price."""
    count = min(_COMMUNITIES, arena.agents)
    community = (np.arange(arena.agents) * count // arena.agents).astype(np.int32)
    return arena._replace(community=community, graph=np.zeros((count, count)))


def _taken(arena: Arena, choices: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Bits that each community takes."""
    memory = np.broadcast_to(arena.memory, arena.damage.shape)[np.arange(arena.agents), choices]
    return np.bincount(arena.community, weights=memory, minlength=len(arena.graph)).astype(np.float64)


def _cheap(arena: Arena) -> float:
    """The logarithm of a price where there is none to start from: a millionth of the mean damage per bit."""
    damage = float(np.abs(arena.damage).sum(dtype=np.float64))
    return math.log(max(1e-6 * damage / float(arena.memory.max()) / arena.agents, 1e-290))
