"""One width for all: what a caller without any measurement would do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from nash_swarm.compiling import njit
from nash_swarm.game.bitgame import BitGame
from nash_swarm.game.tables import Tables
from nash_swarm.solvers.base import Callback, Play, Solver
from nash_swarm.solvers.toolbox import single_memory


@dataclass(frozen=True)
class Uniform(Solver):
    """The widest strategy that all agents can play; what is left is spread evenly over the model.

    The baseline of every quantization paper. It looks at memory only, never at damage: agents are upgraded by one
    strategy at an even stride through the model (error diffusion along the agent order, weighted by memory; Floyd &
    Steinberg 1976 in one dimension), then in agent order wherever one more upgrade fits. On damage that does not fall
    with the width the upgrades can therefore do harm. One pass per strategy and stride, O(agents).

    Coupling is ignored when choosing.
    """

    name: ClassVar[str] = "uniform"
    summary: ClassVar[str] = "one width for all, the rest of the budget spread evenly; looks at no data"
    baseline: ClassVar[bool] = True
    separable: ClassVar[bool] = True

    def play(self, game: BitGame, capacity: int, *, rng: np.random.Generator, callback: Callback) -> Play:
        """See `Solver.play`; nothing is random."""
        sizes = single_memory(game)
        base = max((s for s, bits in enumerate(sizes) if bits <= capacity), default=0)
        choices = np.full(game.agents, base, np.uint8)
        memory = Tables.of(game).memory
        slack = capacity - sizes[base]
        for level in range(base, len(sizes) - 1):
            share = slack / max(1, sizes[level + 1] - sizes[level])
            if level == base:
                slack = _spread(memory, choices, level, slack, share)
            slack = _spread(memory, choices, level, slack, 1.0)
        record = {"memory": float(capacity - slack)}
        callback(record)
        return Play(choices, trace=(record,))


@njit(nogil=True, cache=True)
def _spread(memory, choices, level, slack, share):  # type: ignore[no-untyped-def]
    """Upgrade a share of the agents at `level` by one strategy while they fit; returns the bits left."""
    step = 0 if memory.shape[0] == 1 else 1
    credit = 0.0
    for i in range(len(choices)):
        if choices[i] != level:
            continue
        cost = memory[i * step, level + 1] - memory[i * step, level]
        credit += share * cost
        if 2 * credit >= cost and cost <= slack:
            choices[i] = level + 1
            slack -= cost
            credit -= cost
    return slack
