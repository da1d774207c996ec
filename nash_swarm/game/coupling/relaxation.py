"""A lower bound on the damage of every profile of a coupled game that fits the budget.

If agents may mix strategies, the problem is convex: once the agents' interaction with themselves is taken out of their
own damage, the total cost of choices x is f(x) = <l, x> + 1/2 <D(x), G D(x)>, and G is positive semi-definite. For any
sums D, whatever they come from, and F = G D, convexity gives f(y) >= <l, y> + <F, D(y)> - 1/2 <D, F> for every y; what
is linear in y is a separable game, bounded from below by its dual (`game.market`). This is the bound of Frank & Wolfe
(Naval Research Logistics Quarterly 3, 1956). A good D is that of an equilibrium in mixed strategies: at a price, agents
in turn shift probability from their worst strategy to their best one by the exact amount that lowers f most (block-
coordinate Frank-Wolfe: S. Lacoste-Julien, M. Jaggi, M. Schmidt & P. Pletscher, ICML 2013, with pairwise steps). The
memory that they demand falls with the price, so bisection finds the price that belongs to the budget.
"""

from __future__ import annotations

import math
import sys
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nash_swarm.compiling import njit
from nash_swarm.game.coupling.arena import Arena, Sums, dot
from nash_swarm.game.market import FREE, PROHIBITIVE, Clearing, clear
from nash_swarm.game.tables import Tables, readonly
from nash_swarm.sharing import over_spans

_STEPS = 40
_SWEEPS = 3
_MOST_SWEEPS = 16
_CLOSE = 1e-5
"""Relative distance of the bound from the relaxed optimum at which it is good enough."""
_WIDEN = 4.0
_REOPEN = 1e-3
"""Relative width of the bracket of prices at which it is opened again, for agents that had not settled before."""


class Relaxation(NamedTuple):
    """What the relaxed problem says.

    Attributes:
        bound: no profile that fits has less damage in total (less the possible rounding error).
        price: damage per bit at which the bound was found.
        steps: prices that were asked.
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
    extent, members = _Extent(arena), _Members.of(arena)
    linear = arena.gradient(np.zeros((len(arena.graph), arena.vectors.shape[2]))).damage
    memory = np.broadcast_to(arena.memory, linear.shape)
    start = clear(arena.tables, capacity)
    mix = np.zeros(linear.shape)
    np.put_along_axis(mix, start.narrow[:, None].astype(np.intp), 1.0, axis=1)
    best = _bound(arena, extent, np.zeros((len(arena.graph), arena.vectors.shape[2])), capacity, 0)
    price, low, high, sweeps, widen = max(start.price, best.price, FREE), 0.0, math.inf, _SWEEPS, _WIDEN
    for step in range(1, _STEPS + 1):
        sums = _sums(arena, mix)
        for _ in range(sweeps):
            _turns(arena, members, linear, sums, mix, price)
        sums = _sums(arena, mix)
        found = _bound(arena, extent, sums, capacity, step)
        best = found if found.bound > best.bound else best._replace(steps=step)
        taken = float(np.einsum("is,is->", memory, mix))
        value = float(np.einsum("is,is->", linear, mix)) + 0.5 * float(np.sum(sums * (arena.graph @ sums)))
        value += price * (taken - capacity)
        if value - best.bound <= _CLOSE * abs(value) and (high <= low * 1.1 or (taken <= capacity and price <= FREE)):
            break
        low, high = (price, high) if taken > capacity else (low, price)
        if low > 0 and math.isfinite(high):
            if high <= low * (1 + _REOPEN):
                low, high, sweeps = low * (1 - 4 * _REOPEN), high * (1 + 4 * _REOPEN), min(2 * sweeps, _MOST_SWEEPS)
            price = math.sqrt(low) * math.sqrt(high)
        else:
            price = min(max(price * widen if low > 0 else price / widen, FREE), PROHIBITIVE)
            widen *= widen
    return best


def _bound(arena: Arena, extent: _Extent, sums: Sums, capacity: int, step: int) -> Relaxation:
    fields = arena.graph @ sums
    clearing, bound = _clear(arena.gradient(fields), capacity)
    bound -= 0.5 * float(np.sum(sums * fields)) + extent.rounding(sums, fields)
    return Relaxation(bound, clearing.price, step)


def _clear(tables: Tables, capacity: int) -> tuple[Clearing, float]:
    """Clear a game whose damage may be negative, and the bound on its damage; rounding here is `_Extent`'s matter."""
    least = tables.damage.min(axis=1)
    clearing = clear(Tables(readonly(tables.damage - least[:, None]), tables.memory), capacity)
    return clearing, clearing.bound + math.fsum(least)


