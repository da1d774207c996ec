"""Damage from input second moments: the importance matrix of llama.cpp and the idea behind AWQ."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from nash_swarm.calibration.statistics import Statistics
from nash_swarm.damage.base import DamageEstimator, Sensitivity
from nash_swarm.damage.neighbours import neighbours
from nash_swarm.quantizers.formats.base import Kind


@dataclass(frozen=True)
class Activation(DamageEstimator):
    """Expected squared output error over the expected squared output, with inputs taken as uncorrelated.

    A weight error costs E[x_j^2] of its column (llama.cpp's importance matrix); an embedding row counts by how often it
    is looked up. Every matrix counts the same.
    """

    name: ClassVar[str] = "activation"
    summary: ClassVar[str] = "relative output error from E[x^2] (imatrix); one forward pass"
    needs: ClassVar[Literal["weights", "activations", "gradients"]] = "activations"
    unit: ClassVar[str] = "relative squared error"
    couples: ClassVar[bool] = True

    def sensitivity(self, weight: npt.NDArray[np.float32], statistics: Statistics, kind: Kind) -> Sensitivity:
        """See `DamageEstimator.sensitivity`."""
        squares = np.square(weight, dtype=np.float64)
        rows, columns, order = [], [], None
        hessian = statistics.hessian()
        if hessian is not None:
            moments = hessian.diagonal().astype(np.float64)
            order = statistics.activation_order()
            rows.append(np.full(len(weight), 1.0 / max(float((squares @ moments).sum()), 1e-30)))
            columns.append(moments[order])
        if statistics.lookups is not None:
            shares = statistics.lookup_shares()
            rows.append(shares / max(float((shares @ squares).sum()), 1e-30))
            columns.append(np.ones(weight.shape[1]))
        return Sensitivity(np.array(rows, np.float32), np.array(columns, np.float32), order)

    def coupled_sensitivity(
        self, weight: npt.NDArray[np.float32], statistics: Statistics, kind: Kind
    ) -> tuple[Sensitivity, npt.NDArray[np.float32]]:
        """See `DamageEstimator.coupled_sensitivity`: the same cost, with the nearest correlations of its inputs."""
        order, correlation = neighbours(statistics, weight.shape[1])
        return self.sensitivity(weight, replace(statistics, order=order), kind), correlation
