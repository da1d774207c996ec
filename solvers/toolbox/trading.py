"""Trades between two agents until none helps: the end game of a market that can only sell whole steps."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt

from nash_swarm.compiling import njit
from nash_swarm.game.interaction import Interaction
from nash_swarm.game.profiles import Choices
from nash_swarm.sharing import over_spans

_PAIRED = 1 << 8
"""Changes on each side of a trade that are paired where agents are coupled."""


def trade(game: Interaction, choices: Choices, capacity: int, price: float, most: int) -> int:
    """Make the best trade between two agents (or change of one) again and again, until none lowers the total cost.

    At a price, a move's surplus is what it saves less the price of the bits it takes. Where agents are not coupled, a
    trade helps only if its surpluses sum to more than minus the price of the bits left, so agents with no surplus near
    0 need not be looked at. Rounds of trades are made among the agents with the largest surpluses, until a round finds
    nothing; where agents are coupled, a trade between others may be missed.

    Args:
        game: the game.
        choices: uint8 (agents,), within the capacity; changed in place, never to a larger total cost.
        capacity: bits the agents may share.
        price: damage per bit near which the market cleared.
        most: trades after which to stop.

    Returns:
        Trades made.
    """
    slack = capacity - game.total(choices).memory
    made = 0
    while made < most:
        surplus = np.empty(game.agents, np.float32)
        over_spans(partial(_surplus, *game.marginal(choices), choices, price, surplus), game.agents)
        pool = _largest(surplus, -price * slack - max(0.0, float(surplus.max())), game.pool)
        if not len(pool):
            break
        some, own = game.among(pool, choices), choices[pool]
        before = made
        while made < most:
            gain, moves, _ = some.exchange(own, slack, price, _PAIRED)
            if gain <= 0:
                break
            for agent, strategy in moves:
                row = some.tables.memory[0 if some.tables.shared else agent]
                slack -= int(row[strategy] - row[own[agent]])
                own[agent] = strategy
            made += 1
        choices[pool] = own
        if made == before:
            break
    return made


def _largest(surplus: npt.NDArray[np.float32], least: float, most: int) -> npt.NDArray[np.int64]:
    """The agents with the largest surplus, at most `most` of them, and none below `least` where there are more."""
    if len(surplus) <= most:
        return np.arange(len(surplus))
    edge = np.partition(surplus, len(surplus) - most)[len(surplus) - most]
    # float32 rounding of the surplus must not exclude an agent at the edge
    pool = np.flatnonzero(surplus >= max(float(edge), least - abs(least) * 1e-6))
    return pool[np.argsort(-surplus[pool], kind="stable")[:most]] if len(pool) > most else pool


@njit(nogil=True, cache=True)
def _surplus(damage, memory, choices, price, out, start, stop):  # type: ignore[no-untyped-def]
    """The largest surplus of any change of each agent's strategy."""
    step = 0 if memory.shape[0] == 1 else 1
    for i in range(start, stop):
        row = i * step
        now = choices[i]
        best = -np.inf
        for s in range(damage.shape[1]):
            if s != now:
                gain = np.float64(damage[i, now]) - np.float64(damage[i, s])
                best = max(best, gain - price * (memory[row, s] - memory[row, now]))
        out[i] = best
