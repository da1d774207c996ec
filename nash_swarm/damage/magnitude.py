"""Damage without data: the relative rounding error of each matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from nash_swarm.calibration.statistics import Statistics
from nash_swarm.damage.base import DamageEstimator, Sensitivity
from nash_swarm.quantizers.formats.base import Kind


@dataclass(frozen=True)
class Magnitude(DamageEstimator):
    """Squared rounding error over the matrix's squared norm: every matrix counts the same, every weight in it too."""

    name: ClassVar[str] = "magnitude"
    summary: ClassVar[str] = "relative weight error; needs no text"
    needs: ClassVar[Literal["weights", "activations", "gradients"]] = "weights"
    unit: ClassVar[str] = "relative squared error"

    def sensitivity(self, weight: npt.NDArray[np.float32], statistics: Statistics, kind: Kind) -> Sensitivity:
        """See `DamageEstimator.sensitivity`."""
        norm = max(float(np.square(weight, dtype=np.float64).sum()), 1e-30)
        return Sensitivity(
            np.full((1, weight.shape[0]), 1.0 / norm, np.float32), np.ones((1, weight.shape[1]), np.float32)
        )
