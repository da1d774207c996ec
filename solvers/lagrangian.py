"""One price for all: every agent buys the bits that are worth it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from nash_swarm.game.bitgame import BitGame
from nash_swarm.game.demand import Point
from nash_swarm.game.interaction import Separate
from nash_swarm.game.market import clear
from nash_swarm.solvers.base import Callback, Play, Solver
from nash_swarm.solvers.toolbox import never_worse, spend


@dataclass(frozen=True)
class Lagrangian(Solver):
    """Lagrangian relaxation of the budget (H. Everett 1963; Y. Shoham & A. Gersho, IEEE Trans. ASSP 36, 1988).

    At a price each agent's choice is a point of its own convex hull, and the optimum for whatever memory the choices
    take together. The price is found at which they take the budget (`game.market.clear`, exact); what is left, less
    than one agent's step, is filled with the best upgrades per bit, unless it is worth less than the rounding of the
    damage (`solvers.toolbox.immaterial`). The loss against the optimum is therefore at most about one agent's step: see
    the certificate's gap. A few passes over the tables, O(agents * strategies).

    Coupling is ignored when choosing.
    """

    name: ClassVar[str] = "lagrangian"
    summary: ClassVar[str] = "one price for all, found by bisection; optimal up to the last agent"
    separable: ClassVar[bool] = True

    def play(self, game: BitGame, capacity: int, *, rng: np.random.Generator, callback: Callback) -> Play:
        """See `Solver.play`; nothing is random."""
        seen = Separate.of(game)
        trace: list[dict[str, float]] = []

        def record(point: Point) -> None:
            trace.append({"price": point.price, "memory": float(point.memory), "damage": point.damage})
            callback(trace[-1])

        clearing = clear(seen.tables, capacity, record)
        choices = clearing.narrow.copy()
        spend(seen, choices, clearing.wide, clearing.price, capacity)
        choices = never_worse(seen, capacity, choices)
        record(seen.total(choices, clearing.price))
        return Play(choices, clearing.price, tuple(trace))
