"""Spending what is left of the budget on the upgrades that lower the damage most per bit."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt

from nash_swarm.compiling import njit
from nash_swarm.game.demand import Point, totals
from nash_swarm.game.tables import PRECISION, Tables
from nash_swarm.sharing import over_spans

_CRUMBS = 1e-3
"""Share of the capacity that may ever be left over."""


def immaterial(point: Point, price: float, capacity: int) -> bool:
    """Whether an equilibrium should stay one although it leaves bits.

    No agent gains by a change at the price, so what is left buys at most its price, whoever gets it and by whatever
    trades. Where that is less than the rounding of the damage itself, spending it improves nothing that is known, and
    would only make the profile an equilibrium no more: the agents that get the last bits pay more for them than they
    gain.

    Args:
        point: the equilibrium.
        price: damage per bit at which it is one.
        capacity: bits that may be taken.
    """
    slack = capacity - point.memory
    return price * slack <= PRECISION * point.damage and slack <= _CRUMBS * capacity


def spend(
    tables: Tables, choices: npt.NDArray[np.uint8], wide: npt.NDArray[np.uint8], price: float, capacity: int
) -> bool:
    """Spend what a cleared market leaves: first at the price, then, unless it is immaterial, on whatever helps.

    Args:
        tables: the game.
        choices: uint8 (agents,), the profile that fits; changed in place.
        wide: uint8 (agents,), the one that does not.
        price: damage per bit at which both are equilibria.
        capacity: bits the agents may share.

    Returns:
        Whether the rest was immaterial, and `choices` is an equilibrium at the price.
    """
    slack = capacity - totals(tables, choices).memory
    slack = close_bracket(tables, choices, wide, slack, at_price=True)
    if immaterial(totals(tables, choices), price, capacity):
        return True
    fill(tables, choices, close_bracket(tables, choices, wide, slack))
    return False


def close_bracket(
    tables: Tables,
    choices: npt.NDArray[np.uint8],
    wide: npt.NDArray[np.uint8],
    slack: int,
    *,
    at_price: bool = False,
) -> int:
    """Move agents from `choices` to `wide` while they fit, best damage per bit first.

    Args:
        tables: the game.
        choices: uint8 (agents,), the profile that fits; changed in place.
        wide: uint8 (agents,), the one that does not.
        slack: bits that `choices` leaves.
        at_price: stop at the first that does not fit: whoever moves after it is worth less per bit.

    Returns:
        Bits left now.
    """
    agents = np.flatnonzero(choices != wide)
    ratio, cost = np.empty(len(agents)), np.empty(len(agents), np.int64)
    _ratios(*tables, agents, choices, wide, ratio, cost)
    order = _order(ratio, cost)
    return _apply(choices, agents[order], wide[agents][order], ratio[order], cost[order], slack, at_price)


def fill(tables: Tables, choices: npt.NDArray[np.uint8], slack: int) -> int:
    """Upgrade agents, best damage per bit first, until no upgrade that lowers the damage fits any more.

    An upgrade goes to any strategy that lowers the agent's damage, the best one per bit of those that fit; one that
    takes no more memory comes first. The total damage never rises.

    Args:
        tables: the game.
        choices: uint8 (agents,), changed in place.
        slack: bits that `choices` leaves.

    Returns:
        Bits left at the end.
    """
    while True:
        spans = over_spans(partial(_best, tables, choices, slack), tables.agents)
        agents, targets, ratio, cost = (np.concatenate(column) for column in zip(*spans, strict=True))
        if not len(agents):
            return slack
        order = _order(ratio, cost)
        slack = _apply(choices, agents[order], targets[order], ratio[order], cost[order], slack, False)


def _best(
    tables: Tables, choices: npt.NDArray[np.uint8], slack: int, start: int, stop: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8], npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Each agent's best upgrade within `slack`: agent, strategy, damage per bit, bits. Not more than could all fit."""
    size = stop - start
    agents, targets = np.empty(size, np.int64), np.empty(size, np.uint8)
    ratio, cost = np.empty(size), np.empty(size, np.int64)
    found = _upgrades(*tables, start, stop, choices, slack, agents, targets, ratio, cost)
    agents, targets, ratio, cost = agents[:found], targets[:found], ratio[:found], cost[:found]
    if found and cost.min() > 0 and found > (most := slack // int(cost.min())):
        keep = np.sort(np.argpartition(-ratio, most - 1)[:most])
        agents, targets, ratio, cost = agents[keep], targets[keep], ratio[keep], cost[keep]
    return agents, targets, ratio, cost


def _order(ratio: npt.NDArray[np.float64], cost: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    # of equal ratios (up to rounding) the large upgrades first: small ones still fit into what they leave
    return np.lexsort((-cost, -ratio.astype(np.float32)))


@njit(nogil=True, cache=True)
def _ratios(damage, memory, agents, choices, wide, ratio, cost):  # type: ignore[no-untyped-def]
    step = 0 if memory.shape[0] == 1 else 1
    for k in range(len(agents)):
        i = agents[k]
        row = i * step
        cost[k] = memory[row, wide[i]] - memory[row, choices[i]]
        gain = np.float64(damage[i, choices[i]]) - np.float64(damage[i, wide[i]])
        ratio[k] = gain / cost[k] if cost[k] > 0 else np.inf if gain > 0 else 0.0


@njit(nogil=True, cache=True)
def _apply(choices, agents, targets, ratio, cost, slack, strict):  # type: ignore[no-untyped-def]
    for k in range(len(agents)):
        if ratio[k] > 0:
            if cost[k] <= slack:
                choices[agents[k]] = targets[k]
                slack -= cost[k]
            elif strict:
                break
    return slack


@njit(nogil=True, cache=True)
def _upgrades(damage, memory, start, stop, choices, slack, agents, targets, ratio, cost):  # type: ignore[no-untyped-def]
    step = 0 if memory.shape[0] == 1 else 1
    found = 0
    for i in range(start, stop):
        row = i * step
        now = choices[i]
        best = 0.0
        for s in range(damage.shape[1]):
            gain = np.float64(damage[i, now]) - np.float64(damage[i, s])
            bits = memory[row, s] - memory[row, now]
            if gain <= 0 or bits > slack:
                continue
            value = gain / bits if bits > 0 else np.inf
            if value > best:
                best = value
                agents[found] = i
                targets[found] = s
                ratio[found] = value
                cost[found] = bits
        if best > 0:
            found += 1
    return found
