"""Agents coupled along rows play a price until nobody moves, and the price moves until the market clears."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from numba import njit

from nash_swarm.errors import UsageError
from nash_swarm.game.budget import Budget
from nash_swarm.game.certificate import Certificate
from nash_swarm.game.demand import Point
from nash_swarm.game.market import FREE, PROHIBITIVE, Bracket, clear
from nash_swarm.game.rows import (
    best_profile,
    best_response,
    certify_stencil,
    error_of,
    field_at,
    mix_rows,
    play_errors,
    total,
)
from nash_swarm.game.stencil import StencilGame
from nash_swarm.game.tables import Tables

Choices = npt.NDArray[np.uint8]

_NARROW = 2.0**-41
"""Relative width of a bracket of prices within which regret is rounding."""
_MAX_SWEEPS = 1000


@dataclass(frozen=True, eq=False)
class StencilAllocation:
    """What `solve_stencil` found.

    Attributes:
        choices: uint8 (agents,), strategy indices.
        certificate: what can be proven about them.
        prices: prices asked.
    """

    choices: Choices
    certificate: Certificate
    prices: int


def solve_stencil(
    game: StencilGame, budget: Budget, dynamics: Literal["response", "best"] = "response"
) -> StencilAllocation:
    """Allocate the budget among agents coupled along rows; certify the result.

    `response` is the play of `nash`: from the solution without coupling, agents take turns along their rows, each
    moving to its best response to its neighbours, until nobody moves. The potential of the docstring of `Nash` is exact
    here too (pairs are symmetric), every move lowers it by what the mover gains, and profiles are finitely many: play
    ends, in a Nash equilibrium, not always the best one. The price is bisected; each price starts from the last
    equilibrium that fits.

    `best` takes the best equilibrium at every price, the profile of least potential (`game.rows.best_profile`). Memory
    demanded then falls as the price rises, and the price is found as in `game.market`.

    Rows are not coupled with one another, so that of two equilibria at one price any mixture of rows is one: rows of
    the one that does not fit are taken while they fit. What is left is less than one row's step. Works in place; but
    for the tables, a few bytes an agent.

    Args:
        game: the problem.
        budget: the limit on everything written to disk.
        dynamics: see above.

    Raises:
        BudgetError: the budget is too small for the game; names the smallest feasible one.
        UsageError: there are no such dynamics.
    """
    if dynamics not in ("response", "best"):
        raise UsageError(f"unknown dynamics {dynamics!r}; choose 'response' or 'best'")
    search = _Search(game, game.game.capacity(budget))
    price = search.by_response() if dynamics == "response" else search.by_best_profiles()
    if price > 0:
        slack = search.capacity - total(game, search.narrow).memory
        mix_rows(game, search.narrow, search.wide, slack)
    return StencilAllocation(search.narrow, certify_stencil(game, budget, search.narrow, price), search.prices)


class _Search:
    """The search for the clearing price; leaves a profile that fits and one that does not beside it.

    Attributes:
        narrow, wide: these profiles.
        prices: prices asked.
    """

    def __init__(self, game: StencilGame, capacity: int) -> None:
        self.game, self.capacity, self.prices = game, capacity, 0
        self.narrow, self.wide, self._trial = (np.empty(game.game.agents, np.uint8) for _ in range(3))

    def by_best_profiles(self) -> float:
        """The price at which the coupled game's dual is largest; 0 if everything fits."""
        high = best_profile(self.game, PROHIBITIVE, self.narrow)
        low = best_profile(self.game, FREE, self.wide)
        self.prices = 2
        if low.memory <= self.capacity:
            self.narrow = self.wide
            return 0.0
        bracket = Bracket(low, high, self.capacity)
        while True:
            price = bracket.propose()
            if bracket.settled:
                return self._settle(bracket)
            self._take(best_profile(self.game, price, self._trial), bracket)

    def _settle(self, bracket: Bracket) -> float:
        """Make both profiles equilibria at one price, the least above the crossing at which the best profile fits.

        The sums over everybody that a bracket compares are too coarse to tell which of the last few agents gains.
        """
        crossing, width = bracket.crossing(), _NARROW
        while (price := crossing * (1 + width)) < bracket.high.price:
            self.prices += 1
            if best_profile(self.game, price, self._trial).memory <= self.capacity:
                np.copyto(self.narrow, self._trial)
                break
            width *= 16
        price = min(price, bracket.high.price)
        respond(self.game, price, self.wide)
        return price

    def _take(self, point: Point, bracket: Bracket) -> None:
        self.prices += 1
        bracket.update(point)
        np.copyto(self.wide if bracket.low is point else self.narrow, self._trial)

    def by_response(self) -> float:
        """A price just above which play ends in a profile that fits, and just below which in one that does not."""
        clearing = clear(Tables.of(self.game.game), self.capacity)
        np.copyto(self._trial, clearing.narrow)
        low, high, price, widen = 0.0, math.inf, clearing.price or FREE, 2.0
        while True:
            if self._fits(price):
                if price == FREE:
                    return 0.0
                high = price
            else:
                low = price
            if low and high < math.inf:
                price = math.sqrt(low) * math.sqrt(high)
                if high - low <= _NARROW * high or not low < price < high:
                    return high
            else:
                price = min(price * widen, PROHIBITIVE) if low else max(price / widen, FREE)
                widen = min(widen * widen, 1e150)
            np.copyto(self._trial, self.narrow if high < math.inf else self.wide)

    def _fits(self, price: float) -> bool:
        self.prices += 1
        respond(self.game, price, self._trial)
        fits = total(self.game, self._trial).memory <= self.capacity
        np.copyto(self.narrow if fits else self.wide, self._trial)
        return fits


def respond(game: StencilGame, price: float, choices: Choices) -> int:
    """Let agents respond at `price` until nobody moves; changes `choices`, returns the number of moves.

    Args:
        game: the problem.
        price: damage per bit.
        choices: uint8 (agents,), changed in place.
    """
    return sum(game.over_rows(lambda part: int(_respond(part, price, choices[part.start : part.stop], _MAX_SWEEPS))))


@njit(nogil=True, cache=True)
def _respond(part, price, choices, sweeps):  # type: ignore[no-untyped-def]
    """Row by row: turns from first to last column, again for the neighbours of who moved, until the row is quiet."""
    _, _, damage, memory, signs, correlation = part
    columns = len(correlation)
    played = np.empty(columns)
    awake = np.empty(columns + 1, np.bool_)
    moves = 0
    for first in range(0, len(damage), columns):
        play_errors(damage, signs, choices, first, played)
        awake[:] = True
        for _ in range(sweeps):
            quiet = True
            for c in range(columns):
                if not awake[c]:
                    continue
                awake[c] = False
                i = first + c
                around = field_at(correlation, played, c)
                best, gain = best_response(damage, memory, signs, i, choices[i], played[c], around, price)
                if gain > 0:
                    choices[i] = best
                    played[c] = error_of(damage, signs, i, best)
                    awake[max(c - 1, 0)] = True
                    awake[c + 1] = True
                    moves += 1
                    quiet = False
            if quiet:
                break
    return moves
