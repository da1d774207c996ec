"""Spending what is left of the budget, and giving back what is too much, by what changes cost coupled agents now."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from nash_swarm.game.arena import Arena
from nash_swarm.game.bitgame import pick

_NOISE = 2.0**-40
"""A gain below this share of the terms it is the difference of is rounding of the fields."""
_STALE = 0.5
"""A change that turns out to be worth less than this share of what it promised waits for the next round."""


def fill_coupled(arena: Arena, choices: npt.NDArray[np.uint8], slack: int) -> int:
    """Upgrade agents, best fall of the total cost per bit first, until none that lowers it fits.

    Each round asks all agents for their best upgrade in the present fields, and makes those in order of what they
    promise; each is worth what it is worth after the ones before it, and waits if that is much less.

    Args:
        arena: the game.
        choices: uint8 (agents,), changed in place; the total cost never rises.
        slack: bits that `choices` leaves.

    Returns:
        Bits left at the end.
    """
    while True:
        gain, bits, noise = _moves(arena, choices)
        useful = (gain > noise) & (bits <= slack)
        value = np.where(useful, np.where(bits > 0, gain / np.maximum(bits, 1), np.inf), 0.0)
        target = value.argmax(axis=1)
        value = pick(value, target)
        agents = np.flatnonzero(value > 0)
        if not len(agents):
            return slack
        cost = pick(bits, target)[agents]
        agents = agents[np.lexsort((-cost, -value[agents].astype(np.float32)))]
        slack = _make(arena, agents, target, gain, choices, slack)


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
        gain, bits, _ = _moves(arena, choices)
        value = np.where(bits < 0, gain / np.where(bits < 0, -bits, 1), -np.inf)
        target = value.argmax(axis=1)
        value = pick(value, target)
        agents = np.flatnonzero(value > -np.inf)
        if not len(agents):
            break
        agents = agents[np.argsort(-value[agents], kind="stable")]
        taken = np.cumsum(-pick(bits, target)[agents])
        # no more than a part at once: what is given back changes what the rest is worth
        enough = int(np.searchsorted(taken, -slack)) + 1
        agents = agents[: min(enough, max(16, len(agents) // 8))]
        slack += int(taken[len(agents) - 1])
        choices[agents] = target[agents]
    return slack


def _moves(
    arena: Arena, choices: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Each change's fall of the total cost, the bits it takes, and below what the fall is rounding."""
    seen = arena.effective(choices)
    now = pick(seen.damage, choices)[:, None].astype(np.float64)
    memory = np.broadcast_to(seen.memory, seen.damage.shape)
    noise = _NOISE * (np.abs(now) + np.abs(seen.damage))
    return now - seen.damage, memory - pick(memory, choices)[:, None], noise


def _make(
    arena: Arena,
    agents: npt.NDArray[np.int64],
    target: npt.NDArray[np.int64],
    gain: npt.NDArray[np.float64],
    choices: npt.NDArray[np.uint8],
    slack: int,
) -> int:
    fields = arena.fields(choices)
    promised = np.take_along_axis(gain[agents], target[agents, None], axis=1)[:, 0]
    return int(_apply(arena, fields, agents, target[agents], promised, choices, slack))


@njit(nogil=True, cache=True)
def _apply(arena, fields, agents, target, promised, choices, slack):  # type: ignore[no-untyped-def]
    damage, memory, vectors, community, graph = arena
    change = np.empty(vectors.shape[2])
    for m in range(len(agents)):
        i = agents[m]
        s = target[m]
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
        if m > 0 and gain < _STALE * promised[m]:
            continue
        choices[i] = s
        slack -= bits
        for other in range(len(graph)):
            for k in range(len(change)):
                fields[other, k] += graph[other, c] * change[k]
    return slack
