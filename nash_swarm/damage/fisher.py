"""Damage in nats: output gradients of the loss times what error compensation leaves of the input Hessian."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from nash_swarm.calibration.statistics import Statistics
from nash_swarm.damage.base import DamageEstimator, Sensitivity
from nash_swarm.damage.neighbours import neighbours
from nash_swarm.errors import UsageError
from nash_swarm.quantizers.formats.base import Kind
from nash_swarm.quantizers.rounding.hessian import column_weights, inverse_factor, reordered


@dataclass(frozen=True)
class Fisher(DamageEstimator):
    """Second-order rise of the loss with a Kronecker-factored Fisher information and error-compensated rounding.

    `1/2 sum_i g_i sum_j e_ij^2 / U_jj^2` with g_i = E[(dL/dy_i)^2] and U the upper Cholesky factor of the inverse of
    E[x x^T] in activation order: Martens & Grosse 2015 (K-FAC, arXiv 1503.05671) for the factors, Frantar et al. 2023
    (GPTQ, arXiv 2210.17323) for U, which is what a column's error still costs once later columns have taken up their
    part. An expert pays for its share of the tokens. An embedding row counts by its share of look-ups times the mean
    squared gradient there; a tied matrix pays for both its uses.

    That takes the tokens of a window for independent. They are not: errors of all of them come from the same weights.
    With `whole_windows` g_i gives way, inside blocks, to F_ij: the expected square of a whole window's gradient
    dL/dW U^T, over the window's length. It is the exact diagonal of the Fisher information in the basis of what error
    compensation leaves (George et al. 2018, EK-FAC, arXiv 1806.03884, do the same in K-FAC's eigenbasis), and is kept
    as a factor for each row and one for each column.

    Attributes:
        damping: as `Gptq.damping`.
        labels: what gradients are of: the likelihood of tokens that the model draws itself (the Fisher information,
            which is what the KL to the original is to second order), or that of the text (the empirical Fisher; the
            two are compared by Kunstner et al. 2019, arXiv 1905.12558).
        whole_windows: see above; every block runs once more.

    Raises:
        UsageError: unknown labels.
    """

    name: ClassVar[str] = "fisher"
    summary: ClassVar[str] = "loss rise in nats: output gradients x compensated Hessian; forward and backward pass"
    needs: ClassVar[Literal["weights", "activations", "gradients"]] = "gradients"
    unit: ClassVar[str] = "nats per token"
    couples: ClassVar[bool] = True

    damping: float = 0.01
    labels: Literal["model", "text"] = "model"
    whole_windows: bool = True

    def __post_init__(self) -> None:
        if self.labels not in ("model", "text"):
            raise UsageError(f"unknown labels {self.labels!r}; choose model or text")

    @property
    def samples_labels(self) -> bool:
        """See `DamageEstimator.samples_labels`."""
        return self.labels == "model"

    @property
    def projects(self) -> bool:
        """See `DamageEstimator.projects`."""
        return self.whole_windows

    def factor(self, statistics: Statistics) -> npt.NDArray[np.float32]:
        """See `DamageEstimator.factor`."""
        hessian = statistics.hessian()
        assert hessian is not None
        return inverse_factor(reordered(hessian, statistics.activation_order()), self.damping)

    def sensitivity(self, weight: npt.NDArray[np.float32], statistics: Statistics, kind: Kind) -> Sensitivity:
        """See `DamageEstimator.sensitivity`."""
        return self._sensitivity(statistics, lambda hessian: column_weights(hessian, self.damping))

    def coupled_sensitivity(
        self, weight: npt.NDArray[np.float32], statistics: Statistics, kind: Kind
    ) -> tuple[Sensitivity, npt.NDArray[np.float32]]:
        """See `DamageEstimator.coupled_sensitivity`.

        `1/2 sum_i g_i e_i^T H e_i` with all but the nearest off-diagonals of H left out, of rounding to nearest: error
        compensation uses up the correlations that neighbours would be coupled by.
        """
        order, correlation = neighbours(statistics, weight.shape[1])
        moved = replace(statistics, order=order)
        return self._sensitivity(moved, lambda hessian: hessian.diagonal()), correlation

    def _sensitivity(
        self, statistics: Statistics, weights: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.floating[Any]]]
    ) -> Sensitivity:
        rows: list[npt.NDArray[Any]] = []
        columns: list[npt.NDArray[Any]] = []
        order = None
        hessian = statistics.hessian()
        if hessian is not None:
            assert statistics.outputs is not None
            order = statistics.activation_order()
            scale = 0.5 * statistics.share / max(1, statistics.tokens)
            if statistics.projected is None:
                rows.append(scale * statistics.outputs.numpy())
                columns.append(weights(reordered(hessian, order)))
            else:
                squares = statistics.projected.numpy()
                by_column = squares.mean(0, dtype=np.float64)
                rows.append(scale * squares.mean(1, dtype=np.float64))
                assert statistics.factor is not None
                left = 1 / statistics.factor.diagonal().astype(np.float64) ** 2
                columns.append(left * (by_column / max(by_column.mean(), 1e-30)))
        if statistics.lookups is not None:
            assert statistics.gradients is not None
            energy = statistics.gradients.numpy() / max(1.0, float(statistics.lookups.sum()))
            rows.append(0.5 * statistics.lookup_shares())
            columns.append(energy if order is None else energy[order])
        return Sensitivity(np.array(rows, np.float32), np.array(columns, np.float32), order)
