"""What a damage estimator is: it turns what was seen of a matrix into what a rounding error in each weight costs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from nash_swarm.calibration.statistics import Statistics
from nash_swarm.errors import UsageError
from nash_swarm.quantizers.formats.base import Kind


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """Cost of rounding errors: an error matrix E costs `sum_ij E_ij^2 * sum_t rows[t, i] * columns[t, j]`.

    Attributes:
        rows: float32 (terms, rows).
        columns: float32 (terms, columns), in stored column order.
        order: activation order, int64 (columns,): stored column k is column `order[k]`; `None` for the model's order.
    """

    rows: npt.NDArray[np.float32]
    columns: npt.NDArray[np.float32]
    order: npt.NDArray[np.int64] | None = None

    def in_model_order(self) -> Sensitivity:
        """The same costs for a format that stores columns in the model's order."""
        if self.order is None:
            return self
        columns = np.empty_like(self.columns)
        columns[:, self.order] = self.columns
        return Sensitivity(self.rows, columns)

    def loss_of_all(self, weight: npt.NDArray[np.float32]) -> float:
        """What it would cost to round all of `weight` (rows, columns), in the model's order, to zero."""
        stored = weight if self.order is None else weight[:, self.order]
        squares = np.square(stored, dtype=np.float64)
        return float(np.einsum("tr,rc,tc->", self.rows.astype(np.float64), squares, self.columns.astype(np.float64)))


@dataclass(frozen=True)
class DamageEstimator(ABC):
    """Base of every estimator. Subclasses are frozen dataclasses that hold hyperparameters."""

    name: ClassVar[str]
    summary: ClassVar[str]
    needs: ClassVar[Literal["weights", "activations", "gradients"]]
    """What must be collected: nothing, a forward walk, or a forward and a backward walk over the calibration text."""
    unit: ClassVar[str]
    """What the damage is counted in."""

    def orders(self, kind: Kind) -> bool:
        """Whether `sensitivity` gives matrices of this kind an order of columns; the format says if it is stored.

        Known before anything is measured, so that the smallest feasible budget is. By default every matrix that
        multiplies has one, unless nothing is collected.
        """
        return self.needs != "weights" and kind != "embedding"

    @property
    def samples_labels(self) -> bool:
        """Whether gradients are of the likelihood of tokens that the model draws, instead of those of the text."""
        return False

    @property
    def projects(self) -> bool:
        """Whether matrices inside blocks are wanted with `Statistics.projected`, for which `factor` is asked."""
        return False

    def factor(self, statistics: Statistics) -> npt.NDArray[np.float32]:
        """What inputs are multiplied with for `Statistics.projected`, float32 (columns, columns), in stored order.

        Called only if `projects`, with statistics whose inputs are complete.
        """
        raise NotImplementedError

    couples: ClassVar[bool] = False
    """Whether `coupled_sensitivity` says how neighbours in a row interact."""

    def check_couples(self) -> None:
        """Refuse what `coupled_sensitivity` would, before anything is loaded.

        Raises:
            UsageError: this estimator cannot say how neighbours interact.
        """
        if not self.couples:
            raise UsageError(
                f"damage {self.name!r} does not say how neighbouring weights interact; 'fisher' and 'activation' do"
            )

    def coupled_sensitivity(
        self, weight: npt.NDArray[np.float32], statistics: Statistics, kind: Kind
    ) -> tuple[Sensitivity, npt.NDArray[np.float32]]:
        """As `sensitivity`, of errors whose neighbours in a row interact; for agents that are single weights.

        The cost of errors that nothing compensates, in a column order that may be chosen for the neighbours, and the
        correlation of neighbouring columns (`damage.neighbours.neighbour_correlation`), float32 (columns,), in that
        order: row i's errors e cost `sum_j w_ij e_j^2 + 2 sum_j correlation_j sqrt(w_ij w_i,j+1) e_j e_(j+1)` for the
        weights w of the sensitivity.

        Called only if `couples`.
        """
        raise NotImplementedError

    @abstractmethod
    def sensitivity(self, weight: npt.NDArray[np.float32], statistics: Statistics, kind: Kind) -> Sensitivity:
        """The cost of errors in `weight`, float32 (rows, columns) in the model's column order.

        An estimator that gives an order takes it from `statistics.activation_order()`, or keeps `statistics.order`
        where that is given: when damage is measured again, agents stay what they are.
        """
