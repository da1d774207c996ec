"""What the agents want at a price, and what a profile of choices costs: one pass over the tables each."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nash_swarm.compiling import njit
from nash_swarm.game.tables import Tables
from nash_swarm.sharing import over_spans

_ROUNDING = 2.0**-50
"""A gain below this share of the few terms it is the difference of is rounding, not a reason to deviate."""


class Point(NamedTuple):
    """A profile of choices seen from the market.

    Attributes:
        price: damage per bit at which the agents were asked.
        memory: bits they take together.
        damage: their total damage, in nats per token.
    """

    price: float
    memory: int
    damage: float

    def value(self, price: float, capacity: int) -> float:
        """The profile's Lagrangian at `price`: damage + price * (memory - capacity)."""
        return self.damage + price * (self.memory - capacity)


def demand(tables: Tables, price: float, choices: npt.NDArray[np.uint8]) -> Point:
    """Let every agent choose what is best for it at `price`; indifferent agents take the cheaper strategy.

    Args:
        tables: the game.
        price: damage per bit.
        choices: uint8 (agents,), overwritten with the strategy indices chosen.
    """
    parts = over_spans(lambda start, stop: _demand(*tables, start, stop, price, choices), tables.agents)
    return Point(price, sum(memory for memory, _ in parts), math.fsum(damage for _, damage in parts))


def totals(tables: Tables, choices: npt.NDArray[np.uint8], price: float = 0.0) -> Point:
    """Memory and damage of a profile; the damage is exact to the last bits whatever the number of agents."""
    parts = over_spans(lambda start, stop: _totals(*tables, start, stop, choices), tables.agents)
    return Point(price, sum(memory for memory, _ in parts), math.fsum(damage for _, damage in parts))


def regret(tables: Tables, choices: npt.NDArray[np.uint8], price: float) -> float:
    """The most any single agent would gain at `price` by changing alone, in nats per token; 0 if none would.

    Gains within the rounding error of their own computation count as none.
    """
    return max(over_spans(lambda start, stop: _regret(*tables, start, stop, choices, price), tables.agents))


# The kernels read row `i * step` of memory: step is 0 where one row serves all agents.


@njit(nogil=True, cache=True)
def _demand(damage, memory, start, stop, price, choices):  # type: ignore[no-untyped-def]
    step = 0 if memory.shape[0] == 1 else 1
    taken = 0
    total = 0.0
    carry = 0.0
    for i in range(start, stop):
        row = i * step
        cheapest = memory[row, 0]
        best = 0
        best_cost = np.float64(damage[i, 0])
        for s in range(1, damage.shape[1]):
            # relative to the cheapest strategy, or a large memory would swallow a small damage
            cost = np.float64(damage[i, s]) + price * (memory[row, s] - cheapest)
            if cost < best_cost:
                best = s
                best_cost = cost
        choices[i] = best
        taken += memory[row, best]
        term = np.float64(damage[i, best])
        new = total + term  # Neumaier's sum; no term is negative
        carry += (total - new) + term if total >= term else (term - new) + total
        total = new
    return taken, total + carry


@njit(nogil=True, cache=True)
def _totals(damage, memory, start, stop, choices):  # type: ignore[no-untyped-def]
    step = 0 if memory.shape[0] == 1 else 1
    taken = 0
    total = 0.0
    carry = 0.0
    for i in range(start, stop):
        s = choices[i]
        taken += memory[i * step, s]
        term = np.float64(damage[i, s])
        new = total + term
        carry += (total - new) + term if total >= term else (term - new) + total
        total = new
    return taken, total + carry


@njit(nogil=True, cache=True)
def _regret(damage, memory, start, stop, choices, price):  # type: ignore[no-untyped-def]
    step = 0 if memory.shape[0] == 1 else 1
    worst = 0.0
    for i in range(start, stop):
        row = i * step
        now = choices[i]
        cost = np.float64(damage[i, now])
        for s in range(damage.shape[1]):
            saved = cost - np.float64(damage[i, s])
            paid = price * (memory[row, s] - memory[row, now])
            gain = saved - paid
            if gain > worst and gain > _ROUNDING * (abs(cost) + abs(np.float64(damage[i, s])) + abs(paid)):
                worst = gain
    return worst
