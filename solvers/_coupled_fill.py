"""Spending what is left of the budget, and giving back what is too much, by what changes cost coupled agents now."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nash_swarm.compiling import njit
from nash_swarm.game.arena import Arena, Sums, dot
from nash_swarm.sharing import over_spans

_NOISE = 2.0**-40
"""A gain below this share of the terms it is the difference of is rounding of the fields."""
_STALE = 0.5
"""A change that turns out to be worth less than this share of what it promised waits for the next round."""


def fill_coupled(arena: Arena, choices: npt.NDArray[np.uint8], slack: int, rounds: int | None = None) -> int:
    """Upgrade agents, best fall of the total cost per bit first, until none that lowers it fits.

    Each round asks all agents for their best upgrade in the present fields, and makes those in order of what they
    promise; each is worth what it is worth after the ones before it, and waits if that is much less.

    Args:
        arena: the game.
        choices: uint8 (agents,), changed in place; the total cost never rises.
        slack: bits that `choices` leaves.
        rounds: rounds after which to stop although more may fit.

    Returns:
        Bits left at the end.
    """
    while rounds is None or rounds > 0:
        fields = arena.fields(choices)
        offers = _Offers.ask(arena, fields, choices, slack, give=False)
        agents = np.flatnonzero(offers.value > 0)
        if not len(agents):
            break
        least = int(offers.bits[agents].min())
        if least > 0 and len(agents) > (most := slack // least):
            agents = np.sort(agents[np.argpartition(-offers.value[agents], most - 1)[:most]])
        # of equal values (up to rounding) the large upgrades first: small ones still fit into what they leave
        agents = agents[np.lexsort((-offers.bits[agents], -offers.value[agents].astype(np.float32)))]
        slack = int(_apply(arena, fields, agents, offers.target, offers.gain, choices, slack))
        rounds = None if rounds is None else rounds - 1
    return slack


def repair_coupled(arena: Arena, choices: npt.NDArray[np.uint8], slack: int) -> int:
    """Downgrade agents, least rise of the total cost per bit given back first, until the budget holds.

    Args:
        arena: the game.
        choices: uint8 (agents,), changed in place.
        slack: bits that `choices` leaves; negative where it takes too much.

    Returns:
        Bits left at the end; not negative if the agents' cheapest strategies fit.
    """
    while slack < 0:
        offers = _Offers.ask(arena, arena.fields(choices), choices, slack, give=True)
        agents = np.flatnonzero(offers.value > -np.inf)
        if not len(agents):
            break
        agents = agents[np.argsort(-offers.value[agents], kind="stable")]
        given = np.cumsum(-offers.bits[agents])
        # no more than a part at once: what is given back changes what the rest is worth
        count = min(int(np.searchsorted(given, -slack)) + 1, max(16, len(agents) // 3))
        agents = agents[:count]
        slack += int(given[len(agents) - 1])
        choices[agents] = offers.target[agents]
    return slack


class _Offers(NamedTuple):
    """Each agent's best upgrade, or the downgrade that does least harm.

    Attributes:
        value: fall of the total cost per bit; 0 without an upgrade, minus infinity without a downgrade.
        target: strategy.
        gain: fall of the total cost.
        bits: bits taken.
    """

    value: npt.NDArray[np.float64]
    target: npt.NDArray[np.uint8]
    gain: npt.NDArray[np.float64]
    bits: npt.NDArray[np.int64]

    @classmethod
    def ask(cls, arena: Arena, fields: Sums, choices: npt.NDArray[np.uint8], slack: int, *, give: bool) -> _Offers:
        size = arena.agents
        offers = cls(np.empty(size), np.empty(size, np.uint8), np.empty(size), np.empty(size, np.int64))
        over_spans(lambda start, stop: _ask(arena, fields, choices, slack, give, start, stop, offers), size)
        return offers


@njit(nogil=True, cache=True)
def _ask(arena, fields, choices, slack, give, start, stop, offers):  # type: ignore[no-untyped-def]
    damage, memory, vectors, community, graph = arena
    rest = np.empty(fields.shape[1])
    for i in range(start, stop):
        c = community[i]
        now = choices[i]
        row = i if memory.shape[0] > 1 else 0
        for k in range(len(rest)):
            rest[k] = fields[c, k] - graph[c, c] * np.float64(vectors[i, now, k])
        pairs = dot(vectors[i, now], rest)
        suffered = np.float64(damage[i, now]) + pairs
        size = abs(np.float64(damage[i, now])) + abs(pairs)
        offers.value[i] = -np.inf if give else 0.0
        offers.target[i] = now
        for s in range(damage.shape[1]):
            bits = memory[row, s] - memory[row, now]
            if (bits >= 0) if give else (bits > slack or s == now):
                continue
            gain = suffered - np.float64(damage[i, s]) - dot(vectors[i, s], rest)
            if give:
                value = gain / -bits
            elif gain <= _NOISE * size:
                continue
            else:
                value = gain / bits if bits > 0 else np.inf
            if value > offers.value[i]:
                offers.value[i] = value
                offers.target[i] = s
                offers.gain[i] = gain
                offers.bits[i] = bits


@njit(nogil=True, cache=True)
def _apply(arena, fields, agents, target, promised, choices, slack):  # type: ignore[no-untyped-def]
    damage, memory, vectors, community, graph = arena
    change = np.empty(vectors.shape[2])
    for m in range(len(agents)):
        i = agents[m]
        s = target[i]
        now = choices[i]
        row = i if memory.shape[0] > 1 else 0
        bits = memory[row, s] - memory[row, now]
        if bits > slack:
            continue
        c = community[i]
        gain = np.float64(damage[i, now]) - np.float64(damage[i, s])
        for k in range(len(change)):
            change[k] = np.float64(vectors[i, s, k]) - np.float64(vectors[i, now, k])
            gain -= change[k] * (fields[c, k] - graph[c, c] * np.float64(vectors[i, now, k]))
        if m > 0 and gain < _STALE * promised[i]:
            continue
        choices[i] = s
        slack -= bits
        for other in range(len(graph)):
            for k in range(len(change)):
                fields[other, k] += graph[other, c] * change[k]
    return slack
