"""Always the upgrade that lowers the damage most per bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from nash_swarm.compiling import njit
from nash_swarm.game.bitgame import BitGame
from nash_swarm.game.demand import demand, totals
from nash_swarm.game.interaction import Separate
from nash_swarm.game.market import PROHIBITIVE
from nash_swarm.game.tables import Tables
from nash_swarm.solvers.base import Callback, Play, Solver
from nash_swarm.solvers.toolbox import never_worse


@dataclass(frozen=True)
class Greedy(Solver):
    """Marginal analysis with a heap (B. Fox, "Discrete optimization via marginal analysis", Management Science 1966).

    All agents start with the cheapest strategy. The agent whose best upgrade lowers the damage most per bit gets it,
    over and over. The best upgrade may jump over strategies that are not on the agent's convex hull (Zemel 1980), so
    damage need not be convex or fall with the width. An agent whose upgrade no longer fits is asked for its best one
    that does; so the budget is filled to the last agent. O(agents * strategies * log agents), one thread.

    Coupling is ignored when choosing.
    """

    name: ClassVar[str] = "greedy"
    summary: ClassVar[str] = "always the upgrade that lowers the damage most per bit (heap)"
    separable: ClassVar[bool] = True

    def play(self, game: BitGame, capacity: int, *, rng: np.random.Generator, callback: Callback) -> Play:
        """See `Solver.play`; nothing is random."""
        tables = Tables.of(game)
        choices = np.empty(game.agents, np.uint8)
        start = demand(tables, PROHIBITIVE, choices)
        ratio, target = np.empty(game.agents), np.empty(game.agents, np.uint8)
        heap = np.arange(game.agents, dtype=np.uint32 if game.agents < 2**32 else np.int64)
        upgrades = _greedy(*tables, choices, capacity - start.memory, ratio, target, heap)
        choices = never_worse(Separate(tables), capacity, choices)
        end = totals(tables, choices)
        record = {"memory": float(end.memory), "damage": end.damage, "upgrades": float(upgrades)}
        callback(record)
        return Play(choices, trace=(record,))


@njit(nogil=True, cache=True)
def _best_upgrade(damage, memory, i, row, now, slack):  # type: ignore[no-untyped-def]
    """Damage per bit of agent i's best upgrade within `slack`, and its strategy; 0 if there is none."""
    best = 0.0
    target = now
    for s in range(now + 1, damage.shape[1]):
        bits = memory[row, s] - memory[row, now]
        gain = np.float64(damage[i, now]) - np.float64(damage[i, s])
        if 0 < bits <= slack and gain > best * bits:
            best = gain / bits
            target = s
    return best, target


@njit(nogil=True, cache=True)
def _sift(heap, ratio, size, k):  # type: ignore[no-untyped-def]
    """Let the agent at place k sink until no child has a better ratio."""
    agent = heap[k]
    while True:
        child = 2 * k + 1
        if child >= size:
            break
        if child + 1 < size and ratio[heap[child + 1]] > ratio[heap[child]]:
            child += 1
        if ratio[heap[child]] <= ratio[agent]:
            break
        heap[k] = heap[child]
        k = child
    heap[k] = agent


@njit(nogil=True, cache=True)
def _greedy(damage, memory, choices, slack, ratio, target, heap):  # type: ignore[no-untyped-def]
    step = 0 if memory.shape[0] == 1 else 1
    size = len(choices)
    for i in range(size):
        ratio[i], target[i] = _best_upgrade(damage, memory, i, i * step, choices[i], slack)
    for k in range(size // 2 - 1, -1, -1):
        _sift(heap, ratio, size, k)
    upgrades = 0
    while size > 0 and ratio[heap[0]] > 0:
        top = np.int64(heap[0])
        row = top * step
        bits = memory[row, target[top]] - memory[row, choices[top]]
        if bits <= slack:
            slack -= bits
            choices[top] = target[top]
            upgrades += 1
        ratio[top], target[top] = _best_upgrade(damage, memory, top, row, choices[top], slack)
        if ratio[top] == 0:
            size -= 1
            heap[0] = heap[size]
        _sift(heap, ratio, size, 0)
    return upgrades
