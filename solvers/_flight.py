"""One round of a particle of the swarm: neighbours align prices, agents respond, congestion moves the prices."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nash_swarm.compiling import njit
from nash_swarm.solvers._coupled_response import best_response
from nash_swarm.solvers._random import chance

_FASTEST = 1.0
"""Most by which congestion moves the logarithm of a price in one round."""


class Particle(NamedTuple):
    """A profile and what its communities believe. All arrays are changed in place.

    Attributes:
        choices: uint8 (agents,).
        prices: float64 (communities,), logarithms of their estimates of the price.
        velocity: float64 (communities,), how those move.
        excess: float64 (communities,), estimates of the mean number of bits that a community takes too much.
        taken: float64 (communities,), bits that each took when it looked last, less its share.
    """

    choices: npt.NDArray[np.uint8]
    prices: npt.NDArray[np.float64]
    velocity: npt.NDArray[np.float64]
    excess: npt.NDArray[np.float64]
    taken: npt.NDArray[np.float64]


class Pull(NamedTuple):
    """What draws a particle.

    Attributes:
        own: float64 (communities,), prices at which it found its own best profile.
        swarm: float64 (communities,), those of the best profile of all.
        leader: uint8 (agents,), that profile.
        momentum, toward_own, toward_swarm: weights of velocity and attraction.
        imitation: probability that an agent plays what the leader has it play.
    """

    own: npt.NDArray[np.float64]
    swarm: npt.NDArray[np.float64]
    leader: npt.NDArray[np.uint8]
    momentum: float
    toward_own: float
    toward_swarm: float
    imitation: float


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


@njit(nogil=True, cache=True)
def fly(arena, members, weights, shares, room, sums, particle, pull, gain, seed):  # type: ignore[no-untyped-def]
    """Move a particle by one round.

    Args:
        arena: the game.
        members: its communities' members.
        weights: what `neighbours` returns.
        shares: float64 (communities,), each community's part of the capacity; they sum to the capacity.
        room: bits between the smallest and the largest profile, the unit of congestion.
        sums: float64 (communities, rank), of the particle's choices; kept up.
        particle: a `Particle`, changed.
        pull: a `Pull`.
        gain: by how much the logarithm of a price rises if the excess is all the room there is.
        seed: of the round.
    """
    _align(weights, particle, pull, seed)
    taken = np.empty(len(shares))
    for c in range(len(shares)):
        taken[c] = _respond(arena, members, c, sums, particle, pull, seed) - shares[c]
    _congest(weights, taken, room, particle, gain)


@njit(nogil=True, cache=True)
def _align(weights, particle, pull, seed):  # type: ignore[no-untyped-def]
    """Alignment: prices follow their velocity and those of the neighbours."""
    count = len(weights)
    moved = np.empty(count)
    for c in range(count):
        one, two = chance(seed, -1 - 2 * c), chance(seed, -2 - 2 * c)
        particle.velocity[c] = (
            pull.momentum * particle.velocity[c]
            + pull.toward_own * one * (pull.own[c] - particle.prices[c])
            + pull.toward_swarm * two * (pull.swarm[c] - particle.prices[c])
        )
        moved[c] = particle.prices[c] + particle.velocity[c]
    for c in range(count):
        total = 0.0
        for other in range(count):
            total += weights[c, other] * moved[other]
        particle.prices[c] = total


@njit(nogil=True, cache=True)
def _respond(arena, members, c, sums, particle, pull, seed):  # type: ignore[no-untyped-def]
    """Cohesion: the community's agents respond to its price in the field of its neighbours; returns the bits taken."""
    damage, memory, vectors, _, graph = arena
    field, rest = np.zeros(sums.shape[1]), np.empty(sums.shape[1])
    for other in range(len(graph)):
        for k in range(len(field)):
            field[k] += graph[c, other] * sums[other, k]
    price = np.exp(particle.prices[c])
    taken = 0.0
    for at in range(members.starts[c], members.starts[c + 1]):
        i = members.agents[at]
        now = particle.choices[i]
        if chance(seed, i) < pull.imitation:
            best = pull.leader[i]
        else:
            best, _, _ = best_response(damage, memory, vectors, i, now, field, rest, graph[c, c], price)
        for k in range(len(field)):
            change = np.float64(vectors[i, best, k]) - np.float64(vectors[i, now, k])
            sums[c, k] += change
            field[k] += graph[c, c] * change
        particle.choices[i] = best
        taken += memory[i if memory.shape[0] > 1 else 0, best]
    return taken


@njit(nogil=True, cache=True)
def _congest(weights, taken, room, particle, gain):  # type: ignore[no-untyped-def]
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
        push = gain * heard[c] * count / room
        particle.prices[c] += min(max(push, -_FASTEST), _FASTEST)
