"""The price at which coupled agents play an equilibrium that fits, and the last steps to the whole budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nash_swarm.game.arena import Arena, Members
from nash_swarm.game.demand import Point
from nash_swarm.game.market import FREE, PROHIBITIVE, clear
from nash_swarm.solvers._coupled_fill import fill_coupled, repair_coupled
from nash_swarm.solvers._coupled_response import sweep_coupled
from nash_swarm.solvers._coupled_trade import trade_coupled
from nash_swarm.solvers._support import supporting_price
from nash_swarm.solvers.base import Play

Record = Callable[[Point, Mapping[str, float]], None]

_NARROW = 1e-4
"""Relative width of the bracket of prices at which play hands over to the fill."""
_WIDEN = 4.0


@dataclass(frozen=True)
class Dynamics:
    """How agents respond; the meaning of each field is in `Nash`."""

    inertia: float
    tolerance: float
    max_sweeps: int
    max_prices: int
    max_trades: int


def settle(
    arena: Arena,
    members: Members,
    price: float,
    choices: npt.NDArray[np.uint8],
    dynamics: Dynamics,
    rng: np.random.Generator,
) -> dict[str, float]:
    """Let agents respond at `price` until nobody moves, changing `choices`; returns the record of it."""
    sweeps = moves = 0
    while sweeps < dynamics.max_sweeps:
        turn = sweep_coupled(
            arena, members, price, choices, rng=rng, tolerance=dynamics.tolerance, inertia=dynamics.inertia
        )
        sweeps += 1
        moves += turn.moves
        if turn.moves == turn.passed == 0:
            break
    return {"sweeps": float(sweeps), "moves": float(moves), "unilateral_regret": turn.regret}


def clear_coupled(
    arena: Arena,
    capacity: int,
    start: npt.NDArray[np.uint8],
    price: float,
    dynamics: Dynamics,
    rng: np.random.Generator,
    record: Record,
) -> tuple[npt.NDArray[np.uint8], float]:
    """Play from a profile near a price until the market clears; returns a profile that takes the budget, and its price.

    Memory demanded at equilibrium need not fall as the price rises: there may be several equilibria, and which one is
    reached depends on where play starts. Bisection all the same keeps a price with an equilibrium that is too large and
    one with an equilibrium that fits, which is where play at the next price starts. Of the last two, the one cut down
    to the budget and the one brought up to it, the one with the smaller total cost is returned.
    """
    members = Members.of(arena)

    def respond(price: float, choices: npt.NDArray[np.uint8]) -> bool:
        told = settle(arena, members, price, choices, dynamics, rng)
        point = arena.total(choices, price)
        record(point, told)
        return point.memory <= capacity

    wide = start.copy()
    if respond(FREE, wide):
        return fit(arena, wide, capacity), 0.0
    low, high, widen = 0.0, math.inf, _WIDEN
    choices = start.copy()
    narrow: npt.NDArray[np.uint8] | None = None
    for _ in range(dynamics.max_prices):
        if respond(price, choices):
            high, narrow = price, choices.copy()
        else:
            low, wide = price, choices.copy()
        if high <= low * (1 + _NARROW) or not FREE * _WIDEN < price < PROHIBITIVE / _WIDEN:
            break
        if low == 0 or math.isinf(high):
            # a market far from where it was looked for is reached by ever larger steps
            price = min(max(price / widen if low == 0 else price * widen, FREE), PROHIBITIVE)
            widen *= widen
        else:
            price = math.sqrt(low) * math.sqrt(high)
        if narrow is not None:
            choices = narrow.copy()
    found = [fit(arena, end, capacity) for end in (narrow, wide) if end is not None]
    return min(found, key=lambda end: arena.total(end).damage), min(high, price)


def fit(
    arena: Arena, choices: npt.NDArray[np.uint8], capacity: int, rounds: int | None = None
) -> npt.NDArray[np.uint8]:
    """A profile cut down to the capacity, or brought up to it in so many rounds of the fill."""
    choices = choices.copy()
    slack = repair_coupled(arena, choices, capacity - arena.total(choices).memory)
    fill_coupled(arena, choices, slack, rounds)
    return choices


def play_coupled(
    arena: Arena, capacity: int, dynamics: Dynamics, rng: np.random.Generator, record: Record,
    start: npt.NDArray[np.uint8] | None = None, price: float = 0.0,
) -> Play:  # fmt: skip
    """Clear the market, trade, and tell the price at which the result is closest to an equilibrium.

    Play starts from `start` and `price`, or else from where the market clears if nobody is coupled. It is never worse
    than the best single strategy that fits, or than a `start` that fits.
    """
    if start is None:
        clearing = clear(arena.tables, capacity)
        start, price = clearing.narrow, clearing.price
    size = arena.tables.memory.sum(axis=1).mean() * arena.agents
    price = price or max(float(np.abs(arena.damage).sum(dtype=np.float64)) / float(size), 4 * FREE)
    choices, price = clear_coupled(arena, capacity, start, price, dynamics, rng, record)
    return finish(arena, capacity, [choices, start], price, dynamics.max_trades, record)


def finish(
    arena: Arena, capacity: int, ends: list[npt.NDArray[np.uint8]], price: float, max_trades: int, record: Record
) -> Play:
    """Trade from the best of some profiles and of the single strategies, and tell the price that supports the result.

    That price is the one at which the largest regret of any agent is smallest.
    """
    singles = [np.full(arena.agents, s, np.uint8) for s in range(arena.damage.shape[1])]
    fitting = [end for end in (*ends, *singles) if arena.total(end).memory <= capacity]
    choices = fit(arena, min(fitting, key=lambda end: arena.total(end).damage), capacity)
    trades = trade_coupled(arena, choices, capacity, price, max_trades)
    fill_coupled(arena, choices, capacity - arena.total(choices).memory)
    price = supporting_price(arena.effective(choices), choices, price)
    record(arena.total(choices, price), {"trades": float(trades)})
    return Play(choices, price)
