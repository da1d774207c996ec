"""Trades between two agents until none helps: the end game of a market that can only sell whole steps."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt

from nash_swarm.compiling import njit
from nash_swarm.game.demand import totals
from nash_swarm.game.exchange import best_exchange
from nash_swarm.game.tables import Tables
from nash_swarm.sharing import over_spans

_POOL = 1 << 14
"""Agents a round of trades is played among."""


def trade(tables: Tables, choices: npt.NDArray[np.uint8], capacity: int, price: float, most: int) -> int:
    """Make the best trade between two agents (or change of one) again and again, until none lowers the damage.

    At a price, a move's surplus is the damage it saves less the price of the bits it takes. A trade helps only if its
    surpluses sum to more than minus the price of the bits left, so agents with no surplus near 0 need not be looked at.
    Rounds of trades are played among the agents with the largest surpluses, until a round finds nothing.

    Args:
        tables: the game.
        choices: uint8 (agents,), within the capacity; changed in place, never to a larger total damage.
        capacity: bits the agents may share.
        price: damage per bit near which the market cleared.
        most: trades after which to stop.

    Returns:
        Trades made.
    """
    slack = capacity - totals(tables, choices).memory
    made = 0
    while made < most:
        surplus = np.empty(tables.agents, np.float32)
        over_spans(partial(_surplus, *tables, choices, price, surplus), tables.agents)
        pool = _largest(surplus, -price * slack - max(0.0, float(surplus.max())))
        if not len(pool):
            break
        some, own = tables.take(pool), choices[pool]
        before = made
        while made < most:
            gain, moves = best_exchange(some, own, slack)
            if gain <= 0:
                break
            for agent, strategy in moves:
                row = some.memory[0 if some.shared else agent]
                slack -= int(row[strategy] - row[own[agent]])
                own[agent] = strategy
            made += 1
        choices[pool] = own
        if made == before:
            break
    return made


def _largest(surplus: npt.NDArray[np.float32], least: float) -> npt.NDArray[np.int64]:
    if len(surplus) <= _POOL:
        return np.arange(len(surplus))
    edge = np.partition(surplus, len(surplus) - _POOL)[len(surplus) - _POOL]
    # float32 rounding of the surplus must not exclude an agent at the edge
    pool = np.flatnonzero(surplus >= max(float(edge), least - abs(least) * 1e-6))
    return pool[np.argsort(-surplus[pool], kind="stable")[:_POOL]] if len(pool) > _POOL else pool


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
