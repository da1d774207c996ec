"""What agents do to one another, as solvers and certificates see it: marginal costs, and changes that are made.

Every algorithm works on the table of what each strategy of each agent costs while the others stay. Where agents are not
coupled that is the damage table itself, whatever they play. Where they are, it changes with every move: changes are
proposed by the table, a round at a time, and each is made only if it is still worth it after those before it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from nash_swarm.compiling import njit
from nash_swarm.game.bitgame import BitGame
from nash_swarm.game.demand import Point, totals
from nash_swarm.game.exchange import Exchange, best_exchange
from nash_swarm.game.market import clear
from nash_swarm.game.profiles import Choices
from nash_swarm.game.tables import Tables

Prices = npt.NDArray[np.float64]
"""Damage per bit: (1,), the same for all agents, or (agents,)."""


class Bound(NamedTuple):
    """A lower bound on the total cost of every profile that fits, and the price (damage per bit) it belongs to."""

    bound: float
    price: float


class Changes(NamedTuple):
    """Changes of different agents, in the order in which they are to be made.

    Attributes:
        agent: int64.
        target: uint8, the new strategy.
        worth: float64, fall of the total cost per bit as the marginal costs promise it; infinite without bits.
        bits: int64, bits taken.
    """

    agent: npt.NDArray[np.int64]
    target: npt.NDArray[np.uint8]
    worth: npt.NDArray[np.float64]
    bits: npt.NDArray[np.int64]

    @classmethod
    def empty(cls, size: int) -> Changes:
        """Room for `size` changes."""
        return cls(np.empty(size, np.int64), np.empty(size, np.uint8), np.empty(size), np.empty(size, np.int64))

    @classmethod
    def joined(cls, parts: Sequence[Changes]) -> Changes:
        """The changes of several spans of agents."""
        agent, target, worth, bits = zip(*parts, strict=True)
        return cls(np.concatenate(agent), np.concatenate(target), np.concatenate(worth), np.concatenate(bits))

    def take(self, index: npt.NDArray[np.int64] | slice) -> Changes:
        """Some of the changes."""
        return Changes(self.agent[index], self.target[index], self.worth[index], self.bits[index])


class Made(NamedTuple):
    """Changes that were made, and the bits that are left."""

    changes: int
    slack: int


class Interaction(ABC):
    """A game whose agents are coupled in one way, or not at all.

    Attributes:
        additive: several changes at once cost the sum of what each costs alone. Then an agent's choice depends on the
            price alone, and an equilibrium at a price is the best profile at it.
        pool: agents that a round of trades is looked for among.
        tables: the agents' own damage and memory.
    """

    additive: ClassVar[bool]
    pool: ClassVar[int]

    tables: Tables

    @property
    def agents(self) -> int:
        """Number of agents."""
        return self.tables.agents

    @property
    def strategies(self) -> int:
        """Number of strategies."""
        return self.tables.damage.shape[1]

    @abstractmethod
    def marginal(self, choices: Choices) -> Tables:
        """What each strategy of each agent costs, up to a number for each agent, while the others stay."""

    @abstractmethod
    def total(self, choices: Choices, price: float = 0.0) -> Point:
        """Memory and damage of a profile, what pairs of agents add included."""

    @abstractmethod
    def single(self, strategy: int) -> Point:
        """Memory and damage if every agent plays `strategy`."""

    @abstractmethod
    def make(self, changes: Changes, choices: Choices, slack: int, *, strict: bool = False) -> Made:
        """Make changes that lower the total cost and fit, one after the other.

        Args:
            changes: proposed by the marginal costs of `choices`.
            choices: changed in place.
            slack: bits that `choices` leaves.
            strict: stop at the first change that does not fit.
        """

    @abstractmethod
    def follow(self, seen: Tables, choices: Choices, wanted: Choices, prices: Prices) -> int:
        """Let agents move from `choices`, changed in place, to `wanted`, those with the largest gain first.

        A move is made if it still gains at the agent's price after those before it. Returns the number of moves.

        Args:
            seen: the marginal costs of `choices`.
            choices: what agents play.
            wanted: what each would rather play while the others stay.
            prices: damage per bit.
        """

    @abstractmethod
    def among(self, agents: npt.NDArray[np.int64], choices: Choices) -> Self:
        """The game of some agents while the others play what they do in `choices`."""

    @abstractmethod
    def exchange(self, choices: Choices, slack: int, price: float, most: int | None = None) -> Exchange:
        """The best change of one agent, or of a giver and a taker of bits, that takes at most `slack` bits.

        Args:
            choices: the profile to improve on.
            slack: bits that it leaves.
            price: damage per bit near which the market clears; what is exact does not depend on it.
            most: changes on each side that are paired where not all pairs are looked at.
        """

    @abstractmethod
    def bound(self, capacity: int) -> Bound:
        """A lower bound for profiles within `capacity` bits."""


@dataclass(frozen=True, eq=False)
class Separate(Interaction):
    """Agents that are not coupled: marginal costs are the damage table."""

    additive: ClassVar[bool] = True
    pool: ClassVar[int] = 1 << 14

    tables: Tables

    @classmethod
    def of(cls, game: BitGame) -> Separate:
        """The agents of `game`, taken as not coupled."""
        return cls(Tables.of(game))

    def marginal(self, choices: Choices) -> Tables:
        """See `Interaction.marginal`."""
        return self.tables

    def total(self, choices: Choices, price: float = 0.0) -> Point:
        """See `Interaction.total`."""
        return totals(self.tables, choices, price)

    def single(self, strategy: int) -> Point:
        """See `Interaction.single`."""
        bits = int(self.tables.memory[:, strategy].sum()) * (self.agents // len(self.tables.memory))
        return Point(0.0, bits, float(self.tables.damage[:, strategy].sum(dtype=np.float64)))

    def make(self, changes: Changes, choices: Choices, slack: int, *, strict: bool = False) -> Made:
        """See `Interaction.make`; every change is worth what it promises."""
        return Made(*_make(changes, choices, slack, strict))

    def follow(self, seen: Tables, choices: Choices, wanted: Choices, prices: Prices) -> int:
        """See `Interaction.follow`; every move gains what it promises."""
        moves = int(np.count_nonzero(wanted != choices))
        np.copyto(choices, wanted)
        return moves

    def among(self, agents: npt.NDArray[np.int64], choices: Choices) -> Separate:
        """See `Interaction.among`."""
        return Separate(self.tables.take(agents))

    def exchange(self, choices: Choices, slack: int, price: float, most: int | None = None) -> Exchange:
        """See `Interaction.exchange`; of all pairs."""
        return best_exchange(self.tables, choices, slack)

    def bound(self, capacity: int) -> Bound:
        """See `Interaction.bound`: the dual at the clearing price."""
        clearing = clear(self.tables, capacity)
        return Bound(clearing.bound, clearing.price)


@njit(nogil=True, cache=True)
def _make(changes, choices, slack, strict):  # type: ignore[no-untyped-def]
    agents, targets, worth, bits = changes
    made = 0
    for k in range(len(agents)):
        if worth[k] > 0:
            if bits[k] <= slack:
                choices[agents[k]] = targets[k]
                slack -= bits[k]
                made += 1
            elif strict:
                break
    return made, slack
