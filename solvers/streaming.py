"""The clearing price of a game that is only ever seen in chunks, and the equilibrium at it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from nash_swarm.errors import DataError
from nash_swarm.game.bitgame import BitGame
from nash_swarm.game.budget import Budget
from nash_swarm.game.certificate import Certificate
from nash_swarm.game.hull import (
    BINS,
    EVERYTHING,
    SHIFTS,
    Cell,
    Counts,
    Steps,
    count_steps,
    demand_above,
    steps_within,
    take_steps,
)
from nash_swarm.game.interaction import Separate
from nash_swarm.game.streaming import StreamedGame, certify_stream
from nash_swarm.game.tables import Tables, readonly
from nash_swarm.solvers.base import Callback, Play, Solver
from nash_swarm.solvers.toolbox import fill, immaterial, never_worse

_FEW = 1 << 16
"""Steps that may be kept in memory to be sorted."""


@dataclass(frozen=True)
class Streaming(Solver):
    """The clearing price as a quantile of critical prices, in three passes over the agents (see `play_stream`).

    The steps of the agents' convex hulls are counted by the leading bits of their prices, so the time per agent is the
    same from 10^5 to 10^9 of them, and memory beside the game is one byte an agent. The result is an equilibrium at the
    price; what it leaves, less than one agent's step, is spent only where that is worth more than the rounding of the
    damage (`solvers.toolbox.immaterial`). Games whose table does not fit into memory are played by `solve_stream`.

    Coupling is ignored when choosing.
    """

    name: ClassVar[str] = "streaming"
    summary: ClassVar[str] = (
        "the clearing price by counting, in three passes; for the largest games, one weight an agent"
    )
    separable: ClassVar[bool] = True

    def play(self, game: BitGame, capacity: int, *, rng: np.random.Generator, callback: Callback) -> Play:
        """See `Solver.play`; nothing is random."""
        found = play_stream(StreamedGame.of(game), capacity)
        assert found.price is not None
        seen, choices = Separate.of(game), found.choices
        point = seen.total(choices, found.price)
        if not immaterial(point, found.price, capacity):
            fill(seen, choices, capacity - point.memory)
        choices = never_worse(seen, capacity, choices)
        point = seen.total(choices, found.price)
        end = {"price": point.price, "memory": float(point.memory), "damage": point.damage}
        trace = (*found.trace, end)
        for record in trace:
            callback(record)
        return Play(choices, found.price, trace)


@dataclass(frozen=True, eq=False)
class StreamedAllocation:
    """What `solve_stream` found.

    Attributes:
        choices: uint8 (agents,), strategy indices.
        certificate: what can be proven about them.
        passes: times that the damage of all agents was read, that of the certificate included.
    """

    choices: npt.NDArray[np.uint8]
    certificate: Certificate
    passes: int


def solve_stream(game: StreamedGame, budget: Budget, out: npt.NDArray[np.uint8] | None = None) -> StreamedAllocation:
    """Allocate the budget among the agents of a streamed game; certify the result.

    Args:
        game: the problem.
        budget: the limit on everything written to disk.
        out: where to write the choices, uint8 (agents,), for instance a `numpy.memmap`; a new array if not given.

    Raises:
        BudgetError: the budget is too small for the game; names the smallest feasible one.
        DataError: damage is negative, infinite or NaN, or `out` is no such array.
    """
    play = play_stream(game, game.capacity(budget), out)
    assert play.price is not None
    certificate = certify_stream(game, budget, play.choices, play.price)
    return StreamedAllocation(play.choices, certificate, len(play.trace) + 1)


def play_stream(game: StreamedGame, capacity: int, out: npt.NDArray[np.uint8] | None = None) -> Play:
    """Choose a strategy for every agent so that their memory sums to at most `capacity` bits.

    The clearing price is a weighted quantile of the agents' critical prices (`game.hull`), found digit by digit, one
    pass a digit: after two passes it is known to 2^-21 of itself, and few steps are that close to it. The next pass
    writes the choices and collects these steps; they are sorted and taken while they fit. Where very many steps have
    exactly one price, they are taken in the order of agents. Memory is constant but for the answer.

    Nobody is indifferent but at the price, so the result is an equilibrium at it: unilateral regret 0, whatever the
    game. What is left of the budget is less than one step of one agent, and the damage above the dual bound is the
    price of these bits; they are not spent on steps that no price supports.

    Args:
        game: the problem.
        capacity: bits the agents may share, at least the sum of their cheapest strategies.
        out: see `solve_stream`.

    Returns:
        The choices, the clearing price, and a record for each pass: steps still to be told apart.
    """
    choices = np.empty(game.agents, np.uint8) if out is None else out
    if choices.dtype != np.uint8 or choices.shape != (game.agents,):
        raise DataError(f"out must be uint8 ({game.agents},), not {choices.dtype} {choices.shape}")
    need = capacity - (game.smallest_bits() - game.fixed_bits)
    cell, trace = EVERYTHING, []
    for shift in SHIFTS:
        counts = _count(game, cell, shift)
        trace.append({"steps": float(counts[:, 1].sum())})
        wanted = np.cumsum(counts[::-1, 0])[::-1]
        if wanted[0] <= need:  # only possible in the first pass
            _write(game, Cell(-1, 63), choices, (0, 0))
            return Play(choices, 0.0, (*trace, {"steps": 0.0}))
        digit = int(np.flatnonzero(wanted > need)[-1])
        need -= int(wanted[digit] - counts[digit, 0])
        cell = Cell(cell.prefix << (cell.shift - shift) | digit, shift)
        if counts[digit, 1] <= _FEW:
            break
    collect = 0, game.agents
    if counts[digit, 1] > _FEW:
        sizes = game.over_chunks(lambda tables, start, stop: (stop, _bits_at(tables, cell)))
        ends, bits = (np.array(column) for column in zip(*sizes, strict=True))
        trace.append({"steps": float(counts[digit, 1])})
        before = np.cumsum(bits) - bits
        boundary = int(np.flatnonzero(before <= need)[-1])
        need -= int(before[boundary])
        collect = int(ends[boundary - 1]) if boundary else 0, int(ends[boundary])
    steps = _write(game, cell, choices, collect)
    trace.append({"steps": float(len(steps.agent))})
    order = np.argsort(-steps.price, kind="stable")
    price, _ = take_steps(steps.take(order), readonly(game.memory), choices, need)
    return Play(choices, float(price), tuple(trace))


def _count(game: StreamedGame, cell: Cell, shift: int) -> Counts:
    """Steps in `cell` by the digit that ends at `shift`, of all agents; each thread counts for itself."""
    own = threading.local()
    every: list[Counts] = []

    def count(tables: Tables, start: int, stop: int) -> None:
        if not hasattr(own, "counts"):
            own.counts = np.zeros((BINS, 2), np.int64)
            every.append(own.counts)
        count_steps(tables, cell, shift, own.counts)

    game.over_chunks(count)
    return np.sum(every, axis=0)


def _bits_at(tables: Tables, cell: Cell) -> int:
    """Bits of the steps in a cell that is a single price."""
    counts = np.zeros((BINS, 2), np.int64)
    count_steps(tables, cell, cell.shift, counts)
    return int(counts[:, 0].sum())


def _write(game: StreamedGame, cell: Cell, choices: npt.NDArray[np.uint8], collect: tuple[int, int]) -> Steps:
    """Write what agents take above `cell`, and in it too before `collect`; the steps in it within `collect`."""

    def write(tables: Tables, start: int, stop: int) -> Steps:
        part = np.asarray(choices[start:stop])
        if collect[0] <= start < collect[1]:
            return steps_within(tables, cell, part, start)
        demand_above(tables, cell._replace(prefix=cell.prefix - (start < collect[0])), part)
        return Steps.empty(0)

    return Steps(*(np.concatenate(column) for column in zip(*game.over_chunks(write), strict=True)))
