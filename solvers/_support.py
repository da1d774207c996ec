"""The price at which a profile of choices is closest to an equilibrium."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numba import njit

from nash_swarm.game.demand import regret
from nash_swarm.game.spans import over_spans
from nash_swarm.game.tables import Tables

_STEPS = 80


def supporting_price(tables: Tables, choices: npt.NDArray[np.uint8], near: float) -> float:
    """The price, as near to `near` as can be, at which the largest regret of any agent is smallest.

    Every agent is content within an interval of prices. If all intervals share one, the profile is an equilibrium at
    any price in it. If not, the largest regret is a convex function of the price, and its minimum lies between the
    dearest price that somebody needs and the cheapest that somebody needs; it is found by ternary search among the
    agents that are not content everywhere in between.
    """
    needs = np.empty((tables.agents, 2), np.float32)
    spans = over_spans(lambda start, stop: _interval(*tables, start, stop, choices, needs), tables.agents)
    floor, ceiling = max(low for low, _ in spans), min(high for _, high in spans)
    if floor <= ceiling:
        return min(max(near, floor), ceiling)
    # float32 rounds by less than this; a few agents too many do no harm
    torn = np.flatnonzero((needs[:, 0] > ceiling * (1 - 1e-6)) | (needs[:, 1] < floor * (1 + 1e-6)))
    some, own = tables.take(torn), choices[torn]
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
def _interval(damage, memory, start, stop, choices, needs):  # type: ignore[no-untyped-def]
    """Each agent's cheapest and dearest price at which it is content; returns the largest and the smallest of them."""
    step = 0 if memory.shape[0] == 1 else 1
    floor = 0.0
    ceiling = np.inf
    for i in range(start, stop):
        row = i * step
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
        needs[i, 0] = low
        needs[i, 1] = high
        floor = max(floor, low)
        ceiling = min(ceiling, high)
    return floor, ceiling
