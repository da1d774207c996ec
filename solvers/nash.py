"""Agents respond to a price until nobody wants to move, and the price moves until the market clears."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from nash_swarm.errors import UsageError
from nash_swarm.game.arena import Arena
from nash_swarm.game.bitgame import BitGame
from nash_swarm.game.demand import Point, demand, totals
from nash_swarm.game.market import FREE, PROHIBITIVE, Bracket, Undecided
from nash_swarm.game.tables import Tables
from nash_swarm.solvers._coupled_market import Dynamics, play_coupled
from nash_swarm.solvers._fill import spend
from nash_swarm.solvers._local_search import trade
from nash_swarm.solvers._response import sweep
from nash_swarm.solvers._single import never_worse
from nash_swarm.solvers._support import supporting_price
from nash_swarm.solvers.base import Callback, Play, Solver


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
    (`solvers._fill.immaterial`), as it is among very many agents, it is left, and play ends in the equilibrium. The
    price returned is the one at which the largest regret of any agent is smallest.

    **With coupling** an agent's turn takes O(strategies * rank): all it needs to know of the others is its community's
    field (`game.arena`). Equilibria are then many, the memory demanded need not fall as the price rises, and there is
    no promise that the one reached is the best: see `_coupled_market`, and `nash-swarm` for more starting points. The
    budget is filled and traded by what changes cost in the fields as they are.

    Attributes:
        inertia: probability that an agent passes its turn; damps oscillation where many respond at once.
        tolerance: least gain worth moving for, relative to what the agent suffers and pays.
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
        """See `Solver.play`; the order of turns and who passes are random."""
        tables = Tables.of(game)
        trace: list[dict[str, float]] = []

        def record(point: Point, play: Mapping[str, float]) -> None:
            trace.append({"price": point.price, "memory": float(point.memory), "damage": point.damage, **play})
            callback(trace[-1])

        if game.coupling is not None:
            play = play_coupled(Arena.of(game), capacity, self.dynamics, rng, record)
            return Play(play.choices, play.price, tuple(trace))
        wide, choices = (np.empty(game.agents, np.uint8) for _ in range(2))
        low, high = demand(tables, FREE, wide), demand(tables, PROHIBITIVE, choices)
        price = 0.0
        if low.memory <= capacity:
            choices = wide
        else:
            price = self._clear(tables, Bracket(low, high, capacity), choices, wide, rng, record)
        done = spend(tables, choices, wide, price, capacity)
        trades = 0 if done else trade(tables, choices, capacity, price, self.max_trades)
        choices = never_worse(game, capacity, choices)
        price = supporting_price(tables, choices, price)
        record(totals(tables, choices, price), {"trades": float(trades)})
        return Play(choices, price, tuple(trace))

    @property
    def dynamics(self) -> Dynamics:
        """How coupled agents respond."""
        return Dynamics(self.inertia, self.tolerance, self.max_sweeps, self.max_prices, self.max_trades)

    def _clear(
        self,
        tables: Tables,
        bracket: Bracket,
        narrow: npt.NDArray[np.uint8],
        wide: npt.NDArray[np.uint8],
        rng: np.random.Generator,
        record: Callable[[Point, Mapping[str, float]], None],
    ) -> float:
        """Play at price after price; leaves the equilibria around the clearing price in `narrow` and `wide`."""
        undecided = Undecided(tables, bracket, wide, narrow)
        work = narrow.copy()
        for _ in range(self.max_prices):
            price = bracket.propose()
            if bracket.settled:
                break
            choices = work[: undecided.tables.agents]
            sweeps = moves = 0
            while sweeps < self.max_sweeps:
                turn = sweep(undecided.tables, price, choices, rng=rng, tolerance=self.tolerance, inertia=self.inertia)
                sweeps += 1
                moves += turn.moves
                if turn.moves == turn.passed == 0:
                    break
            point = totals(undecided.tables, choices, price)
            told = {"sweeps": float(sweeps), "moves": float(moves), "unilateral_regret": turn.regret}
            record(undecided.whole(point), told)
            asked = undecided.tables
            undecided.update(point, choices)
            if undecided.tables is not asked:
                work = undecided.narrow.copy()
            if bracket.settled:
                break
        undecided.store()
        return bracket.crossing()
