"""Damage without data: the relative rounding error of each matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from nash_swarm.calibration.statistics import Statistics
from nash_swarm.damage.base import DamageEstimator, Needs, Sensitivity
from nash_swarm.quantizers.formats.base import Kind


@dataclass(frozen=True)
class Magnitude(DamageEstimator):
    """Squared rounding error over the matrix's squared norm: all matrices have equal totals, all their weights too."""

    name: ClassVar[str] = "magnitude"
    summary: ClassVar[str] = "relative weight error; needs no text"
    needs: ClassVar[Needs] = "weights"
    unit: ClassVar[str] = "relative squared error"

    def sensitivity(self, weight: npt.NDArray[np.float32], statistics: Statistics, kind: Kind) -> Sensitivity:
        """See `DamageEstimator.sensitivity`."""
        norm = max(float(np.square(weight, dtype=np.float64).sum()), 1e-30)
        return Sensitivity.of((np.full(weight.shape[0], 1.0 / norm), np.ones(weight.shape[1])))
