"""Damage estimators: from calibration statistics of a matrix to the cost of a rounding error in each weight."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from nash_swarm.calibration.statistics import Observer, Statistics
from nash_swarm.damage.overflow import check_statistics
from nash_swarm.errors import DataError
from nash_swarm.quantizers.formats.base import Kind, Layout

Needs = Literal["weights", "activations", "gradients"]
"""Walks over the calibration text: none, forward, or forward and backward."""
Term = tuple[npt.NDArray[Any], npt.NDArray[Any]]
"""Factors of an error's cost by row, (rows,), and by stored column, (columns,)."""


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """Cost of rounding errors: an error matrix E costs `sum_ij E_ij^2 * sum_t rows[t, i] * columns[t, j]`.

    Attributes:
        rows: float32 (terms, rows), not negative.
        columns: float32 (terms, columns), not negative, in stored column order.
        order: activation order, int64 (columns,): stored column k is column `order[k]`; `None` for the model's order.
    """

    rows: npt.NDArray[np.float32]
    columns: npt.NDArray[np.float32]
    order: npt.NDArray[np.int64] | None = None

    @classmethod
    def of(cls, *terms: Term, order: npt.NDArray[np.int64] | None = None) -> Sensitivity:
        """From terms `(rows[t], columns[t])` of any floating-point type."""
        rows, columns = (np.array(part, np.float32) for part in zip(*terms, strict=True))
        return cls(rows, columns, order)

    def in_model_order(self) -> Sensitivity:
        """The same costs for a format that stores columns in the model's order."""
        if self.order is None:
            return self
        columns = np.empty_like(self.columns)
        columns[:, self.order] = self.columns
        return Sensitivity(self.rows, columns)

    def loss_of_all(self, weight: npt.NDArray[np.float32]) -> float:
        """Cost of rounding all of `weight`, (rows, columns) in the model's order, to zero."""
        stored = weight if self.order is None else weight[:, self.order]
        squares = np.square(stored, dtype=np.float64)
        return float(np.einsum("tr,rc,tc->", self.rows.astype(np.float64), squares, self.columns.astype(np.float64)))

    def fits(self, shape: tuple[int, int]) -> bool:
        """Whether shapes and types are those of a matrix (rows, columns), and `order` is a permutation."""
        terms = self.rows.shape[0] if self.rows.ndim else 0
        return (
            all(part.dtype == np.float32 for part in (self.rows, self.columns))
            and (self.rows.shape, self.columns.shape) == ((terms, shape[0]), (terms, shape[1]))
            and (self.order is None or np.array_equal(np.sort(self.order), np.arange(shape[1])))
        )


@dataclass(frozen=True)
class DamageEstimator(ABC):
    """Base of all estimators. Subclasses are frozen dataclasses of hyperparameters."""

    name: ClassVar[str]
    summary: ClassVar[str]
    needs: ClassVar[Needs]
    """Which walks over the calibration text fill the statistics: `activations` fills `inputs` and `lookups`,
    `gradients` also `outputs` and `gradients`."""
    observers: ClassVar[tuple[Observer, ...]] = ()
    """Further statistics, collected on the same walks into `Statistics.observed`."""
    unit: ClassVar[str]
    """Unit of the damage."""

    def orders(self, kind: Kind) -> bool:
        """Whether `sensitivity` gives matrices of this kind an order of columns; the format says if it is stored.

        Known before anything is measured, because it is part of the smallest feasible budget. By default every
        multiplying matrix has one, unless nothing is collected.
        """
        return self.needs != "weights" and kind != "embedding"

    @property
    def samples_labels(self) -> bool:
        """Whether gradients are of the likelihood of tokens sampled from the model, instead of the text's."""
        return False

    @property
    def projects(self) -> bool:
        """Whether matrices inside blocks get `Statistics.projected`, with the factor that `factor` returns."""
        return False

    def factor(self, statistics: Statistics) -> npt.NDArray[np.float32]:
        """The factor U that inputs are multiplied with for `Statistics.projected`.

        Called only if `projects`, with statistics whose inputs are complete.

        Returns:
            float32 (columns, columns), in stored column order.
        """
        raise NotImplementedError

    @abstractmethod
    def sensitivity(self, weight: npt.NDArray[np.float32], statistics: Statistics, kind: Kind) -> Sensitivity:
        """The cost of errors in a matrix.

        An estimator that gives an order takes it from `statistics.activation_order()`.

        Args:
            weight: float32 (rows, columns), columns in the model's order.
            statistics: what `needs` and `observers` ask for; a `tied` matrix has those of both its uses.
            kind: how the matrix is used.
        """

    def checked(self, weight: npt.NDArray[np.float32], statistics: Statistics, layout: Layout) -> Sensitivity:
        """`sensitivity` with its input and output checked: kernels that use the result do not check bounds.

        Args:
            weight: float32 (rows, columns), columns in the model's order.
            statistics: of the matrix.
            layout: of the matrix.

        Raises:
            Overflow: the statistics hold NaN or infinite values.
            DataError: the result does not fit the matrix, or has an order where `orders` promised none or the reverse.
        """
        check_statistics(layout.name, statistics)
        found = self.sensitivity(weight, statistics, layout.kind)
        if not layout.format.permutes:
            found = found.in_model_order()
        if (found.order is not None) != layout.ordered:
            raise DataError(f"damage {self.name!r}: orders() and sensitivity() disagree on {layout.name}")
        if not found.fits((layout.rows, layout.columns)):
            raise DataError(f"damage {self.name!r}: the sensitivity does not have the shape or type of {layout.name}")
        return found
