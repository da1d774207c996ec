"""What agents coupled along rows cost, gain and see of one another: a `Stencil` in the form that the kernels read."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from nash_swarm.compiling import njit
from nash_swarm.errors import UsageError
from nash_swarm.game.bitgame import BitGame
from nash_swarm.game.demand import Point, totals
from nash_swarm.game.interaction import Choices
from nash_swarm.game.stencil import Stencil
from nash_swarm.game.tables import Tables, readonly
from nash_swarm.sharing import SPAN, over_spans

T = TypeVar("T")

NOISE = 2.0**-40
"""A gain below this share of the terms it is the difference of is rounding, not a reason to deviate."""


class Patch(NamedTuple):
    """Some whole rows of one matrix.

    Attributes:
        start, stop: the agents.
        damage: float32 (agents, strategies).
        memory: int64 (1, strategies) or (agents, strategies), bits.
        signs: uint8 (agents,).
        correlation: float32 (columns,).
    """

    start: int
    stop: int
    damage: npt.NDArray[np.float32]
    memory: npt.NDArray[np.int64]
    signs: npt.NDArray[np.uint8]
    correlation: npt.NDArray[np.float32]

    @property
    def span(self) -> slice:
        """Where these agents stand among all."""
        return slice(self.start, self.stop)


@dataclass(frozen=True, eq=False)
class Rows:
    """A game whose agents are coupled with their neighbours in a row.

    Attributes:
        tables: the agents' own damage and memory.
        stencil: how they are coupled.
    """

    tables: Tables
    stencil: Stencil

    @classmethod
    def of(cls, game: BitGame) -> Rows:
        """The rows of `game`.

        Raises:
            UsageError: its agents are not coupled by a stencil.
        """
        if not isinstance(game.coupling, Stencil):
            raise UsageError("the agents of this game are not coupled by a stencil")
        return cls(Tables.of(game), game.coupling)

    @property
    def agents(self) -> int:
        """Number of agents."""
        return self.tables.agents

    def patches(self) -> list[Patch]:
        """The rows in patches of about as many agents as a span has."""
        damage, memory = self.tables
        signs, patches = readonly(self.stencil.signs), []
        for grid in self.stencil.grids():
            correlation = readonly(grid.correlation)
            step = max(1, SPAN // grid.columns) * grid.columns
            end = grid.start + grid.rows * grid.columns
            for first in range(grid.start, end, step):
                at = slice(first, min(first + step, end))
                own = memory if self.tables.shared else memory[at]
                patches.append(Patch(at.start, at.stop, damage[at], own, signs[at], correlation))
        return patches

    def over_rows(self, task: Callable[[Patch], T]) -> list[T]:
        """`task(patch)` for patches of whole rows, shared by threads; results in the order of the agents.

        Rows are not coupled with one another, so a task may change what its own agents play.
        """
        patches = self.patches()
        return over_spans(lambda first, past: task(patches[first]), len(patches), 1)

    def total(self, choices: Choices, price: float = 0.0) -> Point:
        """Memory and damage of a profile, what neighbours add included."""
        own = totals(self.tables, choices, price)
        pairs = self.over_rows(lambda part: _pairs(part, choices[part.span]))
        return own._replace(damage=own.damage + math.fsum(pairs))

    def regret(self, choices: Choices, price: float) -> float:
        """The most any single agent would gain at `price` by changing its mind, 0 if nobody would."""
        return max(self.over_rows(lambda part: _regret(part, choices[part.span], price)))

    def effective(self, choices: Choices) -> Tables:
        """Tables in which damage, float64, is what each strategy costs an agent if the others stay."""
        out = np.empty(self.tables.damage.shape)
        self.over_rows(lambda part: _effective(part, choices[part.span], out[part.span]))
        return Tables(readonly(out), self.tables.memory)


def effective_of(part: Patch, choices: Choices) -> Tables:
    """`Rows.effective` of some rows, whose agents play `choices`."""
    out = np.empty(part.damage.shape)
    _effective(part, choices, out)
    return Tables(readonly(out), part.memory)


@njit(nogil=True, cache=True, inline="always")
def error_of(damage, signs, i, s):  # type: ignore[no-untyped-def]
    """The signed error of agent i with strategy s."""
    root = math.sqrt(np.float64(damage[i, s]))
    return -root if signs[i] >> s & 1 else root


@njit(nogil=True, cache=True, inline="always")
def field_at(correlation, played, c):  # type: ignore[no-untyped-def]
    """Twice what the neighbours' errors weigh for a unit of column c's error."""
    around = 0.0
    if c > 0:
        around += np.float64(correlation[c - 1]) * played[c - 1]
    if c + 1 < len(correlation):
        around += np.float64(correlation[c]) * played[c + 1]
    return 2.0 * around


@njit(nogil=True, cache=True)
def play_errors(damage, signs, choices, first, played):  # type: ignore[no-untyped-def]
    """The errors of the row that begins with agent `first`."""
    for c in range(len(played)):
        played[c] = error_of(damage, signs, first + c, choices[first + c])


@njit(nogil=True, cache=True)
def _pairs(part, choices):  # type: ignore[no-untyped-def]
    _, _, damage, _, signs, correlation = part
    columns = len(correlation)
    played = np.empty(columns)
    added = 0.0
    for first in range(0, len(damage), columns):
        play_errors(damage, signs, choices, first, played)
        row = 0.0
        for c in range(columns - 1):
            row += np.float64(correlation[c]) * played[c] * played[c + 1]
        added += row
    return 2.0 * added


@njit(nogil=True, cache=True)
def _effective(part, choices, out):  # type: ignore[no-untyped-def]
    _, _, damage, _, signs, correlation = part
    columns = len(correlation)
    played = np.empty(columns)
    for first in range(0, len(damage), columns):
        play_errors(damage, signs, choices, first, played)
        for c in range(columns):
            field = field_at(correlation, played, c)
            for s in range(damage.shape[1]):
                out[first + c, s] = np.float64(damage[first + c, s]) + field * error_of(damage, signs, first + c, s)


@njit(nogil=True, cache=True)
def best_response(damage, memory, signs, i, now, error, field, price):  # type: ignore[no-untyped-def]
    """Agent i's best strategy in a field and what it gains by it; nothing that may be rounding."""
    row = i if memory.shape[0] > 1 else 0
    own = np.float64(damage[i, now])
    best = now
    gain = 0.0
    for s in range(damage.shape[1]):
        other = np.float64(damage[i, s])
        saved = own - other + field * (error - error_of(damage, signs, i, s))
        paid = price * (memory[row, s] - memory[row, now])
        if saved - paid > gain:
            size = own + other + abs(field) * (math.sqrt(own) + math.sqrt(other)) + abs(paid)
            if saved - paid > NOISE * size:
                gain = saved - paid
                best = s
    return best, gain


@njit(nogil=True, cache=True)
def _regret(part, choices, price):  # type: ignore[no-untyped-def]
    _, _, damage, memory, signs, correlation = part
    columns = len(correlation)
    played = np.empty(columns)
    worst = 0.0
    for first in range(0, len(damage), columns):
        play_errors(damage, signs, choices, first, played)
        for c in range(columns):
            field = field_at(correlation, played, c)
            i = first + c
            _, gain = best_response(damage, memory, signs, i, choices[i], played[c], field, price)
            worst = max(worst, gain)
    return worst
