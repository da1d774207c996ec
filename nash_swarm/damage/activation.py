"""Damage from input second moments: the importance matrix of llama.cpp and the idea behind AWQ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from nash_swarm.calibration.statistics import Statistics
from nash_swarm.damage.base import DamageEstimator, Needs, Sensitivity, Term
from nash_swarm.quantizers.formats.base import Kind


@dataclass(frozen=True)
class Activation(DamageEstimator):
    """Expected squared output error over the expected squared output, for uncorrelated inputs.

    A weight error costs E[x_j^2] of its column (llama.cpp's importance matrix), an error in an embedding row the row's
    share of look-ups. Every matrix has the same total.
    """

    name: ClassVar[str] = "activation"
    summary: ClassVar[str] = "relative output error from E[x^2] (imatrix); one forward pass"
    needs: ClassVar[Needs] = "activations"
    unit: ClassVar[str] = "relative squared error"

    def sensitivity(self, weight: npt.NDArray[np.float32], statistics: Statistics, kind: Kind) -> Sensitivity:
        """See `DamageEstimator.sensitivity`."""
        squares = np.square(weight, dtype=np.float64)
        terms: list[Term] = []
        order = None
        hessian = statistics.hessian()
        if hessian is not None:
            moments = hessian.diagonal().astype(np.float64)
            order = statistics.activation_order()
            energy = max(float((squares @ moments).sum()), 1e-30)
            terms.append((np.full(len(weight), 1.0 / energy), moments[order]))
        if statistics.lookups is not None:
            shares = statistics.lookup_shares()
            energy = max(float((shares @ squares).sum()), 1e-30)
            terms.append((shares / energy, np.ones(weight.shape[1])))
        return Sensitivity.of(*terms, order=order)
