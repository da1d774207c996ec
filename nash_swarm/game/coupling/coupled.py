"""A game whose agents are coupled by vectors, as solvers and certificates see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from nash_swarm.compiling import njit
from nash_swarm.game.coupling.arena import NOISE, Arena
from nash_swarm.game.coupling.exchange import MOST, best_coupled_exchange
from nash_swarm.game.coupling.relaxation import relax
from nash_swarm.game.coupling.vectors import Coupling
from nash_swarm.game.demand import Point
from nash_swarm.game.exchange import Exchange
from nash_swarm.game.interaction import Bound, Changes, Interaction, Made, Prices
from nash_swarm.game.profiles import Choices, pick
from nash_swarm.game.tables import Tables

_STALE = 0.5
"""A change that turns out to gain less than this share of what it promised waits for the next round."""


@dataclass(frozen=True, eq=False)
class Coupled(Interaction):
    """Agents coupled by vectors: marginal costs change with every move."""

    additive: ClassVar[bool] = False
    pool: ClassVar[int] = 1 << 11  # every trade makes their marginal costs anew

    tables: Tables
    arena: Arena

    @classmethod
    def of(cls, tables: Tables, coupling: Coupling) -> Coupled:
        """The game with these tables and this coupling."""
        return cls(tables, Arena.of(tables, coupling))

    def marginal(self, choices: Choices) -> Tables:
        """See `Interaction.marginal`."""
        return self.arena.marginal(choices)

    def total(self, choices: Choices, price: float = 0.0) -> Point:
        """See `Interaction.total`."""
        return self.arena.total(choices, price)

    def single(self, strategy: int) -> Point:
        """See `Interaction.single`."""
        return self.arena.total(np.full(self.agents, strategy, np.uint8))

    def make(self, changes: Changes, choices: Choices, slack: int, *, strict: bool = False) -> Made:
        """See `Interaction.make`; the first change excepted, one waits that gains far less than it promised."""
        free = np.zeros(1)
        return Made(*_make(self.arena, self.arena.fields(choices), *changes, free, _STALE, choices, slack, strict))

    def follow(self, seen: Tables, choices: Choices, wanted: Choices, prices: Prices) -> int:
        """See `Interaction.follow`."""
        agents = np.flatnonzero(wanted != choices)
        damage, memory = seen.damage[agents], np.broadcast_to(seen.memory, seen.damage.shape)[agents]
        now, then = choices[agents], wanted[agents]
        bits = pick(memory, then) - pick(memory, now)
        paid = np.broadcast_to(prices, self.agents)[agents]
        gain = pick(damage, now) - pick(damage, then) - paid * bits
        order = np.argsort(-gain, kind="stable")
        promised = np.zeros(len(agents))
        room = int(np.abs(bits).sum())
        made, _ = _make(
            self.arena, self.arena.fields(choices), agents[order], then[order], promised, bits[order], prices, 0.0,
            choices, room, False,
        )  # fmt: skip
        return int(made)

    def among(self, agents: npt.NDArray[np.int64], choices: Choices) -> Coupled:
        """See `Interaction.among`."""
        arena = self.arena.take(agents, choices)
        return Coupled(arena.tables, arena)

    def exchange(self, choices: Choices, slack: int, price: float, most: int | None = None) -> Exchange:
        """See `Interaction.exchange`; of all pairs unless many are hopeful."""
        return best_coupled_exchange(self.arena, choices, slack, price, most or MOST)

    def bound(self, capacity: int) -> Bound:
        """See `Interaction.bound`: that of the relaxed problem."""
        found = relax(self.arena, capacity)
        return Bound(found.bound, found.price)


@njit(nogil=True, cache=True)
def _make(arena, fields, agents, targets, worth, bits, prices, stale, choices, slack, strict):  # type: ignore[no-untyped-def]
    """Make changes that fit and gain at the agents' prices in the fields as they then are; `fields` are kept up."""
    damage, _, vectors, community, graph = arena
    step = 0 if len(prices) == 1 else 1
    change = np.empty(vectors.shape[2])
    made = 0
    for m in range(len(agents)):
        if bits[m] > slack:
            if strict:
                break
            continue
        i = agents[m]
        now = choices[i]
        c = community[i]
        gain = np.float64(damage[i, now]) - np.float64(damage[i, targets[m]])
        size = abs(np.float64(damage[i, now])) + abs(np.float64(damage[i, targets[m]]))
        for k in range(len(change)):
            own = np.float64(vectors[i, now, k])
            change[k] = np.float64(vectors[i, targets[m], k]) - own
            pairs = change[k] * (fields[c, k] - graph[c, c] * own)
            gain -= pairs
            size += abs(pairs)
        gain -= prices[i * step] * bits[m]
        if gain <= NOISE * size or (m > 0 and bits[m] > 0 and gain < stale * worth[m] * bits[m]):
            continue
        choices[i] = targets[m]
        slack -= bits[m]
        made += 1
        for other in range(len(graph)):
            for k in range(len(change)):
                fields[other, k] += graph[other, c] * change[k]
    return made, slack
