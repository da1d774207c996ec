"""What an allocation proves about itself, computed from the game alone and never taken from a solver's word."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nash_swarm.errors import DataError
from nash_swarm.game.bitgame import BitGame
from nash_swarm.game.budget import Budget


@dataclass(frozen=True)
class Certificate:
    """Checkable facts about one allocation.

    Attributes:
        budget_bits: bits allowed.
        used_bits: bits used, fixed cost included.
        price: damage per bit at which the agents were asked (lambda).
        unilateral_regret: largest gain any agent has by deviating at that price, in nats; 0 is a Nash equilibrium.
        exchange_regret: best fall of the total damage by moving bits from one agent to another inside the budget
            (one agent changes width down, one up), or by one agent alone using what is left of the budget.
        predicted_damage: the agents' damage and what their coupling adds, in nats per token.
        lower_bound: no allocation inside the budget has a smaller total (Lagrangian dual, Everett 1963; for coupled
            agents see `game.coupling.relaxation`).
        exchange_exact: whether `exchange_regret` is over all trades. In large coupled games it is over all changes of
            one agent, but only over the most hopeful pairs (see `game.coupling.exchange`).
    """

    budget_bits: int
    used_bits: int
    price: float
    unilateral_regret: float
    exchange_regret: float
    predicted_damage: float
    lower_bound: float
    exchange_exact: bool = True

    @property
    def gap(self) -> float:
        """Certified distance from the optimum of the game, relative to the lower bound's size."""
        return (self.predicted_damage - self.lower_bound) / max(abs(self.lower_bound), 1e-30)

    @property
    def fill(self) -> float:
        """Share of the budget that is used."""
        return self.used_bits / self.budget_bits


def certify(game: BitGame, budget: Budget, choices: npt.NDArray[np.uint8], price: float | None = None) -> Certificate:
    """The certificate of a profile of choices, from the game alone.

    Args:
        game: the problem.
        budget: the limit on everything written to disk.
        choices: uint8 (agents,), strategy indices.
        price: damage per bit at which regret is stated; the price of the dual bound if not given.

    Raises:
        DataError: the choices are none of this game, exceed the budget, or the price is no price.
    """
    # the kernels bring in Numba, which reading a game or a budget should not wait for
    from nash_swarm.game.demand import regret
    from nash_swarm.game.interactions import interaction_of

    if not isinstance(choices, np.ndarray) or choices.dtype != np.uint8 or choices.shape != (game.agents,):
        found = f"{choices.dtype} {choices.shape}" if isinstance(choices, np.ndarray) else type(choices).__name__
        raise DataError(f"choices must be uint8 ({game.agents},) for this game, not {found}")
    if int(choices.max()) >= len(game.strategies):
        raise DataError(f"choice {int(choices.max())} is no index into the {len(game.strategies)} strategies")
    if price is not None and not (math.isfinite(price) and price >= 0):
        raise DataError(f"a price must be finite and not negative, not {price}")
    seen = interaction_of(game)
    chosen = seen.total(choices)
    capacity = budget.total_bits - game.fixed_bits
    if chosen.memory > capacity:
        raise DataError(f"the choices take {chosen.memory + game.fixed_bits} bits of {budget.total_bits} allowed")
    bound = seen.bound(capacity)
    price = bound.price if price is None else price
    trade = seen.exchange(choices, capacity - chosen.memory, bound.price)
    return Certificate(
        budget_bits=budget.total_bits,
        used_bits=chosen.memory + game.fixed_bits,
        price=price,
        unilateral_regret=regret(seen.marginal(choices), choices, price),
        exchange_regret=trade.gain,
        predicted_damage=chosen.damage,
        lower_bound=bound.bound,
        exchange_exact=trade.exact,
    )