def _sums(arena: Arena, mix: npt.NDArray[np.float64]) -> Sums:
    """Each community's sum of the vectors its agents play on average."""
    shape = (len(arena.graph), arena.vectors.shape[2])

    def part(start: int, stop: int) -> Sums:
        out = np.zeros(shape)
        _mean_sums(arena.vectors, arena.community, mix, start, stop, out)
        return out

    return np.sum(over_spans(part, arena.agents), axis=0)


class _Members(NamedTuple):
    """Who belongs to each community: agents[starts[c] : starts[c + 1]]."""

    agents: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, arena: Arena) -> _Members:
        """The members of `arena`'s communities, in agent order."""
        counts = np.bincount(arena.community, minlength=len(arena.graph))
        return cls(np.argsort(arena.community, kind="stable"), np.append(0, np.cumsum(counts)))


class _Extent:
    """How large the numbers are that a bound is computed from, and so how far rounding can be off."""

    def __init__(self, arena: Arena) -> None:
        count, rank = len(arena.graph), arena.vectors.shape[2]
        squares = np.einsum("isk,isk->is", arena.vectors, arena.vectors, dtype=np.float64).max(axis=1)
        self.damage = float(np.abs(arena.damage).max(axis=1).sum(dtype=np.float64))
        self.reach = np.bincount(arena.community, np.sqrt(squares), count)
        self.own = float(np.abs(np.diag(arena.graph)) @ np.bincount(arena.community, squares, count))
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
def _mean_sums(vectors, community, mix, start, stop, out):  # type: ignore[no-untyped-def]
    for i in range(start, stop):
        for s in range(vectors.shape[1]):
            if mix[i, s] > 0:
                for k in range(vectors.shape[2]):
                    out[community[i], k] += mix[i, s] * vectors[i, s, k]


@njit(nogil=True, cache=True)
def _turns(arena, members, linear, sums, mix, price):  # type: ignore[no-untyped-def]
    """One turn of every agent, community by community; `mix` and `sums` are kept up."""
    _, memory, vectors, _, graph = arena
    strategies, rank = vectors.shape[1], vectors.shape[2]
    field, shift, slope = np.empty(rank), np.empty(rank), np.empty(strategies)
    for c in range(len(graph)):
        field[:] = 0.0
        for other in range(len(graph)):
            for k in range(rank):
                field[k] += graph[c, other] * sums[other, k]
        for at in range(members.starts[c], members.starts[c + 1]):
            i = members.agents[at]
            row = i if memory.shape[0] > 1 else 0
            for s in range(strategies):
                slope[s] = linear[i, s] + dot(vectors[i, s], field) + price * (memory[row, s] - memory[row, 0])
            for _ in range(strategies):
                give = -1
                take = 0
                for s in range(strategies):
                    if mix[i, s] > 0 and (give < 0 or slope[s] > slope[give]):
                        give = s
                    if slope[s] < slope[take]:
                        take = s
                fall = slope[give] - slope[take]
                if fall <= 0:
                    break
                for k in range(rank):
                    shift[k] = np.float64(vectors[i, take, k]) - np.float64(vectors[i, give, k])
                bend = graph[c, c] * dot(shift, shift)
                amount = mix[i, give]
                if bend * amount > fall:
                    amount = fall / bend
                    mix[i, give] -= amount
                else:
                    mix[i, give] = 0.0
                mix[i, take] += amount
                for k in range(rank):
                    sums[c, k] += amount * shift[k]
                    field[k] += amount * graph[c, c] * shift[k]
                for s in range(strategies):
                    slope[s] += amount * graph[c, c] * dot(vectors[i, s], shift)
