"""Agents respond to a price until nobody wants to move, and the price moves until the market clears."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from nash_swarm.errors import UsageError
from nash_swarm.game.bitgame import BitGame
from nash_swarm.game.demand import Point
from nash_swarm.game.market import clear
from nash_swarm.solvers._market import Dynamics, Start, play_market
from nash_swarm.solvers.base import Callback, Play, Solver
from nash_swarm.solvers.toolbox import interaction_of


@dataclass(frozen=True)
class Nash(Solver):
    """Asynchronous best response at a price, and tatonnement of the price by bisection.

    **Why it ends.** At a fixed price lambda the utilities are u_i(s) = -c_i(s_i) - lambda * m_i(s_i), to which a
    coupling -sum_(j != i) <d_i(s_i), d_j(s_j)> may be added. Let Phi(s) = sum_i [c_i + lambda * m_i] +
    1/2 sum_(i != j) <d_i, d_j>. If agent i alone changes from a to b, every term of Phi without i stays and each pair
    with i occurs twice with a factor 1/2, so Phi(b) - Phi(a) = c_i(b) - c_i(a) + lambda * (m_i(b) - m_i(a)) +
    sum_(j != i) <d_i(b) - d_i(a), d_j> = u_i(a) - u_i(b): Phi is an exact potential (D. Monderer & L. Shapley,
    "Potential games", Games and Economic Behavior 14, 1996). Every move lowers it by the mover's gain, profiles are
    finitely many, so no profile recurs and play ends after finitely many moves (the finite improvement property), at a
    profile in which nobody gains by moving: a pure Nash equilibrium.
    Agents that pass turns at random (`inertia`) only delay this; a `tolerance` makes it an epsilon-equilibrium.

    Without coupling an agent's best response does not depend on the others, one sweep reaches the equilibrium and a
    second one verifies it; this solver then finds what `lagrangian` finds, by play.

    **The price.** Memory demanded at equilibrium does not rise with the price; the bracket of the clearing price is
    narrowed as in `game.market`, each price starting from the equilibrium of the one before. Agents that play the same
    at both ends of the bracket pass: regret at a strategy is convex in the price, so what contents an agent at both
    ends contents it between. What one whole step of an agent leaves over is filled, then traded between agents
    (pairwise exchange) until no trade helps; where it is worth less than the rounding of the damage
    (`solvers.toolbox.immaterial`), as it is among very many agents, it is left, and play ends in the equilibrium. The
    price returned is the one at which the largest regret of any agent is smallest.

    **With coupling** equilibria are many, the memory demanded need not fall as the price rises, and there is no promise
    that the one reached is the best: see `_market`, and `nash-swarm` for more starting points. Agents answer to what
    all others play, and each moves only if that still gains after the moves before its own (`game.interaction`). The
    budget is filled and traded by what changes cost at what the others play then.

    Attributes:
        inertia: probability that an agent passes its turn; damps oscillation where many respond at once.
        tolerance: least gain worth moving for, relative to what the agent costs and pays.
        max_sweeps: turns per agent at one price.
        max_prices: prices asked.
        max_trades: trades between agents at the end.
    """

    name: ClassVar[str] = "nash"
    summary: ClassVar[str] = "best-response play at a price until the market clears, then trades between agents"

    inertia: float = 0.0
    tolerance: float = 0.0
    max_sweeps: int = 64
    max_prices: int = 200
    max_trades: int = 1000

    def __post_init__(self) -> None:
        if not (0 <= self.inertia < 1 and 0 <= self.tolerance < 1):
            raise UsageError("nash: inertia and tolerance must lie in [0, 1)")
        if min(self.max_sweeps, self.max_prices) < 1 or self.max_trades < 0:
            raise UsageError("nash: max_sweeps and max_prices must be positive, max_trades not negative")

    def play(self, game: BitGame, capacity: int, *, rng: np.random.Generator, callback: Callback) -> Play:
        """See `Solver.play`; who passes is random."""
        seen = interaction_of(game)
        trace: list[dict[str, float]] = []

        def record(point: Point, play: Mapping[str, float]) -> None:
            trace.append({"price": point.price, "memory": float(point.memory), "damage": point.damage, **play})
            callback(trace[-1])

        start = None
        if not seen.additive:
            clearing = clear(seen.tables, capacity)
            start = Start(clearing.narrow, clearing.price)
        play = play_market(seen, capacity, self.dynamics, rng, record, start)
        return Play(play.choices, play.price, tuple(trace))

    @property
    def dynamics(self) -> Dynamics:
        """How agents respond."""
        return Dynamics(self.inertia, self.tolerance, self.max_sweeps, self.max_prices, self.max_trades)
