"""The best trade of bits between two coupled agents.

If agent i changes by the vector a and agent j by b, the total cost falls by their two gains less graph[C_i, C_j]
<a, b>. The graph is positive semi-definite, so that product is at least -(g_ii |a|^2 + g_jj |b|^2) / 2: a move's limit,
its gain plus g_ii |a|^2 / 2 less the price of its bits, bounds what it can contribute to any trade. Only moves whose
limit suffices together with the best one of the other side can be part of the best trade. If those are few enough, all
their pairs are looked at and the best trade is exact; if not, those of the largest limits are, and the result says so.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nash_swarm.compiling import njit
from nash_swarm.game.coupling.arena import NOISE, Arena, dot
from nash_swarm.game.exchange import Exchange, best_exchange
from nash_swarm.game.profiles import pick
from nash_swarm.sharing import over_spans

MOST = 1 << 11
"""Moves looked at on each side of a trade unless told otherwise."""

Moves = tuple[tuple[int, int], ...]


class _Side(NamedTuple):
    """Moves that give or that take bits, the largest limit first."""

    agent: npt.NDArray[np.int64]
    strategy: npt.NDArray[np.int64]
    bits: npt.NDArray[np.int64]
    gain: npt.NDArray[np.float64]
    limit: npt.NDArray[np.float64]
    change: npt.NDArray[np.float64]
    community: npt.NDArray[np.int32]


def best_coupled_exchange(
    arena: Arena, choices: npt.NDArray[np.uint8], slack: int, price: float, most: int = MOST
) -> Exchange:
    """The trade that lowers the total cost most while taking at most `slack` bits more.

    If it is not exact, single changes are all the same, but pairs were looked for only among the changes
    of the largest limits on each side, and in the best pair of agents that are taken as not coupled.

    Args:
        arena: the game.
        choices: uint8 (agents,), the profile to improve on; unchanged.
        slack: bits of the capacity that the profile leaves.
        price: damage per bit by which limits are compared; where the result is exact it does not depend on it.
        most: changes looked at on each side.
    """
    seen = arena.marginal(choices)
    bits = seen.memory - pick(np.broadcast_to(seen.memory, seen.damage.shape), choices)[:, None]
    now = pick(seen.damage, choices).astype(np.float64)
    gain = now[:, None] - seen.damage
    limit = _limits(arena, choices, gain, bits, price)
    alone = int(np.where(bits <= slack, gain, -np.inf).argmax())
    best = max(0.0, float(gain.flat[alone]))
    moves: Moves = (divmod(alone, gain.shape[1]),)
    apart = best_exchange(seen, choices, slack).moves
    if len(apart) == 2 and (together := _together(arena, choices, gain, apart)) > best:
        best, moves = together, apart
    down, up = (np.where(side, limit, -np.inf) for side in (bits < 0, bits > 0))
    need = best - price * slack
    # rounding of a limit must not exclude a move
    need -= 1e-9 * (abs(best) + price * slack + abs(float(down.max())) + abs(float(up.max())))
    sides, exact = [], True
    for own, other in ((down, up), (up, down)):
        found = np.flatnonzero(own.ravel() > need - float(other.max()))
        exact &= len(found) <= most
        found = found[np.argsort(-own.flat[found], kind="stable")[:most]]
        agent, strategy = np.divmod(found, gain.shape[1])
        change = arena.vectors[agent, strategy].astype(np.float64) - arena.vectors[agent, choices[agent]]
        numbers = (np.broadcast_to(bits, gain.shape).flat[found], gain.flat[found], own.flat[found])
        sides.append(_Side(agent, strategy, *numbers, change, arena.community[agent]))
    pair_gain, i, j = _pairs(sides[0], sides[1], arena.graph, slack, price, best)
    if pair_gain > best:
        best = pair_gain
        moves = tuple((int(side.agent[k]), int(side.strategy[k])) for side, k in zip(sides, (i, j), strict=True))
    if best <= NOISE * float(np.abs(now).sum()):
        best, moves = 0.0, ()
    return Exchange(best, moves, bool(exact))


def _together(arena: Arena, choices: npt.NDArray[np.uint8], gain: npt.NDArray[np.float64], moves: Moves) -> float:
    """The gain of two moves at once."""
    (i, s), (j, t) = moves
    one, other = (arena.vectors[a, b].astype(np.float64) - arena.vectors[a, choices[a]] for a, b in moves)
    return float(gain[i, s] + gain[j, t] - arena.graph[arena.community[i], arena.community[j]] * (one @ other))


def _limits(
    arena: Arena,
    choices: npt.NDArray[np.uint8],
    gain: npt.NDArray[np.float64],
    bits: npt.NDArray[np.int64],
    price: float,
) -> npt.NDArray[np.float64]:
    limit = gain - price * bits
    over_spans(
        lambda start, stop: _add_squares(arena.vectors, arena.community, arena.graph, choices, start, stop, limit),
        arena.agents,
    )
    return limit


@njit(nogil=True, cache=True)
def _add_squares(vectors, community, graph, choices, start, stop, limit):  # type: ignore[no-untyped-def]
    change = np.empty(vectors.shape[2])
    for i in range(start, stop):
        half = 0.5 * graph[community[i], community[i]]
        for s in range(vectors.shape[1]):
            for k in range(len(change)):
                change[k] = np.float64(vectors[i, s, k]) - np.float64(vectors[i, choices[i], k])
            limit[i, s] += half * dot(change, change)


@njit(nogil=True, cache=True)
def _pairs(down, up, graph, slack, price, best):  # type: ignore[no-untyped-def]
    """The best pair of a giver's and a taker's move that fits and gains more than `best`."""
    giver = -1
    taker = -1
    for i in range(len(down.agent)):
        for j in range(len(up.agent)):
            if down.limit[i] + up.limit[j] + price * slack <= best:
                break
            if down.agent[i] == up.agent[j] or down.bits[i] + up.bits[j] > slack:
                continue
            weight = graph[down.community[i], up.community[j]]
            value = down.gain[i] + up.gain[j] - weight * dot(down.change[i], up.change[j])
            if value > best:
                best = value
                giver = i
                taker = j
    return best, giver, taker
