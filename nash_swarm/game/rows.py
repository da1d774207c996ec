"""What agents coupled along rows cost, gain and want; the least cost at a price, exactly, by dynamic programming.

Rows are chains, so the profile that is best at a price, of all of them, is found in O(agents * strategies^2) (A. J.
Viterbi, IEEE Trans. Information Theory 13, 1967). It minimises the potential, so it is a Nash equilibrium at the price;
and its Lagrangian value is the dual of the coupled game: a lower bound without any relaxation.
"""

from __future__ import annotations

import math
import sys

import numpy as np
import numpy.typing as npt
from numba import njit

from nash_swarm.errors import DataError
from nash_swarm.game.budget import Budget
from nash_swarm.game.certificate import Certificate
from nash_swarm.game.demand import Point, totals
from nash_swarm.game.exchange import Exchange, Offers, best_of, span_offers
from nash_swarm.game.stencil import Patch, StencilGame
from nash_swarm.game.tables import Tables, readonly

Choices = npt.NDArray[np.uint8]

NOISE = 2.0**-40
"""A gain below this share of the terms it is the difference of is rounding, not a reason to deviate."""
_MARGIN = 64 * sys.float_info.epsilon
"""Bounds the rounding of a dual value, relative to the terms it is the sum and difference of."""


def total(game: StencilGame, choices: Choices, price: float = 0.0) -> Point:
    """Memory and damage of a profile, what neighbours add included."""
    own = totals(Tables.of(game.game), choices, price)
    pairs = game.over_rows(lambda part: _pairs(part, choices[part.start : part.stop]))
    return own._replace(damage=own.damage + math.fsum(pairs))


def regret(game: StencilGame, choices: Choices, price: float) -> float:
    """The most any single agent would gain at `price` by changing its mind, in nats per token; 0 if nobody would."""
    return max(game.over_rows(lambda part: _regret(part, choices[part.start : part.stop], price)))


def best_profile(game: StencilGame, price: float, choices: Choices) -> Point:
    """The profile of least cost at `price`, of all profiles.

    Args:
        game: the problem.
        price: damage per bit.
        choices: uint8 (agents,), overwritten.
    """
    game.over_rows(lambda part: _best(part, price, choices[part.start : part.stop]))
    return total(game, choices, price)


def mix_rows(game: StencilGame, narrow: Choices, wide: Choices, slack: int) -> int:
    """Let rows play what they do in `wide` where that takes more bits and fits.

    Args:
        game: the problem.
        narrow: uint8 (agents,), the profile that fits; changed in place.
        wide: uint8 (agents,), the one that does not.
        slack: bits that `narrow` leaves.

    Returns:
        Bits left now.
    """
    for part in game.patches():
        slack = int(_mix_rows(part, narrow[part.start : part.stop], wide[part.start : part.stop], slack))
    return slack


def effective(part: Patch, choices: Choices) -> Tables:
    """Tables in which damage, float64, is what each strategy of some rows' agents costs them if the others stay."""
    out = np.empty(part.damage.shape)
    _effective(part, choices, out)
    return Tables(readonly(out), part.memory)


def certify_stencil(game: StencilGame, budget: Budget, choices: Choices, price: float) -> Certificate:
    """The certificate of a profile of choices, from the game alone.

    The lower bound is the dual of the coupled game at `price`, tight at the clearing price. Exchange regret is exact
    over changes of single agents; of pairs only the one is looked at that would be best if no two agents were
    neighbours.

    Args:
        game: the problem.
        budget: the limit on everything written to disk.
        choices: uint8 (agents,), strategy indices.
        price: damage per bit at which regret is stated.

    Raises:
        DataError: the choices are none of this game or exceed the budget, or the price is no price.
    """
    plain = game.game
    if choices.dtype != np.uint8 or choices.shape != (plain.agents,) or choices.max() >= len(plain.strategies):
        raise DataError(f"choices must be uint8 ({plain.agents},), indices into {len(plain.strategies)} strategies")
    if not (math.isfinite(price) and price >= 0):
        raise DataError(f"a price must be finite and not negative, not {price}")
    chosen = total(game, choices)
    capacity = budget.total_bits - plain.fixed_bits
    slack = capacity - chosen.memory
    if slack < 0:
        raise DataError(f"the choices take {budget.total_bits - slack} bits of {budget.total_bits} allowed")
    best = np.empty_like(choices)
    point = best_profile(game, price, best)
    own = totals(Tables.of(plain), best).damage
    size = own + price * (point.memory + capacity)
    return Certificate(
        budget_bits=budget.total_bits,
        used_bits=budget.total_bits - slack,
        price=price,
        unilateral_regret=regret(game, choices, price),
        exchange_regret=_exchange(game, choices, slack, chosen).gain,
        predicted_damage=chosen.damage,
        lower_bound=max(0.0, point.value(price, capacity) - _MARGIN * size),
        exchange_exact=False,
    )


