"""A population of particles that explores profiles of a game, each inside the budget."""

from __future__ import annotations

import math

import numpy as np

from nash_swarm.game.bitgame import BitGame
from nash_swarm.game.coupling import Coupling
from nash_swarm.game.coupling.coupled import Coupled
from nash_swarm.game.interaction import Interaction
from nash_swarm.game.market import clear
from nash_swarm.game.profiles import Choices
from nash_swarm.game.tables import Tables
from nash_swarm.solvers._flight import Flight, Found, Market, Particle, bits_of, fly, neighbours
from nash_swarm.solvers._market import Record
from nash_swarm.solvers.base import Progress, ignore_progress
from nash_swarm.solvers.toolbox import fill, repair

_COMMUNITIES = 64
"""Communities that agents without coupling are divided into."""
_ROUNDS = 2
"""Rounds of the fill that a particle gets: the best ones are filled to the end later."""


def explore(
    game: BitGame,
    capacity: int,
    flight: Flight,
    rng: np.random.Generator,
    record: Record,
    progress: Progress = ignore_progress,
) -> list[Found]:
    """Let particles fly; returns the best profile of each, the best one first."""
    seen = Coupled.of(Tables.of(game), game.coupling or _divided(game))
    clearing = clear(seen.tables, capacity)
    narrowest, widest = (bits_of(seen, np.full(seen.agents, s, np.uint8)) for s in (0, seen.strategies - 1))
    room = max(float(np.sum(widest - narrowest)), 1.0)
    shares = narrowest + (widest - narrowest) * ((capacity - narrowest.sum()) / room)
    market, count = Market(seen, neighbours(seen.arena.graph), shares, room), len(shares)
    start = math.log(clearing.price) if clearing.price > 0 else _cheap(seen)
    leader = fit(seen, clearing.narrow, capacity)
    best = Found(seen.total(leader).damage, leader, np.full(count, start))
    particles, bests = [], []
    for number in range(flight.particles):
        # the first particle starts where the market clears, the others around it
        prices = np.full(count, start) + (number > 0) * flight.spread * rng.normal(size=count)
        particles.append(Particle(clearing.narrow.copy(), prices, *(np.zeros(count) for _ in range(3))))
        bests.append(best._replace(prices=prices.copy()))
    for turn in range(flight.rounds):
        for number, particle in enumerate(particles):
            progress((turn * len(particles) + number) / (flight.rounds * len(particles)))
            fly(market, particle, bests[number], best, flight, int(rng.integers(2**62)))
            particle.choices[:] = fit(seen, particle.choices, capacity, _ROUNDS)
            cost = seen.total(particle.choices).damage
            if cost < bests[number].cost or not number:
                bests[number] = Found(cost, particle.choices.copy(), particle.prices.copy())
        best = min([best, *bests], key=lambda found: found.cost)
        spread = float(np.mean([particle.prices.std() for particle in particles]))
        record(seen.total(best.choices, best.price), {"disagreement": spread})
    return sorted([best, *bests], key=lambda found: found.cost)


def fit(game: Interaction, choices: Choices, capacity: int, rounds: int | None = None) -> Choices:
    """A profile cut down to the capacity, or brought up to it in so many rounds of the fill."""
    choices = choices.copy()
    slack = repair(game, choices, capacity - game.total(choices).memory)
    fill(game, choices, slack, rounds)
    return choices


def _divided(game: BitGame) -> Coupling:
    """Communities of agents that are not coupled: they only share what they know of the price."""
    count = min(_COMMUNITIES, game.agents)
    community = (np.arange(game.agents) * count // game.agents).astype(np.int32)
    return Coupling(np.zeros((*game.damage.shape, 0), np.float32), community, np.zeros((count, count)))


def _cheap(game: Interaction) -> float:
    """The logarithm of a price where there is none to start from: a millionth of the mean damage per bit."""
    damage = float(np.abs(game.tables.damage).sum(dtype=np.float64))
    return math.log(max(1e-6 * damage / float(game.tables.memory.max()) / game.agents, 1e-290))
