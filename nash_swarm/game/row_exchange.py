"""The best trade of bits between two agents that are coupled along rows.

Two agents that are no neighbours gain by a trade what both gain alone, as if nobody were coupled (`game.exchange`).
Pairs of neighbours are few, two an agent, and are all looked at.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nash_swarm.compiling import njit
from nash_swarm.game.bitgame import pick
from nash_swarm.game.exchange import Exchange, Offers, best_of, span_offers
from nash_swarm.game.interaction import Choices
from nash_swarm.game.rows import Patch, Rows, effective_of, error_of

_FEW = 1 << 8
"""Agents whose pairs are all looked at if the best pair of apparent strangers turns out to be one of neighbours."""


class RowExchange(NamedTuple):
    """The best trade found.

    Attributes:
        gain: fall of the total cost, in nats per token; 0 if no trade that lowers it was found.
        moves: (agent, new strategy index) of the one or two agents that change.
        exact: there is no better one; always so among few agents.
    """

    gain: float
    moves: tuple[tuple[int, int], ...]
    exact: bool


def best_row_exchange(rows: Rows, choices: Choices, slack: int) -> RowExchange:
    """The trade that lowers the total cost most while taking at most `slack` bits more.

    Args:
        rows: the game.
        choices: uint8 (agents,), the profile to improve on; unchanged.
        slack: bits of the capacity that the profile leaves.
    """

    def look(part: Patch) -> tuple[Offers, Exchange]:
        own = choices[part.span]
        seen = effective_of(part, own)
        gain, agent, one, other = _beside(part, own, seen.damage, slack)
        moves = ((part.start + agent, one), (part.start + agent + 1, other)) if gain > 0 else ()
        return span_offers(seen, own, slack, 0, len(own)).shifted(part.start), Exchange(gain, moves)

    offers, beside = zip(*rows.over_rows(look), strict=True)
    single = max(offers, key=lambda offer: offer.gain)
    alone = Exchange(single.gain, (divmod(single.alone, 256),) if single.gain > 0 else ())
    apart, exact = best_of(offers, slack), True
    if len(apart.moves) == 2 and _neighbours(rows, *(agent for agent, _ in apart.moves)):
        exact = rows.agents <= _FEW
        apart = _strangers(rows, choices, slack) if exact else alone
    best = max((alone, apart, *beside), key=lambda trade: trade.gain)
    return RowExchange(best.gain, best.moves, exact)


def _neighbours(rows: Rows, one: int, other: int) -> bool:
    first = min(one, other)
    grid = [grid for grid in rows.stencil.grids() if grid.start <= first][-1]
    return abs(one - other) == 1 and (first - grid.start) % grid.columns < grid.columns - 1


def _strangers(rows: Rows, choices: Choices, slack: int) -> Exchange:
    """The best pair of agents that are no neighbours, from all pairs."""
    damage, memory = rows.effective(choices)
    memory = np.broadcast_to(memory, damage.shape)
    gain, bits = pick(damage, choices)[:, None] - damage, memory - pick(memory, choices)[:, None]
    (giver, down), (taker, up) = np.nonzero(bits < 0), np.nonzero(bits > 0)
    if not len(giver) or not len(taker):
        return Exchange(0.0, ())
    last = np.zeros(rows.agents, np.bool_)
    for grid in rows.stencil.grids():
        last[grid.start + grid.columns - 1 : grid.start + grid.rows * grid.columns : grid.columns] = True
    row: npt.NDArray[np.int64] = np.cumsum(last) - last
    far = (np.abs(giver[:, None] - taker) > 1) | (row[giver][:, None] != row[taker])
    fits = bits[giver, down][:, None] + bits[taker, up] <= slack
    total = np.where(far & fits, gain[giver, down][:, None] + gain[taker, up], -np.inf)
    i, j = np.unravel_index(int(total.argmax()), total.shape)
    if total[i, j] <= 0:
        return Exchange(0.0, ())
    return Exchange(float(total[i, j]), ((int(giver[i]), int(down[i])), (int(taker[j]), int(up[j]))))


@njit(nogil=True, cache=True)
def _beside(part, choices, seen, slack):  # type: ignore[no-untyped-def]
    """The best trade of an agent with the next one in its row: gain, the agent, and what both play then."""
    _, _, damage, memory, signs, correlation = part
    columns, strategies = len(correlation), damage.shape[1]
    best = 0.0
    agent = 0
    one = 0
    other = 0
    for first in range(0, len(damage), columns):
        for c in range(columns - 1):
            i = first + c
            j = i + 1
            weight = 2.0 * np.float64(correlation[c])
            here = i if memory.shape[0] > 1 else 0
            there = j if memory.shape[0] > 1 else 0
            played, beside = error_of(damage, signs, i, choices[i]), error_of(damage, signs, j, choices[j])
            for s in range(strategies):
                bits = memory[here, s] - memory[here, choices[i]]
                if bits == 0:
                    continue
                gain = seen[i, choices[i]] - seen[i, s]
                change = weight * (error_of(damage, signs, i, s) - played)
                for t in range(strategies):
                    more = memory[there, t] - memory[there, choices[j]]
                    if (bits < 0) == (more < 0) or more == 0 or bits + more > slack:
                        continue
                    both = gain + seen[j, choices[j]] - seen[j, t]
                    both -= change * (error_of(damage, signs, j, t) - beside)
                    if both > best:
                        best = both
                        agent = i
                        one = s
                        other = t
    return best, agent, one, other
