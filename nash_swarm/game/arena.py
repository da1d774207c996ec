"""A game with its coupling in the form that the kernels read, and what its agents see of one another.

The sums D_C of the vectors that a community's agents play, and the fields F_C = sum_C' graph[C, C'] D_C' that they
make, are all an agent needs to know of the others: given them, playing s costs it

    e_i(s) = c_i(s) + <d_i(s), F_C(i) - graph[C_i, C_i] d_i(s_i)>

in O(rank). A change from a to b alone changes the total cost by e_i(b) - e_i(a).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nash_swarm.compiling import njit
from nash_swarm.errors import UsageError
from nash_swarm.game.bitgame import BitGame
from nash_swarm.game.coupling import Coupling
from nash_swarm.game.demand import Point, totals
from nash_swarm.game.tables import Tables, readonly
from nash_swarm.sharing import over_spans

Sums = npt.NDArray[np.float64]
"""One vector of the coupling's rank for each community."""


class Arena(NamedTuple):
    """Read-only, C-contiguous arrays.

    Attributes:
        damage, memory: as in `Tables`.
        vectors, community, graph: as in `Coupling`; of rank 0 without one.
    """

    damage: npt.NDArray[np.floating[Any]]
    memory: npt.NDArray[np.int64]
    vectors: npt.NDArray[np.float32]
    community: npt.NDArray[np.int32]
    graph: npt.NDArray[np.float64]

    @classmethod
    def of(cls, game: BitGame) -> Arena:
        """The arena of `game`; without a coupling all agents are one community.

        Raises:
            UsageError: the agents are coupled in another way.
        """
        coupling = game.coupling
        if coupling is None:
            vectors = np.zeros((game.agents, len(game.strategies), 0), np.float32)
            coupling = Coupling(vectors, np.zeros(game.agents, np.int32), np.zeros((1, 1)))
        if not isinstance(coupling, Coupling):
            raise UsageError(f"agents coupled by a {coupling.kind} are in no communities")
        parts = readonly(coupling.vectors), readonly(coupling.community), readonly(coupling.graph)
        return cls(*Tables.of(game), *parts)

    @property
    def agents(self) -> int:
        """Number of agents."""
        return len(self.damage)

    @property
    def tables(self) -> Tables:
        """The agents' own damage and memory."""
        return Tables(self.damage, self.memory)

    def take(self, agents: npt.NDArray[np.int64]) -> Arena:
        """Some agents only, as copies, in the same graph."""
        return Arena(
            *self.tables.take(agents), readonly(self.vectors[agents]), readonly(self.community[agents]), self.graph
        )

    def sums(self, choices: npt.NDArray[np.uint8]) -> Sums:
        """Each community's sum of the vectors its agents play, float64 (communities, rank)."""
        shape = (len(self.graph), self.vectors.shape[2])

        def part(start: int, stop: int) -> Sums:
            out = np.zeros(shape)
            _sums(self.vectors, self.community, choices, start, stop, out)
            return out

        return np.sum(over_spans(part, self.agents), axis=0)

    def fields(self, choices: npt.NDArray[np.uint8]) -> Sums:
        """The fields under a profile, float64 (communities, rank)."""
        return self.graph @ self.sums(choices)

    def effective(self, choices: npt.NDArray[np.uint8], fields: Sums | None = None) -> Tables:
        """Tables in which damage is e_i(s), float64: what each agent's strategies cost if the others stay.

        Args:
            choices: uint8 (agents,), what the agents play.
            fields: the fields under the profile of the whole game, if these are only some of its agents.
        """
        if not self.vectors.shape[2]:
            return self.tables
        return self._table(self.fields(choices) if fields is None else fields, choices, 0.0)

    def gradient(self, fields: Sums) -> Tables:
        """Tables in which damage is c_i(s) - 1/2 graph[C_i, C_i] |d_i(s)|^2 + <d_i(s), F_C>, float64.

        This is the gradient of the total cost as a quadratic form of one-hot choices: the agents' interaction with
        themselves is part of the form, and so taken out of their own damage.
        """
        return self._table(fields, np.zeros(0, np.uint8), 0.5)

    def _table(self, fields: Sums, choices: npt.NDArray[np.uint8], own: float) -> Tables:
        out = np.empty(self.damage.shape)
        over_spans(
            lambda start, stop: _table(
                self.damage, self.vectors, self.community, self.graph, fields, choices, own, start, stop, out
            ),
            self.agents,
        )
        return Tables(readonly(out), self.memory)

    def own(self, choices: npt.NDArray[np.uint8]) -> float:
        """Sum of graph[C_i, C_i] |d_i(s_i)|^2: the agents' interaction with themselves."""
        parts = over_spans(
            lambda start, stop: _own(self.vectors, self.community, self.graph, choices, start, stop), self.agents
        )
        return math.fsum(parts)

    def total(self, choices: npt.NDArray[np.uint8], price: float = 0.0) -> Point:
        """Memory and damage of a profile, what the pairs add included."""
        point = totals(self.tables, choices, price)
        if not self.vectors.shape[2]:
            return point
        sums = self.sums(choices)
        pairs = 0.5 * (float(np.sum(sums * (self.graph @ sums))) - self.own(choices))
        return point._replace(damage=point.damage + pairs)


class Members(NamedTuple):
    """Who belongs to each community: agents[starts[c] : starts[c + 1]]."""

    agents: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, arena: Arena) -> Members:
        """The members of `arena`'s communities, in agent order."""
        counts = np.bincount(arena.community, minlength=len(arena.graph))
        return cls(np.argsort(arena.community, kind="stable"), np.append(0, np.cumsum(counts)))


FASTMATH = {"reassoc", "contract"}
"""Lets the compiler add up an inner product in several lanes."""


@njit(nogil=True, cache=True, fastmath=FASTMATH)
def dot(one, other):  # type: ignore[no-untyped-def]
    """The inner product of two vectors, in float64."""
    total = 0.0
    for k in range(len(one)):
        total += np.float64(one[k]) * np.float64(other[k])
    return total


@njit(nogil=True, cache=True)
def _sums(vectors, community, choices, start, stop, out):  # type: ignore[no-untyped-def]
    for i in range(start, stop):
        played = vectors[i, choices[i]]
        row = out[community[i]]
        for k in range(len(row)):
            row[k] += played[k]


@njit(nogil=True, cache=True)
def _own(vectors, community, graph, choices, start, stop):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(start, stop):
        played = vectors[i, choices[i]]
        total += graph[community[i], community[i]] * dot(played, played)
    return total


@njit(nogil=True, cache=True)
def _table(damage, vectors, community, graph, fields, choices, own, start, stop, out):  # type: ignore[no-untyped-def]
    """Damage in the fields less the interaction with what the agent plays itself, or `own` times that with itself."""
    rest = np.empty(fields.shape[1])
    for i in range(start, stop):
        weight = graph[community[i], community[i]]
        rest[:] = fields[community[i]]
        if len(choices) > 0:
            for k in range(len(rest)):
                rest[k] -= weight * vectors[i, choices[i], k]
        for s in range(damage.shape[1]):
            value = np.float64(damage[i, s]) + dot(vectors[i, s], rest)
            if own != 0.0:
                value -= own * weight * dot(vectors[i, s], vectors[i, s])
            out[i, s] = value
