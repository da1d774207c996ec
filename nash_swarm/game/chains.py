"""The profile of least cost at a price of agents coupled along rows, exactly, and the price that clears their market.

Rows are chains, so the profile that is best at a price, of all of them, is found in O(agents * strategies^2) by dynamic
programming (A. J. Viterbi, IEEE Trans. Information Theory 13, 1967). It minimises the potential, so it is a Nash
equilibrium at the price; its Lagrangian value is the dual of the coupled game: a lower bound without any relaxation.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from nash_swarm.compiling import njit
from nash_swarm.game.demand import Point, totals
from nash_swarm.game.interaction import Bound, Choices
from nash_swarm.game.market import FREE, PROHIBITIVE, Bracket
from nash_swarm.game.rows import Rows, error_of

_MARGIN = 64 * sys.float_info.epsilon
"""Bounds the rounding of a dual value, relative to the terms it is the sum and difference of."""


def best_profile(rows: Rows, price: float, choices: Choices) -> Point:
    """The profile of least cost at `price`, of all profiles.

    Args:
        rows: the game.
        price: damage per bit.
        choices: uint8 (agents,), overwritten.
    """
    rows.over_rows(lambda part: _best(part, price, choices[part.span]))
    return rows.total(choices, price)


class Ends(NamedTuple):
    """Best profiles around the clearing price.

    Attributes:
        bracket: settled; `None` if all that the agents want fits.
        narrow: uint8 (agents,), the profile that fits.
        wide: uint8 (agents,), the one that does not; `narrow` itself if all fits.
    """

    bracket: Bracket | None
    narrow: Choices
    wide: Choices


def clear_rows(rows: Rows, capacity: int, tell: Callable[[Point], None] = lambda point: None) -> Ends:
    """Search for the price at which the coupled game's dual is largest, as in `game.market`.

    Memory demanded by best profiles falls as the price rises.

    Args:
        rows: the game.
        capacity: bits the agents may share, at least the sum of their cheapest strategies.
        tell: called with the market's state at every price asked.
    """
    narrow, wide, trial = (np.empty(rows.agents, np.uint8) for _ in range(3))
    low = best_profile(rows, FREE, wide)
    tell(low)
    if low.memory <= capacity:
        return Ends(None, wide, wide)
    bracket = Bracket(low, best_profile(rows, PROHIBITIVE, narrow), capacity)
    while True:
        price = bracket.propose()
        if bracket.settled:
            return Ends(bracket, narrow, wide)
        point = best_profile(rows, price, trial)
        tell(point)
        bracket.update(point)
        np.copyto(wide if bracket.low is point else narrow, trial)


def row_bound(rows: Rows, capacity: int, price: float | None = None) -> Bound:
    """The dual of the coupled game at `price`; at the clearing price, where it is largest, if that is not given."""
    if price is None:
        bracket = clear_rows(rows, capacity).bracket
        price = 0.0 if bracket is None else bracket.crossing()
    best = np.empty(rows.agents, np.uint8)
    point = best_profile(rows, price, best)
    size = totals(rows.tables, best).damage + price * (point.memory + capacity)
    return Bound(max(0.0, point.value(price, capacity) - _MARGIN * size), price)


def mix_rows(rows: Rows, narrow: Choices, wide: Choices, slack: int) -> int:
    """Let rows play what they do in `wide` where that takes more bits and fits.

    Args:
        rows: the game.
        narrow: uint8 (agents,), the profile that fits; changed in place.
        wide: uint8 (agents,), the one that does not.
        slack: bits that `narrow` leaves.

    Returns:
        Bits left now.
    """
    for part in rows.patches():
        slack = int(_mix_rows(part, narrow[part.span], wide[part.span], slack))
    return slack


@njit(nogil=True, cache=True)
def _best(part, price, choices):  # type: ignore[no-untyped-def]
    _, _, damage, memory, signs, correlation = part
    columns, strategies = len(correlation), damage.shape[1]
    back = np.empty((columns, strategies), np.uint8)
    cost, error = np.empty(strategies), np.empty(strategies)
    before, error_before = np.empty(strategies), np.empty(strategies)
    for first in range(0, len(damage), columns):
        for c in range(columns):
            i = first + c
            row = i if memory.shape[0] > 1 else 0
            weight = 2.0 * np.float64(correlation[c - 1]) if c > 0 else 0.0
            least = np.inf
            for s in range(strategies):
                error[s] = error_of(damage, signs, i, s)
                slope = weight * error[s]
                best = 0
                reached = 0.0
                if c > 0:
                    reached = before[0] + slope * error_before[0]
                    for t in range(1, strategies):
                        other = before[t] + slope * error_before[t]
                        if other < reached:
                            reached = other
                            best = t
                back[c, s] = best
                cost[s] = reached + np.float64(damage[i, s]) + price * (memory[row, s] - memory[row, 0])
                least = min(least, cost[s])
            # only differences matter; kept small, they are not rounded more the longer the row is
            for s in range(strategies):
                before[s] = cost[s] - least
                error_before[s] = error[s]
        s = 0
        for t in range(1, strategies):
            if before[t] < before[s]:
                s = t
        for c in range(columns - 1, -1, -1):
            choices[first + c] = s
            s = back[c, s]


@njit(nogil=True, cache=True)
def _mix_rows(part, narrow, wide, slack):  # type: ignore[no-untyped-def]
    _, _, damage, memory, _, correlation = part
    columns = len(correlation)
    for first in range(0, len(damage), columns):
        more = 0
        for i in range(first, first + columns):
            row = i if memory.shape[0] > 1 else 0
            more += memory[row, wide[i]] - memory[row, narrow[i]]
        if 0 < more <= slack:
            narrow[first : first + columns] = wide[first : first + columns]
            slack -= more
    return slack
