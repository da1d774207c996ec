"""Coupling of weights with their neighbours in a row, with nothing stored per edge."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, NoReturn, Self

import numpy as np
import numpy.typing as npt

from nash_swarm.errors import DataError, UsageError
from nash_swarm.game.interaction import Choices, Fusion, Interaction, View

if TYPE_CHECKING:
    from nash_swarm.game.bitgame import BitGame
    from nash_swarm.game.tensors import Tensor

LIMIT = 0.5
"""Largest correlation of neighbours, either way."""
_MOST_STRATEGIES = 8
"""The signs of an agent's errors are the bits of one byte."""
_CHUNK = 1 << 16
"""Agents whose errors are computed at a time, about."""


class Grid(NamedTuple):
    """One matrix of a stencil: its first agent, its shape, and the correlation of its columns."""

    start: int
    rows: int
    columns: int
    correlation: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Stencil(Interaction):
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

    kind: ClassVar[str] = "stencil"

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

    def grids(self) -> Iterator[Grid]:
        """The matrices, in the order of the agents."""
        start = column = 0
        for rows, columns in self.shapes:
            yield Grid(start, rows, columns, self.correlation[column : column + columns])
            start, column = start + rows * columns, column + columns

    def check(self, agents: int, strategies: int) -> None:
        """See `Interaction.check`."""
        if len(self.signs) != agents:
            raise DataError(f"the stencil is of {len(self.signs)} agents, the game of {agents}")
        if strategies > _MOST_STRATEGIES:
            raise DataError(f"a stencil couples agents of at most {_MOST_STRATEGIES} strategies")

    def check_tensors(self, tensors: Sequence[Tensor]) -> None:
        """See `Interaction.check_tensors`: matrices are those whose every weight is an agent."""
        if not all(tensor.agents == tensor.weights for tensor in tensors) or self.shapes != tuple(
            t.grid for t in tensors
        ):
            raise DataError("the stencil's matrices are not the tensors of the game, weight by weight")

    def errors(self, damage: npt.NDArray[np.float32], choices: Choices, start: int = 0) -> npt.NDArray[np.float64]:
        """The signed errors of consecutive agents from `start` on, given their damage and choices."""
        own = np.take_along_axis(damage, choices[:, None], axis=1)[:, 0].astype(np.float64)
        negative = self.signs[start : start + len(choices)] >> choices & 1
        return np.where(negative, -np.sqrt(own), np.sqrt(own))

    def added(self, damage: npt.NDArray[np.float32], choices: Choices) -> float:
        """See `Interaction.added`."""
        total = 0.0
        for grid in self.grids():
            weights = grid.correlation[:-1].astype(np.float64)
            step = max(1, _CHUNK // grid.columns) * grid.columns
            stop = grid.start + grid.rows * grid.columns
            for start in range(grid.start, stop, step):
                part = slice(start, min(start + step, stop))
                errors = self.errors(damage[part], choices[part], start).reshape(-1, grid.columns)
                total += 2 * float(np.sum((errors[:, :-1] * errors[:, 1:]) @ weights))
        return total

    def view(self, game: BitGame) -> View:
        """See `Interaction.view`."""
        from nash_swarm.game.views import RowView

        return RowView.of(game)

    def restricted(self, changes: Iterable[tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]]) -> Self:
        """See `Interaction.restricted`."""
        signs = self.signs.copy()
        for agents, target in changes:
            places = target.astype(np.uint8)
            bits = signs[agents][:, None] >> places & 1
            signs[agents] = np.packbits(bits, axis=1, bitorder="little")[:, 0]
        return replace(self, signs=signs)

    def fused(self, fusion: Fusion) -> NoReturn:
        """See `Interaction.fused`: neighbours in a row would have to be neighbours in all rows."""
        raise UsageError(
            "cannot fuse agents that are coupled with their neighbours in a row; leave out --fuse, or measure without "
            "--coupling"
        )

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """See `Interaction.arrays`."""
        shapes = np.array(self.shapes, np.int64).reshape(-1, 2)
        return {"signs": self.signs, "shapes": shapes, "correlation": self.correlation}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """See `Interaction.from_arrays`."""
        shapes = arrays["shapes"]
        if shapes.dtype != np.int64 or shapes.ndim != 2 or shapes.shape[1] != 2:
            raise DataError(f"shapes of matrices must be int64 (matrices, 2), not {shapes.dtype} {shapes.shape}")
        pairs = tuple((int(rows), int(columns)) for rows, columns in shapes)
        return cls(arrays["signs"], pairs, arrays["correlation"])
