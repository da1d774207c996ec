"""Best-response dynamics: agents in random order take what is best for them, given what the others play."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from nash_swarm.game.spans import over_spans
from nash_swarm.game.tables import Tables
from nash_swarm.solvers._random import chance

_RUN = 1 << 10
"""Agents whose turns are mixed: as many as fit the first level of the processor's cache."""


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

    Agents take turns in runs of some thousands, in an order that strides through the run from a random start; spans of
    runs are played side by side. An indifferent agent stays where it is.

    Args:
        tables: the game.
        price: damage per bit.
        choices: uint8 (agents,), changed in place.
        rng: decides the order and who passes.
        tolerance: least gain worth moving for, relative to what the agent suffers and pays.
        inertia: probability that an agent passes its turn.
    """
    order = rng.integers(1, 2**62, size=3)
    parts = over_spans(
        lambda start, stop: _turns(*tables, start, stop, price, choices, tolerance, inertia, *order), tables.agents
    )
    moves, passed, regrets = zip(*parts, strict=True)
    return Sweep(sum(moves), sum(passed), max(regrets))


@njit(nogil=True, cache=True)
def coprime(stride, size):  # type: ignore[no-untyped-def]
    """The largest number up to `stride` modulo `size` that shares no divisor with `size`."""
    stride = max(1, stride % size)
    while True:
        a, b = size, stride
        while b > 0:
            a, b = b, a % b
        if a == 1:
            return stride
        stride -= 1


@njit(nogil=True, cache=True)
def _turns(damage, memory, start, stop, price, choices, tolerance, inertia, stride, first, seed):  # type: ignore[no-untyped-def]
    step = 0 if memory.shape[0] == 1 else 1
    moves = 0
    passed = 0
    worst = 0.0
    for turn in range(start, stop):
        place = (turn - start) % _RUN
        if place == 0:
            run = turn
            size = min(_RUN, stop - run)
            stride = coprime(stride, size)
            at = first % size
        i = run + at
        at += stride
        if at >= size:
            at -= size
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
