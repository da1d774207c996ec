"""Best-response dynamics: every agent moves to the strategy that is best for it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nash_swarm.compiling import njit
from nash_swarm.game.chance import chance
from nash_swarm.game.interaction import Interaction, Prices
from nash_swarm.game.profiles import Choices
from nash_swarm.game.tables import Tables
from nash_swarm.sharing import over_spans


class Sweep(NamedTuple):
    """What one turn of every agent changed.

    Attributes:
        moves: agents that changed their strategy.
        passed: agents that would have gained but passed their turn.
        regret: largest gain of any agent's best response, in nats per token.
    """

    moves: int
    passed: int
    regret: float


def respond(
    game: Interaction,
    price: float,
    choices: Choices,
    *,
    rng: np.random.Generator,
    tolerance: float = 0.0,
    inertia: float = 0.0,
) -> Sweep:
    """Give every agent one turn; it moves to its best response if that gains more than `tolerance` of its cost.

    Best responses are those to what all others play; where agents are coupled, an agent moves only if that still gains
    after the moves before its own, those with the largest gain first. An indifferent agent stays where it is. Every
    move lowers the potential (the total cost and the price of the memory) by what the mover gains.

    Args:
        game: the game.
        price: damage per bit.
        choices: uint8 (agents,), changed in place.
        rng: decides who passes.
        tolerance: least gain worth moving for, relative to what the agent costs and pays.
        inertia: probability that an agent passes its turn.
    """
    seen, prices, seed = game.marginal(choices), np.full(1, price), int(rng.integers(1, 2**62))
    wanted, passed, regret = best_responses(seen, prices, choices, tolerance, inertia, seed)
    return Sweep(game.follow(seen, choices, wanted, prices), passed, regret)


def best_responses(
    seen: Tables, prices: Prices, choices: Choices, tolerance: float = 0.0, inertia: float = 0.0, seed: int = 0
) -> tuple[Choices, int, float]:
    """What agents would rather play while all others stay, how many pass, and the largest gain of any of them.

    Args:
        seen: marginal costs of `choices`.
        prices: damage per bit, for all or for each.
        choices: what they play.
        tolerance, inertia: see `respond`.
        seed: of who passes.
    """
    wanted = choices.copy()
    parts = over_spans(
        lambda start, stop: _turns(*seen, start, stop, prices, wanted, tolerance, inertia, seed), seen.agents
    )
    passed, regrets = zip(*parts, strict=True)
    return wanted, sum(passed), max(regrets)


@njit(nogil=True, cache=True)
def _turns(damage, memory, start, stop, prices, choices, tolerance, inertia, seed):  # type: ignore[no-untyped-def]
    step = 0 if memory.shape[0] == 1 else 1
    price_step = 0 if len(prices) == 1 else 1
    passed = 0
    worst = 0.0
    for i in range(start, stop):
        row = i * step
        price = prices[i * price_step]
        cheapest = memory[row, 0]
        now = choices[i]
        cost = np.float64(damage[i, now]) + price * (memory[row, now] - cheapest)
        best = now
        best_cost = cost
        for s in range(damage.shape[1]):
            other = np.float64(damage[i, s]) + price * (memory[row, s] - cheapest)
            if other < best_cost:
                best = s
                best_cost = other
        gain = cost - best_cost
        if gain > tolerance * abs(cost):
            worst = max(worst, gain)
            if inertia > 0 and chance(seed, i) < inertia:
                passed += 1
            else:
                choices[i] = best
    return passed, worst
