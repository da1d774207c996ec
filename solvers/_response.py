"""Best-response dynamics without coupling: every agent takes what is best for it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nash_swarm.compiling import njit
from nash_swarm.game.tables import Tables
from nash_swarm.sharing import over_spans
from nash_swarm.solvers._random import chance


class Sweep(NamedTuple):
    """What one turn of every agent changed.

    Attributes:
        moves: agents that changed their strategy.
        passed: agents that would have gained but passed their turn.
        regret: largest gain any agent had on its turn, in nats per token.
    """

    moves: int
    passed: int
    regret: float


def sweep(
    tables: Tables,
    price: float,
    choices: npt.NDArray[np.uint8],
    *,
    rng: np.random.Generator,
    tolerance: float = 0.0,
    inertia: float = 0.0,
) -> Sweep:
    """Give every agent one turn; it moves to its best response if that gains more than `tolerance` of its cost.

    Agents that are not coupled gain or lose the same whatever the others play, so the order of turns cannot matter; it
    is that of the table, which is read fastest. An indifferent agent stays where it is.

    Args:
        tables: the game.
        price: damage per bit.
        choices: uint8 (agents,), changed in place.
        rng: decides who passes.
        tolerance: least gain worth moving for, relative to what the agent suffers and pays.
        inertia: probability that an agent passes its turn.
    """
    seed = rng.integers(1, 2**62)
    parts = over_spans(
        lambda start, stop: _turns(*tables, start, stop, price, choices, tolerance, inertia, seed), tables.agents
    )
    moves, passed, regrets = zip(*parts, strict=True)
    return Sweep(sum(moves), sum(passed), max(regrets))


@njit(nogil=True, cache=True)
def _turns(damage, memory, start, stop, price, choices, tolerance, inertia, seed):  # type: ignore[no-untyped-def]
    step = 0 if memory.shape[0] == 1 else 1
    moves = 0
    passed = 0
    worst = 0.0
    for i in range(start, stop):
        row = i * step
        cheapest = memory[row, 0]
        now = choices[i]
        cost = np.float64(damage[i, now]) + price * (memory[row, now] - cheapest)
        best = now
        best_cost = cost
        for s in range(damage.shape[1]):
            other = np.float64(damage[i, s]) + price * (memory[row, s] - cheapest)
            if other < best_cost:
                best = s
                best_cost = other
        gain = cost - best_cost
        if gain > tolerance * cost:
            worst = max(worst, gain)
            if inertia > 0 and chance(seed, i) < inertia:
                passed += 1
            else:
                choices[i] = best
                moves += 1
    return moves, passed, worst
