"""Trades between coupled agents until none is found that helps."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nash_swarm.game.arena import Arena
from nash_swarm.game.bitgame import pick
from nash_swarm.game.coupled_exchange import best_coupled_exchange

_POOL = 1 << 11
"""Agents a round of trades is played among."""
_MOVES = 1 << 8
"""Moves looked at on each side of a trade."""
_NOISE = 1e-12


def trade_coupled(arena: Arena, choices: npt.NDArray[np.uint8], capacity: int, price: float, most: int) -> int:
    """Make the best trade found between two agents (or change of one) again and again.

    Rounds of trades are played among the agents with the largest surplus of any change: what it saves less the price
    of the bits it takes. It ends when a round finds nothing, so a trade of agents outside of the pool may be missed.

    Args:
        arena: the game.
        choices: uint8 (agents,), within the capacity; changed in place, never to a larger total cost.
        capacity: bits the agents may share.
        price: damage per bit near which the market cleared.
        most: trades after which to stop.

    Returns:
        Trades made.
    """
    slack = capacity - arena.total(choices).memory
    made = 0
    while made < most:
        fields = arena.fields(choices)
        seen = arena.effective(choices, fields)
        surplus = _surplus(seen.damage, np.broadcast_to(seen.memory, seen.damage.shape), choices, price)
        pool = np.sort(np.argsort(-surplus, kind="stable")[:_POOL])
        some, own = arena.take(pool), choices[pool]
        before = made
        while made < most:
            gain, moves, _ = best_coupled_exchange(some, own, slack, price, fields=fields, most=_MOVES)
            if gain <= _NOISE * float(np.abs(pick(some.damage, own)).sum(dtype=np.float64)):
                break
            for agent, strategy in moves:
                row = some.memory[0 if some.tables.shared else agent]
                slack -= int(row[strategy] - row[own[agent]])
                change = some.vectors[agent, strategy].astype(np.float64) - some.vectors[agent, own[agent]]
                fields = fields + arena.graph[:, some.community[agent], None] * change
                own[agent] = strategy
            made += 1
        choices[pool] = own
        if made == before:
            break
    return made


def _surplus(
    damage: npt.NDArray[np.floating], memory: npt.NDArray[np.int64], choices: npt.NDArray[np.uint8], price: float
) -> npt.NDArray[np.float64]:
    """The largest surplus of any change of each agent's strategy."""
    cost = damage + price * (memory - memory[:, :1])
    now = pick(cost, choices)
    np.put_along_axis(cost, choices[:, None].astype(np.intp), np.inf, axis=1)
    return now - cost.min(axis=1)
