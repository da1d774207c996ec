"""Spending what is left of the budget on what lowers the total cost most per bit; giving back what is too much."""

from __future__ import annotations

from functools import partial

import numpy as np

from nash_swarm.compiling import njit
from nash_swarm.game.demand import Point
from nash_swarm.game.interaction import Changes, Interaction
from nash_swarm.game.profiles import Choices
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


def spend(game: Interaction, choices: Choices, wide: Choices, price: float, capacity: int) -> bool:
    """Spend what a cleared market leaves: first at the price, then, unless it is immaterial, on whatever helps.

    Args:
        game: the game.
        choices: uint8 (agents,), the profile that fits; changed in place.
        wide: uint8 (agents,), the one that does not.
        price: damage per bit at which both are equilibria.
        capacity: bits the agents may share.

    Returns:
        Whether the rest was immaterial, and `choices` is an equilibrium at the price. Never where agents are coupled:
        pairs of them may gain by a change although none of them does.
    """
    slack = capacity - game.total(choices).memory
    slack = close_bracket(game, choices, wide, slack, at_price=True)
    if game.additive and immaterial(game.total(choices), price, capacity):
        return True
    fill(game, choices, close_bracket(game, choices, wide, slack))
    return False


def close_bracket(game: Interaction, choices: Choices, wide: Choices, slack: int, *, at_price: bool = False) -> int:
    """Move agents from `choices` to `wide` while they fit, best fall of the total cost per bit first.

    Args:
        game: the game.
        choices: uint8 (agents,), the profile that fits; changed in place.
        wide: uint8 (agents,), the one that does not.
        slack: bits that `choices` leaves.
        at_price: stop at the first that does not fit: whoever moves after it is worth less per bit.

    Returns:
        Bits left now.
    """
    agents = np.flatnonzero(choices != wide)
    worth, bits = np.empty(len(agents)), np.empty(len(agents), np.int64)
    _ratios(*game.marginal(choices), agents, choices, wide, worth, bits)
    changes = _in_order(Changes(agents, wide[agents], worth, bits))
    return game.make(changes, choices, slack, strict=at_price).slack


def fill(game: Interaction, choices: Choices, slack: int, rounds: int | None = None) -> int:
    """Upgrade agents, best fall of the total cost per bit first, until no upgrade that lowers it fits any more.

    An upgrade goes to any strategy that lowers the total cost, the best one per bit of those that fit; one that takes
    no more memory comes first. The total cost never rises.

    Args:
        game: the game.
        choices: uint8 (agents,), changed in place.
        slack: bits that `choices` leaves.
        rounds: proposals of all agents after which to stop although more may fit.

    Returns:
        Bits left at the end.
    """
    while rounds is None or rounds > 0:
        seen = game.marginal(choices)
        spans = over_spans(partial(_best, seen, choices, slack), game.agents)
        changes = Changes.joined(spans)
        if not len(changes.agent):
            break
        made, slack = game.make(_in_order(changes), choices, slack)
        if not made:
            break
        rounds = None if rounds is None else rounds - 1
    return slack


def repair(game: Interaction, choices: Choices, slack: int) -> int:
    """Downgrade agents, least rise of the total cost per bit given back first, until the budget holds.

    Args:
        game: the game.
        choices: uint8 (agents,), changed in place.
        slack: bits that `choices` leaves; negative where it takes too much.

    Returns:
        Bits left at the end; not negative if the agents' cheapest strategies fit.
    """
    while slack < 0:
        target, value = choices.copy(), np.empty(game.agents)
        bits = np.empty(game.agents, np.int64)
        _downgrades(*game.marginal(choices), choices, target, value, bits)
        agents = np.flatnonzero(value > -np.inf)
        if not len(agents):
            break
        agents = agents[np.argsort(-value[agents], kind="stable")]
        given = np.cumsum(bits[agents])
        # no more than a part at once: what is given back changes what the rest is worth
        agents = agents[: min(int(np.searchsorted(given, -slack)) + 1, max(16, len(agents) // 3))]
        slack += int(given[len(agents) - 1])
        choices[agents] = target[agents]
    return slack


def _best(tables: Tables, choices: Choices, slack: int, start: int, stop: int) -> Changes:
    """Each agent's best upgrade within `slack`. Not more than could all fit."""
    room = Changes.empty(stop - start)
    found = room.take(slice(_upgrades(*tables, start, stop, choices, slack, room)))
    least = int(found.bits.min(initial=slack + 1))
    if 0 < least <= slack and len(found.bits) > (most := slack // least):
        return found.take(np.sort(np.argpartition(-found.worth, most - 1)[:most]))
    return found


def _in_order(changes: Changes) -> Changes:
    # of equal ratios (up to rounding) the large upgrades first: small ones still fit into what they leave
    order = np.lexsort((-changes.bits, -changes.worth.astype(np.float32)))
    return changes.take(order)


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
def _upgrades(damage, memory, start, stop, choices, slack, changes):  # type: ignore[no-untyped-def]
    agents, targets, worth, cost = changes
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
                worth[found] = value
                cost[found] = bits
        if best > 0:
            found += 1
    return found


@njit(nogil=True, cache=True)
def _downgrades(damage, memory, choices, target, value, given):  # type: ignore[no-untyped-def]
    """Each agent's downgrade of the least rise per bit; its value is minus that, minus infinity without one."""
    for i in range(len(choices)):
        row = i if memory.shape[0] > 1 else 0
        now = choices[i]
        value[i] = -np.inf
        for s in range(damage.shape[1]):
            bits = memory[row, now] - memory[row, s]
            if bits <= 0:
                continue
            worth = (np.float64(damage[i, now]) - np.float64(damage[i, s])) / bits
            if worth > value[i]:
                value[i] = worth
                target[i] = s
                given[i] = bits
