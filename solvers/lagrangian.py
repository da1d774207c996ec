"""One price for all: every agent buys the bits that are worth it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from nash_swarm.game.bitgame import BitGame
from nash_swarm.game.demand import Point, totals
from nash_swarm.game.market import clear
from nash_swarm.game.tables import Tables
from nash_swarm.solvers._fill import spend
from nash_swarm.solvers._single import never_worse
from nash_swarm.solvers.base import Callback, Play, Solver


@dataclass(frozen=True)
class Lagrangian(Solver):
    """Lagrangian relaxation of the budget (H. Everett 1963; Y. Shoham & A. Gersho, IEEE Trans. ASSP 36, 1988).

    At a price each agent's choice is a point of its own convex hull, and the optimum for whatever memory the choices
    take together. The price is found at which they take the budget (`game.market.clear`, exact); what is left, less
    than one agent's step, is filled with the best upgrades per bit, unless it is worth less than the rounding of the
    damage (`solvers._fill.immaterial`). The loss against the optimum is therefore at most about one agent's step: see
    the certificate's gap. A few passes over the tables, O(agents * strategies).

    Coupling is ignored when choosing.
    """

    name: ClassVar[str] = "lagrangian"
    summary: ClassVar[str] = "one price for all, found by bisection; optimal up to the last agent"
    separable: ClassVar[bool] = True

    def play(self, game: BitGame, capacity: int, *, rng: np.random.Generator, callback: Callback) -> Play:
        """See `Solver.play`; nothing is random."""
        tables = Tables.of(game)
        trace: list[dict[str, float]] = []

        def record(point: Point) -> None:
            trace.append({"price": point.price, "memory": float(point.memory), "damage": point.damage})
            callback(trace[-1])

        clearing = clear(tables, capacity, record)
        choices = clearing.narrow.copy()
        spend(tables, choices, clearing.wide, clearing.price, capacity)
        choices = never_worse(game, capacity, choices)
        record(totals(tables, choices, clearing.price))
        return Play(choices, clearing.price, tuple(trace))
