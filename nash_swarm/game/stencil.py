"""Coupling of weights with their neighbours in a row, with nothing stored per edge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from nash_swarm.errors import DataError
from nash_swarm.game.bitgame import BitGame
from nash_swarm.game.spans import SPAN, over_spans
from nash_swarm.game.tables import Tables, readonly

T = TypeVar("T")

LIMIT = 0.5
"""Largest correlation of neighbours, either way."""
_MOST_STRATEGIES = 8
"""The signs of an agent's errors are the bits of one byte."""


@dataclass(frozen=True, eq=False)
class Stencil:
    """Interaction of every weight with the previous and the next stored column of its row.

    Agent i = (row, c) that plays s errs by `a_i(s) = +-sqrt(c_i(s))`, signed like its rounding error. Neighbours (row,
    c) and (row, c + 1) add `2 rho_c a_i a_j` to the total cost, which is then, a row at a time, a^T (I + T) a: T has
    rho_c beside the diagonal and 0 elsewhere. This is the second-order cost `1/2 g e^T H e` of the row's errors e with
    all but the nearest off-diagonals of H left out, for `c_i = 1/2 g H_cc e_c^2` and
    `rho_c = H_(c,c+1) / sqrt(H_cc H_(c+1,c+1))`.

    The form is positive semi-definite if no |rho_c| exceeds 1/2: `|2 rho_c a_c a_(c+1)| <= |rho_c| (a_c^2 +
    a_(c+1)^2)`, so the pairs add at least `-sum_c (|rho_(c-1)| + |rho_c|) a_c^2 >= -sum_c a_c^2` (diagonal dominance),
    and the total cost of no profile is negative. Larger correlations are clipped: a tridiagonal cut of a positive
    semi-definite H need not be positive semi-definite.

    Attributes:
        signs: uint8 (agents,); bit s is set where the error with strategy s is negative.
        shapes: (rows, columns) of each matrix, in the order of the agents, which are its weights row by row.
        correlation: float32 (sum of columns,), rho_c of each matrix's columns; 0 for its last one.
    """

    signs: npt.NDArray[np.uint8]
    shapes: tuple[tuple[int, int], ...]
    correlation: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        agents, columns = sum(r * c for r, c in self.shapes), sum(c for _, c in self.shapes)
        if any(min(shape) < 1 for shape in self.shapes):
            raise DataError(f"matrices must have rows and columns, not {self.shapes}")
        if self.signs.dtype != np.uint8 or self.signs.shape != (agents,):
            raise DataError(f"signs must be uint8 ({agents},), not {self.signs.dtype} {self.signs.shape}")
        if self.correlation.dtype != np.float32 or self.correlation.shape != (columns,):
            found = f"{self.correlation.dtype} {self.correlation.shape}"
            raise DataError(f"correlation must be float32 ({columns},), not {found}")
        if not (np.abs(self.correlation) <= LIMIT).all():
            raise DataError(f"correlation must lie within +-{LIMIT}, or errors could repair damage they did not do")
        ends = np.cumsum([columns for _, columns in self.shapes]) - 1
        if self.correlation[ends].any():
            raise DataError("the last column of a matrix has no next one: its correlation must be 0")


def neighbour_correlation(hessian: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Correlation of each column's input with the next one's, clipped to +-1/2; 0 for the last one and for dead inputs.

    Args:
        hessian: (columns, columns), second moments of a matrix's inputs, columns in stored order.
    """
    energy = hessian.diagonal().astype(np.float64)
    scale = np.sqrt(energy[:-1] * energy[1:])
    beside = hessian.diagonal(1).astype(np.float64)
    found = np.divide(beside, scale, out=np.zeros_like(scale), where=scale > 0)
    return np.append(np.clip(found, -LIMIT, LIMIT), 0).astype(np.float32)


class Patch(NamedTuple):
    """Some whole rows of one matrix, in the form that the kernels read.

    Attributes:
        start, stop: the agents.
        damage: float32 (agents, strategies).
        memory: int64 (1, strategies), bits.
        signs: uint8 (agents,).
        correlation: float32 (columns,).
    """

    start: int
    stop: int
    damage: npt.NDArray[np.float32]
    memory: npt.NDArray[np.int64]
    signs: npt.NDArray[np.uint8]
    correlation: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class StencilGame:
    """A game at `parameter` granularity whose agents are coupled with their neighbours.

    Attributes:
        game: the agents; without a `Coupling` of its own, and with one row of memory for all.
        stencil: how they are coupled.
    """

    game: BitGame
    stencil: Stencil

    def __post_init__(self) -> None:
        if self.game.coupling is not None:
            raise DataError("a game is coupled by a stencil or by a coupling, not by both")
        if self.stencil.signs.shape != (self.game.agents,):
            raise DataError(f"the stencil is of {len(self.stencil.signs)} agents, the game of {self.game.agents}")
        if len(self.game.strategies) > _MOST_STRATEGIES:
            raise DataError(f"a stencil couples agents of at most {_MOST_STRATEGIES} strategies")
        if not Tables.of(self.game).shared:
            raise DataError("a stencil couples agents that share one row of memory, as at parameter granularity")

    def patches(self) -> list[Patch]:
        """The rows in patches of about as many agents as a span has."""
        stencil, tables = self.stencil, Tables.of(self.game)
        signs, patches = readonly(stencil.signs), []
        start = column = 0
        for rows, columns in stencil.shapes:
            correlation = readonly(stencil.correlation[column : column + columns])
            step = max(1, SPAN // columns) * columns
            end = start + rows * columns
            for first in range(start, end, step):
                at = slice(first, min(first + step, end))
                patches.append(Patch(at.start, at.stop, tables.damage[at], tables.memory, signs[at], correlation))
            start, column = end, column + columns
        return patches

    def over_rows(self, task: Callable[[Patch], T]) -> list[T]:
        """`task(patch)` for patches of whole rows, shared by threads; results in the order of the agents.

        Rows are not coupled with one another, so a task may change what its own agents play.
        """
        patches = self.patches()
        return over_spans(lambda first, past: task(patches[first]), len(patches), 1)
