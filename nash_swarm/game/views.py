"""Games as their certificates see them, one class for each way of coupling agents."""

from __future__ import annotations

from dataclasses import dataclass

from nash_swarm.game.arena import Arena
from nash_swarm.game.bitgame import BitGame
from nash_swarm.game.coupled_exchange import best_coupled_exchange
from nash_swarm.game.demand import Point, regret, totals
from nash_swarm.game.exchange import best_exchange
from nash_swarm.game.interaction import Bound, Choices, Trade, View
from nash_swarm.game.market import clear
from nash_swarm.game.relaxation import relax
from nash_swarm.game.tables import Tables


def view_of(game: BitGame) -> View:
    """`game` as its certificate sees it."""
    return SeparateView(Tables.of(game)) if game.coupling is None else game.coupling.view(game)


@dataclass(frozen=True, eq=False)
class SeparateView(View):
    """Agents that are not coupled."""

    tables: Tables

    def total(self, choices: Choices, price: float = 0.0) -> Point:
        """See `View.total`."""
        return totals(self.tables, choices, price)

    def regret(self, choices: Choices, price: float) -> float:
        """See `View.regret`."""
        return regret(self.tables, choices, price)

    def bound(self, capacity: int, price: float | None) -> Bound:
        """The dual at the clearing price."""
        clearing = clear(self.tables, capacity)
        return Bound(clearing.bound, clearing.price)

    def exchange(self, choices: Choices, slack: int, price: float) -> Trade:
        """See `View.exchange`."""
        return Trade(best_exchange(self.tables, choices, slack).gain, True)


@dataclass(frozen=True, eq=False)
class CommunityView(View):
    """Agents coupled by vectors along a graph of communities."""

    arena: Arena

    @classmethod
    def of(cls, game: BitGame) -> CommunityView:
        """The view of `game`."""
        return cls(Arena.of(game))

    def total(self, choices: Choices, price: float = 0.0) -> Point:
        """See `View.total`."""
        return self.arena.total(choices, price)

    def regret(self, choices: Choices, price: float) -> float:
        """See `View.regret`."""
        return regret(self.arena.effective(choices), choices, price)

    def bound(self, capacity: int, price: float | None) -> Bound:
        """The bound of the relaxed problem, at a price of its own."""
        found = relax(self.arena, capacity)
        return Bound(found.bound, found.price)

    def exchange(self, choices: Choices, slack: int, price: float) -> Trade:
        """See `View.exchange`."""
        found = best_coupled_exchange(self.arena, choices, slack, price)
        return Trade(found.gain, found.exact)