def _exchange(game: StencilGame, choices: Choices, slack: int, now: Point) -> Exchange:
    def offer(part: Patch) -> Offers:
        own = choices[part.start : part.stop]
        return span_offers(effective(part, own), own, slack, 0, len(own)).shifted(part.start)

    offers = game.over_rows(offer)
    best, alone = best_of(offers, slack), max(offer.gain for offer in offers)
    if len(best.moves) == 2 and abs(best.moves[0][0] - best.moves[1][0]) == 1:
        other = choices.copy()
        for agent, strategy in best.moves:
            other[agent] = strategy
        return Exchange(max(alone, now.damage - total(game, other).damage), ())
    return best


@njit(nogil=True, cache=True, inline="always")
def error_of(damage, signs, i, s):  # type: ignore[no-untyped-def]
    """The signed error of agent i with strategy s."""
    root = math.sqrt(np.float64(damage[i, s]))
    return -root if signs[i] >> s & 1 else root


@njit(nogil=True, cache=True, inline="always")
def field_at(correlation, played, c):  # type: ignore[no-untyped-def]
    """Twice what the neighbours' errors weigh for a unit of column c's error."""
    around = 0.0
    if c > 0:
        around += np.float64(correlation[c - 1]) * played[c - 1]
    if c + 1 < len(correlation):
        around += np.float64(correlation[c]) * played[c + 1]
    return 2.0 * around


@njit(nogil=True, cache=True)
def play_errors(damage, signs, choices, first, played):  # type: ignore[no-untyped-def]
    """The errors of the row that begins with agent `first`."""
    for c in range(len(played)):
        played[c] = error_of(damage, signs, first + c, choices[first + c])


@njit(nogil=True, cache=True)
def _pairs(part, choices):  # type: ignore[no-untyped-def]
    _, _, damage, _, signs, correlation = part
    columns = len(correlation)
    played = np.empty(columns)
    added = 0.0
    for first in range(0, len(damage), columns):
        play_errors(damage, signs, choices, first, played)
        row = 0.0
        for c in range(columns - 1):
            row += np.float64(correlation[c]) * played[c] * played[c + 1]
        added += row
    return 2.0 * added


@njit(nogil=True, cache=True)
def _effective(part, choices, out):  # type: ignore[no-untyped-def]
    _, _, damage, _, signs, correlation = part
    columns = len(correlation)
    played = np.empty(columns)
    for first in range(0, len(damage), columns):
        play_errors(damage, signs, choices, first, played)
        for c in range(columns):
            field = field_at(correlation, played, c)
            for s in range(damage.shape[1]):
                out[first + c, s] = np.float64(damage[first + c, s]) + field * error_of(damage, signs, first + c, s)


@njit(nogil=True, cache=True)
def best_response(damage, memory, signs, i, now, error, field, price):  # type: ignore[no-untyped-def]
    """Agent i's best strategy in a field and what it gains by it; nothing that may be rounding."""
    own = np.float64(damage[i, now])
    best = now
    gain = 0.0
    for s in range(damage.shape[1]):
        other = np.float64(damage[i, s])
        saved = own - other + field * (error - error_of(damage, signs, i, s))
        paid = price * (memory[0, s] - memory[0, now])
        if saved - paid > gain:
            size = own + other + abs(field) * (math.sqrt(own) + math.sqrt(other)) + abs(paid)
            if saved - paid > NOISE * size:
                gain = saved - paid
                best = s
    return best, gain


@njit(nogil=True, cache=True)
def _regret(part, choices, price):  # type: ignore[no-untyped-def]
    _, _, damage, memory, signs, correlation = part
    columns = len(correlation)
    played = np.empty(columns)
    worst = 0.0
    for first in range(0, len(damage), columns):
        play_errors(damage, signs, choices, first, played)
        for c in range(columns):
            field = field_at(correlation, played, c)
            i = first + c
            _, gain = best_response(damage, memory, signs, i, choices[i], played[c], field, price)
            worst = max(worst, gain)
    return worst


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
                cost[s] = reached + np.float64(damage[i, s]) + price * (memory[0, s] - memory[0, 0])
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
            more += memory[0, wide[i]] - memory[0, narrow[i]]
        if 0 < more <= slack:
            narrow[first : first + columns] = wide[first : first + columns]
            slack -= more
    return slack
