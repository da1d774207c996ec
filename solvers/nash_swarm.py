"""A swarm explores, best response brings what it found to an equilibrium, trades end it."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from nash_swarm.errors import UsageError
from nash_swarm.game.bitgame import BitGame
from nash_swarm.game.demand import Point
from nash_swarm.solvers._market import Start, finish, play_market
from nash_swarm.solvers._swarm import explore, fit
from nash_swarm.solvers.base import Callback, Play, Progress, Solver, ignore_progress, part_of
from nash_swarm.solvers.lagrangian import Lagrangian
from nash_swarm.solvers.nash import Nash
from nash_swarm.solvers.swarm import Swarm
from nash_swarm.solvers.toolbox import interaction_of

_FIRST, _EXPLORED = 0.2, 0.65
"""Shares of the time that have passed, about, when `nash` has played and when the particles have."""


@dataclass(frozen=True)
class NashSwarm(Solver):
    """Equilibria from many starting points: a swarm where it is rough, Nash where it is steep.

    A coupled game has many equilibria, and which one `nash` ends in depends on where it starts. Here a swarm (see
    `Swarm`) looks for starting points; from the best of its particles agents play best responses until the market
    clears, what is left is filled, and agents trade (see `Nash`, whose proof of termination holds here). `nash` from
    its own starting point, `swarm`'s best particle and the solution of `lagrangian`, both traded, compete as well: with
    the same seed and settings the result is never worse than theirs. Memetic algorithms combine exploration and descent
    in this way (P. Moscato 1989).

    Without coupling there is one equilibrium at each price and nothing to explore; then the better one of `nash` and
    `lagrangian` is the result, and no particle flies.

    Attributes:
        particles: profiles that explore.
        rounds: turns of every agent in every particle.
        descents: particles from which agents play to an equilibrium.
        max_sweeps: turns per agent at one price.
        max_trades: trades between agents at the end of each descent.
    """

    name: ClassVar[str] = "nash-swarm"
    summary: ClassVar[str] = "a swarm looks for starting points, best response and trades go on from the best of them"

    particles: int = 8
    rounds: int = 20
    descents: int = 3
    max_sweeps: int = 64
    max_trades: int = 1000

    def __post_init__(self) -> None:
        if min(self.particles, self.rounds, self.descents, self.max_sweeps) < 1 or self.max_trades < 0:
            raise UsageError("nash-swarm: all settings must be positive, max_trades not negative")

    def play(
        self,
        game: BitGame,
        capacity: int,
        *,
        rng: np.random.Generator,
        callback: Callback,
        progress: Progress = ignore_progress,
    ) -> Play:
        """See `Solver.play`; where particles start, how they are drawn and who moves first is random."""
        trace: list[Mapping[str, float]] = []

        def tell(record: Mapping[str, float]) -> None:
            trace.append(record)
            callback(record)

        def record(point: Point, more: Mapping[str, float]) -> None:
            tell({"price": point.price, "memory": float(point.memory), "damage": point.damage, **more})

        # each gets the numbers that a run of its own would get, so this is no worse than any of them at one seed
        nash = Nash(max_sweeps=self.max_sweeps, max_trades=self.max_trades)
        plays = [solver.play(game, capacity, rng=deepcopy(rng), callback=tell) for solver in (nash, Lagrangian())]
        seen = interaction_of(game)
        if not seen.additive:
            flight = Swarm(particles=self.particles, rounds=self.rounds).flight
            progress(_FIRST)
            found = explore(game, capacity, flight, deepcopy(rng), record, part_of(progress, _FIRST, _EXPLORED))
            progress(_EXPLORED)
            starts = [Start(plays[1].choices, plays[0].price or 0.0), Start(found[0].choices, found[0].price)]
            plays += [
                finish(seen, capacity, fit(seen, start.choices, capacity), start.price, self.max_trades, record)
                for start in starts
            ]
            descend = part_of(progress, _EXPLORED, 1.0)
            for number, particle in enumerate(found[: self.descents], 1):
                start = Start(particle.choices, particle.price)
                plays.append(play_market(seen, capacity, nash.dynamics, rng, record, start))
                descend(number / self.descents)
        damage, _, best = min((seen.total(play.choices).damage, place, play) for place, play in enumerate(plays))
        tell({"price": best.price or 0.0, "damage": damage})
        return Play(best.choices, best.price, tuple(trace))
