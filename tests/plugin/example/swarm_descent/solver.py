"""Start with the widest strategies and take bits where they are missed least."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from nash_swarm.game import BitGame
from nash_swarm.solvers import Play, Solver
from nash_swarm.solvers.base import Callback


@dataclass(frozen=True)
class Descent(Solver):
    """Every agent starts at the top; steps down are taken in the order of damage per bit saved until the budget is met.

    The greedy heuristic of the multiple-choice knapsack, from the other end (H. Kellerer, U. Pferschy & D. Pisinger,
    *Knapsack Problems*, 2004, section 11.2), then upgrades wherever one still fits. If a single width does better, that
    is the result.

    Attributes:
        tolerance: a step up must lower the damage by more than this to be taken, in the unit of the damage.
    """

    name: ClassVar[str] = "descent"
    summary: ClassVar[str] = "from the widest strategies down, cheapest bits first"
    separable: ClassVar[bool] = True

    tolerance: float = 0.0

    def play(self, game: BitGame, capacity: int, *, rng: np.random.Generator, callback: Callback) -> Play:
        """See `Solver.play`; nothing is random."""
        damage, memory = game.damage.astype(np.float64), np.asarray(game.memory)
        choices = np.full(game.agents, len(game.strategies) - 1, np.uint8)
        used = int(memory[:, -1].sum())
        heap = [step for agent in range(game.agents) if (step := _step(damage, memory, agent, int(choices[agent])))]
        heapq.heapify(heap)
        while used > capacity:
            _, agent, lower = heapq.heappop(heap)
            used -= int(memory[agent, choices[agent]] - memory[agent, lower])
            choices[agent] = lower
            if step := _step(damage, memory, agent, lower):
                heapq.heappush(heap, step)
        single = [np.full_like(choices, s) for s in range(memory.shape[1]) if memory[:, s].sum() <= capacity]
        ends = [self._filled(damage, memory, end, capacity) for end in (choices, *single)]
        best = min(ends, key=game.total_damage)
        callback({"damage": game.total_damage(best)})
        return Play(best)

    def _filled(self, damage: np.ndarray, memory: np.ndarray, choices: np.ndarray, capacity: int) -> np.ndarray:
        """`choices` after every upgrade that still fits, most damaged agents first."""
        agents = np.arange(len(choices))
        left = capacity - int(memory[agents, choices].sum())
        for agent in np.argsort(-damage[agents, choices], kind="stable"):
            now = choices[agent]
            fits = memory[agent] - memory[agent, now] <= left
            best = int(np.where(fits, damage[agent], np.inf).argmin())
            if damage[agent, now] - damage[agent, best] > self.tolerance:
                left -= int(memory[agent, best] - memory[agent, now])
                choices[agent] = best
        return choices


def _step(damage: np.ndarray, memory: np.ndarray, agent: int, now: int) -> tuple[float, int, int] | None:
    """The step down of `agent` that costs least per bit saved: (rate, agent, strategy)."""
    saved = memory[agent, now] - memory[agent, :now]
    lower = [s for s in range(now) if saved[s] > 0]
    if not lower:
        return None
    return min(((damage[agent, s] - damage[agent, now]) / saved[s], agent, s) for s in lower)
