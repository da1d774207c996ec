"""The price at which a profile of choices is closest to an equilibrium."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from nash_swarm.compiling import njit
from nash_swarm.game.demand import regret
from nash_swarm.game.tables import Tables
from nash_swarm.sharing import over_spans

_STEPS = 80


def supporting_price(tables: Tables, choices: npt.NDArray[np.uint8], near: float) -> float:
    """The price, as near to `near` as can be, at which the largest regret of any agent is smallest.

    Every agent's choice is its best one within an interval of prices. If all intervals share one, the profile is an
    equilibrium at any price in it. If not, the largest regret is a convex function of the price, and its minimum lies
    between the dearest price that some agent needs and the cheapest that some agent needs; it is found by ternary
    search among the agents whose interval does not hold all prices in between.
    """
    spans = over_spans(lambda start, stop: _interval(*tables, start, stop, choices), tables.agents)
    floor, ceiling = max(low for low, _ in spans), min(high for _, high in spans)
    if floor <= ceiling:
        return min(max(near, floor), ceiling)
    found = over_spans(lambda start, stop: _affected(*tables, start, stop, choices, floor, ceiling), tables.agents)
    affected = np.concatenate(found)
    some, own = tables.take(affected), choices[affected]
    low, high = ceiling, floor
    for _ in range(_STEPS):
        third = (high - low) / 3
        if regret(some, own, low + third) <= regret(some, own, high - third):
            high -= third
        else:
            low += third
    middle = low + (high - low) / 2
    return middle if math.isfinite(middle) else near


@njit(nogil=True, cache=True)
def _range(damage, memory, choices, i):  # type: ignore[no-untyped-def]
    """Agent i's cheapest and dearest price at which its choice is the best one."""
    row = i if memory.shape[0] > 1 else 0
    now = choices[i]
    low = 0.0
    high = np.inf
    for s in range(damage.shape[1]):
        bits = memory[row, s] - memory[row, now]
        gain = np.float64(damage[i, now]) - np.float64(damage[i, s])
        if bits > 0:
            low = max(low, gain / bits)
        elif bits < 0:
            high = min(high, gain / bits)
    return low, high


@njit(nogil=True, cache=True)
def _interval(damage, memory, start, stop, choices):  # type: ignore[no-untyped-def]
    """The largest of the agents' cheapest prices, and the smallest of their dearest."""
    floor = 0.0
    ceiling = np.inf
    for i in range(start, stop):
        low, high = _range(damage, memory, choices, i)
        floor = max(floor, low)
        ceiling = min(ceiling, high)
    return floor, ceiling


@njit(nogil=True, cache=True)
def _affected(damage, memory, start, stop, choices, floor, ceiling):  # type: ignore[no-untyped-def]
    """Agents whose interval does not hold all prices between `ceiling` and `floor`."""
    out = np.empty(64, np.int64)
    found = 0
    for i in range(start, stop):
        low, high = _range(damage, memory, choices, i)
        if low > ceiling or high < floor:
            if found == len(out):
                wider = np.empty(2 * found, np.int64)
                wider[:found] = out
                out = wider
            out[found] = i
            found += 1
    return out[:found].copy()
