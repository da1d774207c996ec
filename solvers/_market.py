"""A market cleared by play: agents respond to a price until nobody moves, and the price moves until demand fits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nash_swarm.game.demand import Point, demand
from nash_swarm.game.interaction import Interaction, Separate
from nash_swarm.game.market import FREE, PROHIBITIVE, Bracket, Undecided, search
from nash_swarm.game.profiles import Choices
from nash_swarm.solvers.base import Play
from nash_swarm.solvers.toolbox import fill, never_worse, respond, spend, supporting_price, trade

Record = Callable[[Point, Mapping[str, float]], None]

_WIDEN = 4.0
"""Factor on the price of a first step; the next one is its square."""


@dataclass(frozen=True)
class Dynamics:
    """How agents respond; the meaning of each field is in `Nash`."""

    inertia: float
    tolerance: float
    max_sweeps: int
    max_prices: int
    max_trades: int


class Start(NamedTuple):
    """A profile near which play begins, and a price near which it is an equilibrium."""

    choices: Choices
    price: float


class _Ends(NamedTuple):
    """Two equilibria, the dearest known one that takes too much and the cheapest one that fits, and what they take."""

    wide: Choices
    narrow: Choices
    low: Point
    high: Point


def play_market(
    game: Interaction,
    capacity: int,
    dynamics: Dynamics,
    rng: np.random.Generator,
    record: Record,
    start: Start | None = None,
) -> Play:
    """Clear the market by play, spend what is left, trade, and tell the price that supports the result.

    The bracket of the clearing price is narrowed as in `game.market`, each price starting from the equilibrium of the
    one before. Where agents are coupled, memory demanded at equilibrium need not fall as the price rises: there may be
    several equilibria, and which one is reached depends on where play starts. The bracket all the same keeps a price
    with an equilibrium that is too large and one with an equilibrium that fits.

    Args:
        game: the game.
        capacity: bits the agents may share, at least the sum of their cheapest strategies.
        dynamics: how agents respond.
        rng: decides who passes.
        record: told the market's state at every price, and at the end.
        start: where play begins, for coupled agents; without it the bracket is all prices.
    """
    ends = _all_prices(game, capacity) if start is None else _around(game, capacity, start, dynamics, rng, record)
    choices, price = ends.narrow, 0.0
    if ends.wide is not ends.narrow:
        price = _clear(game, capacity, ends, dynamics, rng, record)
    done = spend(game, choices, ends.wide, price, capacity)
    return finish(game, capacity, choices, price, 0 if done else dynamics.max_trades, record)


def finish(game: Interaction, capacity: int, choices: Choices, price: float, max_trades: int, record: Record) -> Play:
    """Trade, take the best single strategy if it is better, and tell the price at which the largest regret is least.

    Args:
        game: the game.
        capacity: bits the agents may share.
        choices: a profile that fits and leaves no upgrade; changed in place.
        price: damage per bit near which it is an equilibrium.
        max_trades: trades after which to stop.
        record: told the end.
    """
    trades = trade(game, choices, capacity, price, max_trades)
    if trades:
        fill(game, choices, capacity - game.total(choices).memory)
    choices = never_worse(game, capacity, choices)
    price = supporting_price(game.marginal(choices), choices, price)
    record(game.total(choices, price), {"trades": float(trades)})
    return Play(choices, price)


def _all_prices(game: Interaction, capacity: int) -> _Ends:
    """What agents that are not coupled want for nothing, and what they want at any price."""
    wide, narrow = (np.empty(game.agents, np.uint8) for _ in range(2))
    low, high = demand(game.tables, FREE, wide), demand(game.tables, PROHIBITIVE, narrow)
    return _Ends(wide, wide if low.memory <= capacity else narrow, low, high)


def _around(
    game: Interaction, capacity: int, start: Start, dynamics: Dynamics, rng: np.random.Generator, record: Record
) -> _Ends:
    """Equilibria on both sides of the capacity, from a start by ever larger steps of the price."""
    choices, widen = start.choices.copy(), _WIDEN
    scale = float(np.abs(game.tables.damage).sum(dtype=np.float64)) / max(1, game.single(game.strategies - 1).memory)
    price = start.price or max(scale, FREE * _WIDEN)
    wide = narrow = choices
    low = high = None
    while low is None or high is None:
        told = _settle(game, price, choices, dynamics, rng)
        point = game.total(choices, price)
        record(point, told)
        if point.memory > capacity:
            wide, low = choices.copy(), point
            price = min(price * widen, PROHIBITIVE)
        else:
            narrow, high = choices.copy(), point
            if price <= FREE:
                return _Ends(narrow, narrow, point, point)
            price = max(price / widen, FREE)
        widen *= widen
    return _Ends(wide, narrow, low, high)


def _clear(
    game: Interaction, capacity: int, ends: _Ends, dynamics: Dynamics, rng: np.random.Generator, record: Record
) -> float:
    """Play at price after price; leaves the equilibria around the clearing price in `ends`, and returns the price."""
    bracket = Bracket(ends.low, ends.high, capacity)
    undecided = Undecided(game.tables, bracket, ends.wide, ends.narrow, additive=game.additive)

    def ask(price: float, choices: Choices) -> Point:
        # fewer agents than at first are the rest of a game whose agents are not coupled
        asked = game if undecided.tables is game.tables else Separate(undecided.tables)
        told = _settle(asked, price, choices, dynamics, rng)
        point = asked.total(choices, price)
        record(undecided.whole(point), told)
        return point

    return search(undecided, ask, dynamics.max_prices)


def _settle(
    game: Interaction, price: float, choices: Choices, dynamics: Dynamics, rng: np.random.Generator
) -> dict[str, float]:
    """Let agents respond at `price` until nobody moves, changing `choices`; returns the record of it."""
    sweeps = moves = 0
    while sweeps < dynamics.max_sweeps:
        turn = respond(game, price, choices, rng=rng, tolerance=dynamics.tolerance, inertia=dynamics.inertia)
        sweeps += 1
        moves += turn.moves
        if turn.moves == turn.passed == 0:
            break
    return {"sweeps": float(sweeps), "moves": float(moves), "unilateral_regret": turn.regret}
