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
from nash_swarm.game.coupling.vectors import Coupling
from nash_swarm.game.demand import Point, totals
from nash_swarm.game.profiles import Choices
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
    def of(cls, tables: Tables, coupling: Coupling) -> Arena:
        """The arena of a game's tables and its coupling."""
        return cls(*tables, readonly(coupling.vectors), readonly(coupling.community), readonly(coupling.graph))

    @property
    def agents(self) -> int:
        """Number of agents."""
        return len(self.damage)

    @property
    def tables(self) -> Tables:
        """The agents' own damage and memory."""
        return Tables(self.damage, self.memory)

    def take(self, agents: npt.NDArray[np.int64], choices: Choices) -> Arena:
        """The game of some agents, as copies, while the others play what they do in `choices`.

        What the others do to them is part of their own damage.
        """
        some = Arena(
            *self.tables.take(agents), readonly(self.vectors[agents]), readonly(self.community[agents]), self.graph
        )
        others = self.fields(choices) - some.fields(choices[agents])
        return some._replace(damage=some._table(others, np.zeros(0, np.uint8), 0.0).damage)

    def sums(self, choices: Choices) -> Sums:
        """Each community's sum of the vectors its agents play, float64 (communities, rank)."""
        shape = (len(self.graph), self.vectors.shape[2])

        def part(start: int, stop: int) -> Sums:
            out = np.zeros(shape)
            _sums(self.vectors, self.community, choices, start, stop, out)
            return out

        return np.sum(over_spans(part, self.agents), axis=0)

    def fields(self, choices: Choices) -> Sums:
        """The fields under a profile, float64 (communities, rank)."""
        return self.graph @ self.sums(choices)

    def marginal(self, choices: Choices) -> Tables:
        """Tables in which damage is e_i(s), float64: what each agent's strategies cost while the others stay."""
        if not self.vectors.shape[2]:
            return self.tables
        return self._table(self.fields(choices), choices, 0.0)

    def gradient(self, fields: Sums) -> Tables:
        """Tables in which damage is c_i(s) - 1/2 graph[C_i, C_i] |d_i(s)|^2 + <d_i(s), F_C>, float64.

        This is the gradient of the total cost as a quadratic form of one-hot choices: the agents' interaction with
        themselves is part of the form, and so taken out of their own damage.
        """
        return self._table(fields, np.zeros(0, np.uint8), 0.5)

    def _table(self, fields: Sums, choices: Choices, own: float) -> Tables:
        out = np.empty(self.damage.shape)
        over_spans(
            lambda start, stop: _table(
                self.damage, self.vectors, self.community, self.graph, fields, choices, own, start, stop, out
            ),
            self.agents,
        )
        return Tables(readonly(out), self.memory)

    def own(self, choices: Choices) -> float:
        """Sum of graph[C_i, C_i] |d_i(s_i)|^2: the agents' interaction with themselves."""
        parts = over_spans(
            lambda start, stop: _own(self.vectors, self.community, self.graph, choices, start, stop), self.agents
        )
        return math.fsum(parts)

    def total(self, choices: Choices, price: float = 0.0) -> Point:
        """Memory and damage of a profile, what the pairs add included."""
        point = totals(self.tables, choices, price)
        if not self.vectors.shape[2]:
            return point
        sums = self.sums(choices)
        pairs = 0.5 * (float(np.sum(sums * (self.graph @ sums))) - self.own(choices))
        return point._replace(damage=point.damage + pairs)


NOISE = 2.0**-40
"""A gain below this share of the terms it is the difference of is rounding: fields are sums of many terms."""

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
