"""Agents coupled along rows play a price until nobody moves, and the price moves until the market clears."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from nash_swarm.errors import UsageError
from nash_swarm.game.chains import best_profile, clear_rows, mix_rows
from nash_swarm.game.demand import Point
from nash_swarm.game.interaction import Choices
from nash_swarm.game.market import FREE, PROHIBITIVE, Bracket, clear
from nash_swarm.game.rows import Rows
from nash_swarm.solvers._fill import immaterial
from nash_swarm.solvers._row_fill import fill_rows, trade_rows
from nash_swarm.solvers._row_response import respond
from nash_swarm.solvers._support import supporting_price
from nash_swarm.solvers.base import Play

Record = Callable[[Point, Mapping[str, float]], None]
RowDynamics = Literal["response", "best"]

_NARROW = 2.0**-41
"""Relative width of a bracket of prices within which regret is rounding."""


def play_rows(rows: Rows, capacity: int, dynamics: RowDynamics, max_trades: int, record: Record) -> Play:
    """Choose for agents coupled along rows.

    `response` is best-response play: from the solution without coupling, agents take turns along their rows, each
    moving to its best response to its neighbours, until nobody moves. The potential of the docstring of `Nash` is exact
    here too (pairs are symmetric), every move lowers it by what the mover gains, and profiles are finitely many: play
    ends, in a Nash equilibrium, not always the best one. The price is bisected; each price starts from the last
    equilibrium that fits.

    `best` takes the best equilibrium at every price, the profile of least potential (`game.chains.best_profile`).
    Memory demanded then falls as the price rises, and the price is found as in `game.market`.

    Rows are not coupled with one another, so that of two equilibria at one price any mixture of rows is one: rows of
    the one that does not fit are taken while they fit. What is left, less than one row's step, is spent by single
    agents and trades, unless it is immaterial (`solvers._fill.immaterial`).

    Args:
        rows: the game.
        capacity: bits the agents may share, at least the sum of their cheapest strategies.
        dynamics: see above.
        max_trades: trades at the end.
        record: told the market's state at every price, and at the end.

    Raises:
        UsageError: there are no such dynamics.
    """
    if dynamics not in ("response", "best"):
        raise UsageError(f"unknown dynamics {dynamics!r}; choose 'response' or 'best'")
    search = _by_response if dynamics == "response" else _by_best_profiles
    price, choices, wide = search(rows, capacity, record)
    if price > 0:
        mix_rows(rows, choices, wide, capacity - rows.total(choices).memory)
    trades = 0
    if not immaterial(rows.total(choices), price, capacity):
        choices = _least(rows, choices, capacity)
        slack = fill_rows(rows, choices, capacity - rows.total(choices).memory)
        trades = trade_rows(rows, choices, slack, max_trades)
        fill_rows(rows, choices, capacity - rows.total(choices).memory)
        price = supporting_price(rows.effective(choices), choices, price)
    record(rows.total(choices, price), {"trades": float(trades)})
    return Play(choices, price)


def _least(rows: Rows, choices: Choices, capacity: int) -> Choices:
    """The profile or the single strategy that fits, whichever costs least."""
    singles = [np.full(rows.agents, s, np.uint8) for s in range(rows.tables.damage.shape[1])]
    fitting = [choices, *(single for single in singles if rows.total(single).memory <= capacity)]
    return min(fitting, key=lambda profile: rows.total(profile).damage)


def _by_best_profiles(rows: Rows, capacity: int, record: Record) -> tuple[float, Choices, Choices]:
    """The price at which the coupled game's dual is largest (0 if everything fits) and equilibria around it.

    The sums over everybody that a bracket compares are too coarse to tell which of the last few agents gains. So the
    profile that fits is taken at the least price above the crossing at which the best one fits, and the other is made
    an equilibrium at that price too.
    """
    bracket, narrow, wide = clear_rows(rows, capacity, lambda point: record(point, {}))
    if bracket is None:
        return 0.0, narrow, wide
    return _settle(rows, bracket, narrow, wide, record), narrow, wide


def _settle(rows: Rows, bracket: Bracket, narrow: Choices, wide: Choices, record: Record) -> float:
    crossing, width, trial = bracket.crossing(), _NARROW, np.empty_like(narrow)
    while (price := crossing * (1 + width)) < bracket.high.price:
        point = best_profile(rows, price, trial)
        record(point, {})
        if point.memory <= bracket.capacity:
            np.copyto(narrow, trial)
            break
        width *= 16
    price = min(price, bracket.high.price)
    respond(rows, price, wide)
    return price


def _by_response(rows: Rows, capacity: int, record: Record) -> tuple[float, Choices, Choices]:
    """A price just above which play ends in a profile that fits, and just below which in one that does not; both."""
    clearing = clear(rows.tables, capacity)
    trial = clearing.narrow.copy()
    narrow, wide = trial.copy(), trial.copy()
    low, high, price, widen = 0.0, math.inf, clearing.price or FREE, 2.0
    while True:
        moves = respond(rows, price, trial)
        point = rows.total(trial, price)
        record(point, {"moves": float(moves)})
        fits = point.memory <= capacity
        np.copyto(narrow if fits else wide, trial)
        if fits and price == FREE:
            return 0.0, narrow, narrow
        low, high = (low, price) if fits else (price, high)
        if low and high < math.inf:
            price = math.sqrt(low) * math.sqrt(high)
            if high - low <= _NARROW * high or not low < price < high:
                return high, narrow, wide
        else:
            price = min(price * widen, PROHIBITIVE) if low else max(price / widen, FREE)
            widen = min(widen * widen, 1e150)
        np.copyto(trial, narrow if high < math.inf else wide)
