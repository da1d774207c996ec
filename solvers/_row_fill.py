"""The last steps to the whole budget among agents coupled along rows."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import numpy.typing as npt

from nash_swarm.compiling import njit
from nash_swarm.game.interaction import Choices
from nash_swarm.game.row_exchange import best_row_exchange
from nash_swarm.game.rows import NOISE, Patch, Rows, error_of, field_at, play_errors

_WORK = 1 << 22
"""Agents looked at by all trades together, about: each trade looks at everybody."""


def fill_rows(rows: Rows, choices: Choices, slack: int) -> int:
    """Upgrade agents, best fall of the total cost per bit first, until none that lowers it fits.

    Each round asks all agents for their best upgrade and makes those, in order, none of whose neighbours moved in the
    same round: what the others gain is then exactly what they were promised.

    Args:
        rows: the game.
        choices: uint8 (agents,), changed in place; the total cost never rises.
        slack: bits that `choices` leaves.

    Returns:
        Bits left at the end.
    """
    while True:
        parts = rows.over_rows(partial(_offers, choices, slack))
        agents, targets, value, bits = (np.concatenate(column) for column in zip(*parts, strict=True))
        if not len(agents):
            return slack
        least = int(bits.min())
        if least > 0 and len(agents) > (most := 4 * (slack // least)):
            best = np.argpartition(-value, most - 1)[:most]
            agents, targets, value, bits = agents[best], targets[best], value[best], bits[best]
        # of equal values (up to rounding) the large upgrades first: small ones still fit into what they leave
        order = np.lexsort((agents, -bits, -value.astype(np.float32)))
        moved: set[int] = set()
        for agent, target, taken in zip(*(column[order].tolist() for column in (agents, targets, bits)), strict=True):
            if taken <= slack and not moved & {agent - 1, agent, agent + 1}:
                choices[agent] = target
                slack -= taken
                moved.add(agent)


def trade_rows(rows: Rows, choices: Choices, slack: int, most: int) -> int:
    """Make the best trade found between two agents (or change of one) again and again, until none helps.

    Args:
        rows: the game.
        choices: uint8 (agents,), changed in place, never to a larger total cost.
        slack: bits that `choices` leaves.
        most: trades after which to stop; in large games it stops after fewer.

    Returns:
        Trades made.
    """
    made, memory = 0, rows.tables.memory
    while made < min(most, _WORK // rows.agents):
        gain, moves, _ = best_row_exchange(rows, choices, slack)
        agents = [agent for agent, _ in moves]
        if gain <= NOISE * math.fsum(float(rows.tables.damage[agent].max()) for agent in agents):
            break
        for agent, strategy in moves:
            row = memory[0 if rows.tables.shared else agent]
            slack -= int(row[strategy] - row[choices[agent]])
            choices[agent] = strategy
        made += 1
    return made


def _offers(
    everybody: Choices, slack: int, part: Patch
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8], npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Some rows' best upgrades within `slack`: agent, strategy, fall of the total cost per bit, bits."""
    choices = everybody[part.span]
    size = len(choices)
    agents, targets = np.empty(size, np.int64), np.empty(size, np.uint8)
    value, bits = np.empty(size), np.empty(size, np.int64)
    found = _upgrades(part, choices, slack, agents, targets, value, bits)
    return part.start + agents[:found], targets[:found].copy(), value[:found].copy(), bits[:found].copy()


@njit(nogil=True, cache=True)
def _upgrades(part, choices, slack, agents, targets, value, bits):  # type: ignore[no-untyped-def]
    _, _, damage, memory, signs, correlation = part
    columns = len(correlation)
    played = np.empty(columns)
    found = 0
    for first in range(0, len(damage), columns):
        play_errors(damage, signs, choices, first, played)
        for c in range(columns):
            i = first + c
            row = i if memory.shape[0] > 1 else 0
            now = choices[i]
            field = field_at(correlation, played, c)
            own = np.float64(damage[i, now])
            best = 0.0
            for s in range(damage.shape[1]):
                more = memory[row, s] - memory[row, now]
                if s == now or more > slack:
                    continue
                other = np.float64(damage[i, s])
                gain = own - other + field * (played[c] - error_of(damage, signs, i, s))
                if gain <= NOISE * (own + other + abs(field) * (math.sqrt(own) + math.sqrt(other))):
                    continue
                worth = gain / more if more > 0 else np.inf
                if worth > best:
                    best = worth
                    agents[found] = i
                    targets[found] = s
                    value[found] = worth
                    bits[found] = more
            if best > 0:
                found += 1
    return found
