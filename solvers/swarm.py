"""Particles explore the game by rules that only look at neighbours; the best one wins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from nash_swarm.errors import UsageError
from nash_swarm.game.bitgame import BitGame
from nash_swarm.game.demand import Point
from nash_swarm.solvers._flight import Flight
from nash_swarm.solvers._market import finish
from nash_swarm.solvers._swarm import explore, fit
from nash_swarm.solvers.base import Callback, Play, Progress, Solver, ignore_progress
from nash_swarm.solvers.toolbox import interaction_of


@dataclass(frozen=True)
class Swarm(Solver):
    """A particle swarm whose particles play by local rules on the layer-neighbourhood graph.

    A particle is a profile and, for every community, an estimate of the price. In each round

    - **alignment**: communities average their estimates with their neighbours' (consensus: R. Olfati-Saber & R. Murray,
      IEEE Trans. Automatic Control 49, 2004; C. Reynolds, "Flocks, herds and schools", SIGGRAPH 1987, for the three
      rules), having been drawn to where this particle and the whole swarm did best (J. Kennedy & R. Eberhart,
      "Particle swarm optimization", ICNN 1995, with the inertia weight of Y. Shi & R. Eberhart 1998);
    - **cohesion**: agents respond to their community's price in the field of its neighbours; a few imitate the swarm's
      best profile instead;
    - **separation**: communities agree by dynamic consensus (M. Zhu & S. Martinez, Automatica 46, 2010) on how crowded
      the budget is, and the price rises with congestion (F. Kelly, A. Maulloo & D. Tan 1998);
    - **repair**: what is too much is given back, least harm per bit first, and what is left is spent.

    Nothing is proven about where this ends; its certificate says how good the result is. In one round every particle
    takes O(agents * strategies * rank + communities^2).

    Attributes:
        particles: profiles that explore.
        rounds: turns of every agent in every particle.
        spread: standard deviation of the logarithms of the prices that communities start from.
        momentum: share of a price's velocity that it keeps.
        attraction: most of the way to its own and to the swarm's best prices that a price moves.
        imitation: probability that an agent plays what it does in the swarm's best profile.
        max_trades: trades between agents at the end.
    """

    name: ClassVar[str] = "swarm"
    summary: ClassVar[str] = "particles that agree on prices with their neighbours, respond, and share the budget"

    particles: int = 8
    rounds: int = 20
    spread: float = 0.5
    momentum: float = 0.6
    attraction: float = 0.5
    imitation: float = 0.1
    max_trades: int = 1000

    def __post_init__(self) -> None:
        if min(self.particles, self.rounds) < 1 or self.max_trades < 0:
            raise UsageError("swarm: particles and rounds must be positive, max_trades not negative")
        if not (0 <= self.momentum < 1 and 0 <= self.attraction <= 2 and 0 <= self.imitation < 1 and self.spread >= 0):
            raise UsageError(
                "swarm: momentum and imitation must lie in [0, 1), attraction in [0, 2], spread in [0, inf)"
            )

    def play(
        self,
        game: BitGame,
        capacity: int,
        *,
        rng: np.random.Generator,
        callback: Callback,
        progress: Progress = ignore_progress,
    ) -> Play:
        """See `Solver.play`; where particles start and how they are drawn is random."""
        trace: list[dict[str, float]] = []

        def record(point: Point, more: Mapping[str, float]) -> None:
            trace.append({"price": point.price, "memory": float(point.memory), "damage": point.damage, **more})
            callback(trace[-1])

        seen = interaction_of(game)
        best = explore(game, capacity, self.flight, rng, record, progress)[0]
        play = finish(seen, capacity, fit(seen, best.choices, capacity), best.price, self.max_trades, record)
        return Play(play.choices, play.price, tuple(trace))

    @property
    def flight(self) -> Flight:
        """The settings that are about exploring."""
        return Flight(self.particles, self.rounds, self.spread, self.momentum, self.attraction, self.imitation)
