"""A lower bound on the damage of every profile of a coupled game that fits the budget.

Without its integrality the problem is convex: once the agents' interaction with themselves is taken out of their own
damage, the total cost of one-hot choices x is f(x) = <l, x> + 1/2 <D(x), G D(x)>, and G is positive semi-definite.
For any sums D, whatever they come from, and F = G D, convexity gives f(y) >= <l, y> + <F, D(y)> - 1/2 <D, F> for
every y; what is linear in y is a separable game, bounded from below by its dual (`game.market`). The best D is looked
for by Frank & Wolfe's method (Naval Research Logistics Quarterly 3, 1956) in its fully corrective form, simplicial
decomposition (B. von Hohenbalken, Mathematical Programming 13, 1977): each step adds what the agents want in the
present fields at its clearing price, and then takes the best mixture of all that was added so far.
"""

from __future__ import annotations

import math
import sys
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from nash_swarm.game.arena import Arena, Sums
from nash_swarm.game.demand import totals
from nash_swarm.game.market import Clearing, clear
from nash_swarm.game.spans import over_spans
from nash_swarm.game.tables import Tables, readonly

_STEPS = 60
_CLOSE = 1e-6
"""Relative distance of the bound from the relaxed optimum at which it is good enough."""
_MIXING = 5000


class Relaxation(NamedTuple):
    """What the relaxed problem says.

    Attributes:
        bound: no profile that fits has less damage in total (less the possible rounding error).
        price: damage per bit of the budget at the relaxed optimum.
        steps: separable games that were cleared.
    """

    bound: float
    price: float
    steps: int


def relax(arena: Arena, capacity: int) -> Relaxation:
    """The bound, and the price that belongs to it.

    Args:
        arena: the game.
        capacity: bits the agents may share, at least the sum of their cheapest strategies.
    """
    extent = _Extent(arena)
    sums = np.zeros((len(arena.graph), arena.vectors.shape[2]))
    atoms: list[Sums] = []
    linear: list[float] = []
    weights = np.zeros(0)
    best = Relaxation(-math.inf, 0.0, 0)
    for step in range(1, _STEPS + 1):
        fields = arena.graph @ sums
        clearing, bound = _clear(arena.gradient(fields), capacity)
        bound -= 0.5 * float(np.sum(sums * fields)) + extent.rounding(sums, fields)
        best = Relaxation(bound, clearing.price, step) if bound > best.bound else best._replace(steps=step)
        atom, cost = _mixture(arena, clearing, capacity)
        atoms.append(atom)
        linear.append(cost)
        flat = np.array(atoms).reshape(len(atoms), -1)
        form = np.einsum("ack,cd,bdk->ab", atoms, arena.graph, atoms, optimize=True)
        weights = np.append(weights, 0.0 if weights.size else 1.0)
        value = _mix(np.array(linear), form, weights, _MIXING)
        sums = (weights @ flat).reshape(sums.shape)
        if value - best.bound <= _CLOSE * abs(value):
            break
    return best


def _clear(tables: Tables, capacity: int) -> tuple[Clearing, float]:
    """Clear a game whose damage may be negative, and the bound on its damage; rounding here is `_Extent`'s matter."""
    least = tables.damage.min(axis=1)
    clearing = clear(Tables(readonly(tables.damage - least[:, None]), tables.memory), capacity)
    return clearing, clearing.bound + math.fsum(least)


def _mixture(arena: Arena, clearing: Clearing, capacity: int) -> tuple[Sums, float]:
    """The sums and the linear cost of the mixture of the profiles around the price that takes the whole capacity."""
    ends = [(arena.sums(choices), *_linear(arena, choices)) for choices in (clearing.narrow, clearing.wide)]
    (narrow, narrow_cost, low), (wide, wide_cost, high) = ends
    share = min(1.0, (capacity - low) / (high - low)) if high > low else 0.0
    return (1 - share) * narrow + share * wide, (1 - share) * narrow_cost + share * wide_cost


def _linear(arena: Arena, choices: npt.NDArray[np.uint8]) -> tuple[float, int]:
    point = totals(arena.tables, choices)
    return point.damage - 0.5 * arena.own(choices), point.memory


class _Extent:
    """How large the numbers are that a bound is computed from, and so how far rounding can be off."""

    def __init__(self, arena: Arena) -> None:
        count, rank = len(arena.graph), arena.vectors.shape[2]
        sizes = np.zeros((count, 3))
        for part in over_spans(lambda start, stop: _sizes(*arena, start, stop), arena.agents):
            sizes += part
        self.damage, self.reach = float(sizes[:, 0].sum()), sizes[:, 1]
        self.own = float(np.abs(np.diag(arena.graph)) @ sizes[:, 2])
        self.graph = np.abs(arena.graph)
        self.epsilon = 4 * sys.float_info.epsilon * (rank + count + 16)
        values = np.linalg.eigvalsh(arena.graph)
        # a graph may be indefinite by rounding, and its eigenvalues are known up to rounding only
        self.concavity = max(0.0, -float(values[0])) + count * sys.float_info.epsilon * float(np.abs(values).max())

    def rounding(self, sums: Sums, fields: Sums) -> float:
        """The most by which the bound at `sums` may be above the true one."""
        size, field = np.linalg.norm(sums, axis=1), np.linalg.norm(fields, axis=1)
        spread = self.graph @ size
        terms = self.damage + self.own + field @ self.reach + spread @ (self.reach + size)
        return float(self.epsilon * terms + 0.5 * self.concavity * np.sum((self.reach + size) ** 2))


@njit(nogil=True, cache=True)
def _sizes(damage, memory, vectors, community, graph, start, stop):  # type: ignore[no-untyped-def]
    """For each community the sums of its agents' largest damage, vector length and squared vector length."""
    out = np.zeros((len(graph), 3))
    for i in range(start, stop):
        most = 0.0
        longest = 0.0
        for s in range(damage.shape[1]):
            most = max(most, abs(np.float64(damage[i, s])))
            square = 0.0
            for k in range(vectors.shape[2]):
                square += np.float64(vectors[i, s, k]) ** 2
            longest = max(longest, square)
        out[community[i], 0] += most
        out[community[i], 1] += np.sqrt(longest)
        out[community[i], 2] += longest
    return out


@njit(nogil=True, cache=True)
def _mix(linear, form, weights, most):  # type: ignore[no-untyped-def]
    """Minimise <linear, w> + 1/2 <w, form w> over the simplex by exact exchanges between two weights (in place)."""
    slope = linear + form @ weights
    for _ in range(most):
        give = -1
        take = 0
        for k in range(len(weights)):
            if weights[k] > 0 and (give < 0 or slope[k] > slope[give]):
                give = k
            if slope[k] < slope[take]:
                take = k
        fall = slope[give] - slope[take]
        bend = form[give, give] + form[take, take] - 2 * form[give, take]
        if fall <= 0:
            break
        amount = weights[give] if bend * weights[give] <= fall else fall / bend
        if amount == weights[give]:
            weights[give] = 0.0
        else:
            weights[give] -= amount
        weights[take] += amount
        slope += amount * (form[take] - form[give])
        if amount * fall <= 1e-15 * np.abs(slope).max():
            break
    return 0.5 * (linear + slope) @ weights
