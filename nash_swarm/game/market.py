"""The price at which the agents' demand meets the budget, exactly.

The dual of the multiple-choice knapsack, g(price) = sum_i min_s [c_i(s) + price * m_i(s)] - price * capacity, is
concave and piecewise linear, and every profile of choices is one of its lines. Two profiles, one that takes too much
and one that fits, bracket its maximum; the next price to ask is where their lines cross (H. Everett, "Generalized
Lagrange multiplier method", Operations Research 11, 1963; Kelley's cutting plane in one dimension), every second time
the middle of the bracket, so that it halves whatever the shape of the dual.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

import numpy as np
import numpy.typing as npt

from nash_swarm.game.demand import Point, demand, totals
from nash_swarm.game.profiles import Choices
from nash_swarm.game.tables import Tables

FREE = 1e-300
"""A price so low that agents choose by damage alone, and by memory only between equal damages."""
PROHIBITIVE = 1e300
"""A price so high that agents choose by memory alone, and by damage only between equal memories."""

_MARGIN = 32 * sys.float_info.epsilon
"""Bounds the rounding of a dual value, relative to the (never negative) terms it is the sum and difference of."""


class Bracket:
    """Two prices around the clearing price, and the next one to ask.

    Attributes:
        low: what the agents want at the dearest price known at which it is too much.
        high: what they want at the cheapest price known at which it fits.
        capacity: bits they may share.
        settled: no price in between can tell more.
    """

    def __init__(self, low: Point, high: Point, capacity: int) -> None:
        self.low, self.high, self.capacity, self.settled = low, high, capacity, False
        self._halve = False

    def crossing(self) -> float:
        """The price at which the lines of both ends have one value, within the bracket."""
        price = (self.high.damage - self.low.damage) / (self.low.memory - self.high.memory)
        return min(max(price, self.low.price), self.high.price)

    def propose(self) -> float:
        """The next price to ask; settles the bracket if there is none."""
        low, high = self.low.price, self.high.price
        price = self.crossing()
        if self._halve or not low < price < high:
            price = math.sqrt(low) * math.sqrt(high)
        self._halve = not self._halve
        self.settled |= not low < price < high
        return price

    def update(self, point: Point) -> None:
        """Take in what the agents want at a proposed price."""
        # a profile on the line of one end, found where the lines cross, proves that nothing lies above the crossing
        same = point.memory in (self.low.memory, self.high.memory)
        self.settled |= same and point.price == self.crossing()
        if point.memory > self.capacity:
            self.low = point
        else:
            self.high = point
        self.settled |= self.high.price - self.low.price <= 4 * sys.float_info.epsilon * self.high.price

    def restrict(self, low: Point, high: Point) -> None:
        """Go on with some of the agents: `low` and `high` without those that choose the same at both ends."""
        self.capacity -= self.high.memory - high.memory
        self.low, self.high = low, high


@dataclass(frozen=True, eq=False)
class Clearing:
    """Where demand meets the capacity.

    Attributes:
        price: damage per bit at which the dual is largest; 0 if everything wanted fits.
        narrow: uint8 (agents,), the agents' choices just above the price: they fit.
        wide: uint8 (agents,), their choices just below it: they do not, unless the price is 0. Agents that differ from
            `narrow` are indifferent at the price, up to rounding.
        bound: no profile that fits has less damage in total (the dual value less its possible rounding error).
    """

    price: float
    narrow: Choices
    wide: Choices
    bound: float


class Undecided:
    """The agents that choose differently at the two ends of a bracket, as copies once they are few.

    An agent that chooses the same at both ends chooses the same at every price between them, so only the others need be
    asked again: all steps of a search together cost a few passes over the tables.

    Attributes:
        bracket: around the clearing price of these agents alone.
        tables: of these agents.
        wide: uint8 (agents,), what they play at the low end.
        narrow: uint8 (agents,), what they play at the high end.
        additive: whether their choices depend on the price alone; if not, all agents are asked at every price.
    """

    def __init__(
        self,
        tables: Tables,
        bracket: Bracket,
        wide: Choices,
        narrow: Choices,
        *,
        additive: bool = True,
    ) -> None:
        self.bracket, self.tables, self.wide, self.narrow = bracket, tables, wide, narrow
        self.additive = additive
        self._capacity, self._damage = bracket.capacity, 0.0
        self._all = wide, narrow
        self._agents: npt.NDArray[np.int64] | None = None

    def whole(self, point: Point) -> Point:
        """`point` of these agents with the memory and damage of all others."""
        return Point(point.price, point.memory + self._capacity - self.bracket.capacity, point.damage + self._damage)

    def update(self, point: Point, choices: Choices) -> None:
        """Take in what these agents chose at a price of the bracket; goes on with fewer where most are decided."""
        self.bracket.update(point)
        np.copyto(self.wide if self.bracket.low is point else self.narrow, choices)
        differ = self.wide != self.narrow
        if not self.additive or 4 * np.count_nonzero(differ) >= len(differ):
            return
        keep = np.flatnonzero(differ)
        self.store()
        self._agents = keep if self._agents is None else self._agents[keep]
        self.tables = self.tables.take(keep)
        self.wide, self.narrow = self.wide[keep], self.narrow[keep]
        self._damage += self.bracket.high.damage
        self.bracket.restrict(
            totals(self.tables, self.wide, self.bracket.low.price),
            totals(self.tables, self.narrow, self.bracket.high.price),
        )
        self._damage -= self.bracket.high.damage

    def store(self) -> None:
        """Write these agents' choices at both ends into the arrays of all agents that the search began with."""
        if self._agents is not None:
            for every, some in zip(self._all, (self.wide, self.narrow), strict=True):
                every[self._agents] = some


