"""An agent's critical prices, and how much memory all agents demand at which of them.

An agent's best strategies at all prices are the lower convex hull of its points (memory, damage). Each edge of the hull
is a step to more memory that is worth its bits below one price, the edge's slope: the critical price. So the memory
demanded at a price is the sum over all steps with a larger critical price, and the clearing price is a weighted
quantile of critical prices. Positive floating-point numbers sort as their bit patterns do; a few rounds of counting the
steps by the leading bits of their prices therefore find it exactly (radix selection: C. A. R. Hoare, "Algorithm 65:
FIND", CACM 4, 1961, with digits for pivots), whatever the number of agents, in constant memory.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nash_swarm.compiling import njit
from nash_swarm.errors import DataError
from nash_swarm.game.tables import Tables

SHIFTS = (47, 31, 15, 0)
"""How many trailing bits of a price are not yet looked at after each round of counting."""
BINS = 1 << 16

Counts = npt.NDArray[np.int64]
"""Bits demanded and steps counted, int64 (BINS, 2)."""


class Cell(NamedTuple):
    """An interval of prices: the positive float64 whose bit pattern, shifted right by `shift`, is `prefix`."""

    prefix: int
    shift: int


EVERYTHING = Cell(0, 63)
"""All positive prices."""


class Steps(NamedTuple):
    """Steps of agents along their hulls, in agent order and by falling price within an agent.

    Attributes:
        agent: int64.
        before, after: uint8, strategies.
        price: float64, critical prices.
    """

    agent: npt.NDArray[np.int64]
    before: npt.NDArray[np.uint8]
    after: npt.NDArray[np.uint8]
    price: npt.NDArray[np.float64]

    @classmethod
    def empty(cls, size: int) -> Steps:
        """Room for `size` steps."""
        return cls(np.empty(size, np.int64), np.empty(size, np.uint8), np.empty(size, np.uint8), np.empty(size))

    def take(self, index: npt.NDArray[np.int64] | slice) -> Steps:
        """Some of the steps, as copies."""
        return Steps(
            self.agent[index].copy(), self.before[index].copy(), self.after[index].copy(), self.price[index].copy()
        )


def count_steps(tables: Tables, cell: Cell, shift: int, counts: Counts) -> None:
    """Add the steps whose price is in `cell` to `counts`, by the bits of their price down to `shift`.

    Args:
        tables: some agents.
        cell: the interval of prices looked at.
        shift: less than the cell's by at most 16.
        counts: int64 (BINS, 2), added to.

    Raises:
        DataError: damage is negative, infinite or NaN.
    """
    if not _count(*tables, *cell, shift, counts):
        raise DataError("the damage holds negative, NaN or infinite values")


def demand_above(tables: Tables, cell: Cell, choices: npt.NDArray[np.uint8]) -> None:
    """Let every agent take the steps whose price is above `cell`.

    Args:
        tables: some agents.
        cell: the interval of prices.
        choices: uint8 (agents,), overwritten.
    """
    _walk(*tables, *cell, choices, 0, Steps.empty(0))


def steps_within(tables: Tables, cell: Cell, choices: npt.NDArray[np.uint8], first: int) -> Steps:
    """As `demand_above`; returns the steps whose price is in `cell`, of agents numbered from `first` on."""
    steps = Steps.empty(tables.agents * (tables.damage.shape[1] - 1))
    return steps.take(slice(_walk(*tables, *cell, choices, first, steps)))


@njit(nogil=True, cache=True)
def take_steps(steps, memory, choices, slack):  # type: ignore[no-untyped-def]
    """Take steps in the given order, by falling price, while they fit.

    Args:
        steps: `Steps`.
        memory: int64 (1, strategies), bits, one row for all agents, or (all agents, strategies).
        choices: uint8 (all agents,), changed in place.
        slack: bits that may be taken.

    Returns:
        The price of the first step that did not fit (0 if all did), below which none is taken, and the bits left.
    """
    price = 0.0
    for k in range(len(steps.agent)):
        if steps.price[k] < price:
            break
        row = steps.agent[k] if len(memory) > 1 else 0
        bits = memory[row, steps.after[k]] - memory[row, steps.before[k]]
        if bits > slack:
            price = max(price, steps.price[k])
        elif choices[steps.agent[k]] == steps.before[k]:
            choices[steps.agent[k]] = steps.after[k]
            slack -= bits
    return price, slack


@njit(nogil=True, cache=True)
def _hull(damage, memory, i, row, vertices, prices):  # type: ignore[no-untyped-def]
    """The strategies on agent i's hull, by rising memory, and the price of the step to each; returns the last index.

    Prices fall strictly: of steps that rounding makes equally dear, one is made (A. M. Andrew's monotone chain).
    """
    top = 0
    vertices[0] = 0
    for s in range(1, damage.shape[1]):
        harm = np.float64(damage[i, s])
        if harm >= np.float64(damage[i, vertices[top]]):
            continue
        while True:
            bits = memory[row, s] - memory[row, vertices[top]]
            if bits == 0:
                if top == 0:
                    vertices[0] = s
                    break
                top -= 1
                continue
            price = (np.float64(damage[i, vertices[top]]) - harm) / bits
            if top > 0 and price >= prices[top]:
                top -= 1
                continue
            top += 1
            vertices[top] = s
            prices[top] = price
            break
    return top


@njit(nogil=True, cache=True)
def _count(damage, memory, prefix, shift, next_shift, counts):  # type: ignore[no-untyped-def]
    step = 0 if memory.shape[0] == 1 else 1
    strategies = damage.shape[1]
    vertices = np.empty(strategies, np.int64)
    prices = np.empty(strategies)
    keys = prices.view(np.int64)
    sound = True
    for i in range(len(damage)):
        for s in range(strategies):
            sound &= damage[i, s] >= 0 and damage[i, s] < np.inf
        top = _hull(damage, memory, i, i * step, vertices, prices)
        for k in range(1, top + 1):
            if keys[k] >> shift == prefix:
                digit = (keys[k] >> next_shift) & (BINS - 1)
                counts[digit, 0] += memory[i * step, vertices[k]] - memory[i * step, vertices[k - 1]]
                counts[digit, 1] += 1
    return sound


@njit(nogil=True, cache=True)
def _walk(damage, memory, prefix, shift, choices, first, steps):  # type: ignore[no-untyped-def]
    """Choices above the cell; the steps within it are written to `steps` if there is room for any."""
    step = 0 if memory.shape[0] == 1 else 1
    vertices = np.empty(damage.shape[1], np.int64)
    prices = np.empty(damage.shape[1])
    keys = prices.view(np.int64)
    found = 0
    for i in range(len(damage)):
        top = _hull(damage, memory, i, i * step, vertices, prices)
        choice = vertices[0]
        for k in range(1, top + 1):
            place = keys[k] >> shift
            if place > prefix:
                choice = vertices[k]
            elif place == prefix and len(steps.agent) > 0:
                steps.agent[found] = first + i
                steps.before[found] = vertices[k - 1]
                steps.after[found] = vertices[k]
                steps.price[found] = prices[k]
                found += 1
        choices[i] = choice
    return found
