"""Damage in nats: squared output gradients of the loss times the input Hessian after error compensation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from nash_swarm.calibration.statistics import Statistics, array
from nash_swarm.damage.base import DamageEstimator, Needs, Sensitivity, Term
from nash_swarm.errors import UsageError
from nash_swarm.quantizers.formats.base import Kind
from nash_swarm.quantizers.rounding.hessian import column_weights, inverse_factor, reordered


@dataclass(frozen=True)
class Fisher(DamageEstimator):
    """Second-order rise of the loss with a Kronecker-factored Fisher information and error-compensated rounding.

    `1/2 sum_i g_i sum_j e_ij^2 / U_jj^2` with g_i = E[(dL/dy_i)^2] and U the upper Cholesky factor of the inverse of
    E[x x^T] in activation order: Martens & Grosse 2015 (K-FAC, arXiv 1503.05671) for the factors, Frantar et al. 2023
    (GPTQ, arXiv 2210.17323) for U: 1 / U_jj^2 is the cost of a column's error after later columns have compensated for
    it. An expert's cost is weighted by its share of the tokens. An embedding row costs its share of look-ups times the
    mean squared gradient there; the costs of both uses of a tied matrix are added.

    That treats the tokens of a sequence as independent, although errors of all of them come from the same weights. With
    `whole_windows` g_i is replaced, inside blocks, by F_ij: the expected square of a whole sequence's gradient
    dL/dW U^T, divided by the sequence's length. It is the exact diagonal of the Fisher information in the basis of
    compensated errors (George et al. 2018, EK-FAC, arXiv 1806.03884, use K-FAC's eigenbasis), and is approximated by
    the product of a factor for each row and one for each column.

    Attributes:
        damping: as `Gptq.damping`.
        labels: gradients are of the likelihood of tokens sampled from the model (`model`: the Fisher information, the
            second-order term of the KL to the original), or of the text's tokens (`text`: the empirical Fisher; for a
            comparison see Kunstner et al. 2019, arXiv 1905.12558).
        whole_windows: see above; every block runs once more.

    Raises:
        UsageError: unknown labels.
    """

    name: ClassVar[str] = "fisher"
    summary: ClassVar[str] = "loss rise in nats: output gradients x compensated Hessian; forward and backward pass"
    needs: ClassVar[Needs] = "gradients"
    unit: ClassVar[str] = "nats per token"

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
        terms: list[Term] = []
        order = None
        hessian = statistics.hessian()
        if hessian is not None:
            assert statistics.outputs is not None
            order = statistics.activation_order()
            scale = 0.5 * statistics.share / max(1, statistics.tokens)
            if statistics.projected is None:
                terms.append(
                    (scale * array(statistics.outputs), column_weights(reordered(hessian, order), self.damping))
                )
            else:
                squares = array(statistics.projected)
                by_column = squares.mean(0, dtype=np.float64)
                assert statistics.factor is not None
                left = 1 / statistics.factor.diagonal().astype(np.float64) ** 2
                columns = left * (by_column / max(by_column.mean(), 1e-30))
                terms.append((scale * squares.mean(1, dtype=np.float64), columns))
        if statistics.lookups is not None:
            assert statistics.gradients is not None
            energy = array(statistics.gradients) / max(1.0, float(statistics.lookups.sum()))
            terms.append((0.5 * statistics.lookup_shares(), energy if order is None else energy[order]))
        return Sensitivity.of(*terms, order=order)