def search(undecided: Undecided, ask: Callable[[float, Choices], Point], most: int | None = None) -> float:
    """Ask agents at the prices of a bracket until it is settled; returns the price at which its ends have one value.

    Args:
        undecided: the agents and the bracket; what they choose at its ends is kept up.
        ask: called with a price and choices of `undecided.tables`, those at the price before; changes the choices to
            what the agents want at the price and returns what they take.
        most: prices after which to stop.
    """
    bracket, work = undecided.bracket, undecided.narrow.copy()
    for _ in count() if most is None else range(most):
        price = bracket.propose()
        if bracket.settled:
            break
        asked = undecided.tables
        choices = work[: asked.agents]
        undecided.update(ask(price, choices), choices)
        if undecided.tables is not asked:
            work = undecided.narrow.copy()
    undecided.store()
    return bracket.crossing()


def clear(tables: Tables, capacity: int, callback: Callable[[Point], None] | None = None) -> Clearing:
    """Find the clearing price.

    Args:
        tables: the game.
        capacity: bits the agents may share, at least the sum of their cheapest strategies.
        callback: called with the market's state at every price asked.
    """
    tell = callback or (lambda point: None)
    wide, narrow = (np.empty(tables.agents, np.uint8) for _ in range(2))
    high = demand(tables, PROHIBITIVE, narrow)
    low = demand(tables, FREE, wide)
    if low.memory <= capacity:
        tell(low._replace(price=0.0))
        return Clearing(0.0, wide, wide, dual_bound(low, 0.0, capacity, high.memory))
    undecided = Undecided(tables, Bracket(low, high, capacity), wide, narrow)

    def ask(price: float, choices: Choices) -> Point:
        point = demand(undecided.tables, price, choices)
        tell(undecided.whole(point))
        return point

    price = search(undecided, ask)
    bound = dual_bound(demand(tables, price, np.empty(tables.agents, np.uint8)), price, capacity, high.memory)
    return Clearing(price, narrow, wide, bound)


def dual_bound(point: Point, price: float, capacity: int, smallest: int) -> float:
    """The value of the dual at `price`, less its possible rounding error; no profile that fits has less damage.

    Args:
        point: what the agents want at `price`.
        price: damage per bit.
        capacity: bits they may share.
        smallest: bits they take with their cheapest strategies.
    """
    size = point.damage + price * (point.memory - smallest) + price * (capacity - smallest)
    return max(0.0, point.value(price, capacity) - _MARGIN * size)
