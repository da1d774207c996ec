"""Best-response dynamics of coupled agents: community by community, each move seen by the next agent."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nash_swarm.compiling import njit
from nash_swarm.game.arena import Arena, Members, dot
from nash_swarm.solvers._random import chance
from nash_swarm.solvers._response import Sweep

_NOISE = 2.0**-40
"""A gain below this share of the terms it is the difference of is rounding of the fields, not a reason to move."""


def sweep_coupled(
    arena: Arena,
    members: Members,
    price: float,
    choices: npt.NDArray[np.uint8],
    *,
    rng: np.random.Generator,
    tolerance: float = 0.0,
    inertia: float = 0.0,
) -> Sweep:
    """Give every agent one turn, knowing all moves before its own; see `_response.sweep`.

    Communities play one after the other from a random start with a random stride, and so do the agents of each. A
    community's field is computed when its turn comes and kept up with its own moves: O(strategies * rank) a turn.
    """
    order = rng.integers(1, 2**62, size=4)
    prices = np.full(len(arena.graph), price)
    sums = arena.sums(choices)
    return Sweep(*_turns(arena, members, sums, prices, choices, tolerance, inertia, order))


@njit(nogil=True, cache=True)
def _coprime(stride, size):  # type: ignore[no-untyped-def]
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
def _turns(arena, members, sums, prices, choices, tolerance, inertia, order):  # type: ignore[no-untyped-def]
    """One turn of every agent, each at its community's price; `sums` is kept up."""
    damage, memory, vectors, _, graph = arena
    stride, first, pace, seed = order
    moves = 0
    passed = 0
    worst = 0.0
    count = len(graph)
    leap = _coprime(pace, count)
    c = first % count
    field, rest = np.empty(sums.shape[1]), np.empty(sums.shape[1])
    for _ in range(count):
        for k in range(len(field)):
            total = 0.0
            for other in range(count):
                total += graph[c, other] * sums[other, k]
            field[k] = total
        size = members.starts[c + 1] - members.starts[c]
        step = _coprime(stride, size) if size > 0 else 1
        at = first % max(size, 1)
        for _ in range(size):
            i = members.agents[members.starts[c] + at]
            at = (at + step) % size
            best, gain, worth = best_response(
                damage, memory, vectors, i, choices[i], field, rest, graph[c, c], prices[c]
            )
            if gain <= max(tolerance, _NOISE) * worth:
                continue
            worst = max(worst, gain)
            if inertia > 0 and chance(seed, i) < inertia:
                passed += 1
                continue
            for k in range(len(field)):
                change = np.float64(vectors[i, best, k]) - np.float64(vectors[i, choices[i], k])
                sums[c, k] += change
                field[k] += graph[c, c] * change
            choices[i] = best
            moves += 1
        c = (c + leap) % count
    return moves, passed, worst


@njit(nogil=True, cache=True)
def best_response(damage, memory, vectors, i, now, field, rest, weight, price):  # type: ignore[no-untyped-def]
    """Agent i's best strategy in a field that it is part of, what it gains by it, and the size of what it pays now.

    `rest` is overwritten: with the field that the others make.
    """
    row = i if memory.shape[0] > 1 else 0
    for k in range(len(field)):
        rest[k] = field[k] - weight * np.float64(vectors[i, now, k])
    pairs = dot(vectors[i, now], rest)
    suffered = np.float64(damage[i, now]) + pairs
    best = now
    best_cost = 0.0
    for s in range(damage.shape[1]):
        if s == now:
            continue
        # relative to what it plays now
        cost = np.float64(damage[i, s]) + dot(vectors[i, s], rest) - suffered
        cost += price * (memory[row, s] - memory[row, now])
        if cost < best_cost:
            best = s
            best_cost = cost
    worth = abs(np.float64(damage[i, now])) + abs(pairs) + price * (memory[row, now] - memory[row, 0])
    return best, -best_cost, worth
