"""Damage of matrices that no calibration token reaches, such as experts that the router never selected."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from nash_swarm.calibration.statistics import Statistics
from nash_swarm.damage.base import Sensitivity
from nash_swarm.damage.magnitude import Magnitude
from nash_swarm.errors import CalibrationWarning, DataError
from nash_swarm.quantizers.formats.base import Layout

_NAMED = 3


def judge_unreached(layout: Layout, weight: npt.NDArray[np.float32], losses: Mapping[str, float]) -> Sensitivity:
    """Sensitivity from the weights alone (`magnitude`), in the unit of the matrices that were reached.

    It is scaled so that rounding the whole matrix to zero costs the median of what that costs for its siblings (the
    other experts of its layer and projection), or for all matrices if it has none.

    Args:
        layout: of the matrix.
        weight: float32 (rows, columns).
        losses: `Sensitivity.loss_of_all` of each reached matrix, by name.

    Raises:
        DataError: no matrix was reached.
    """
    if not losses:
        raise DataError("no calibration token reaches any matrix; damage 'magnitude' needs none")
    parent, _, place = layout.name.rpartition(".")
    beside = [loss for name, loss in losses.items() if place.isdigit() and name.rpartition(".")[0] == parent]
    typical = float(np.median(beside or list(losses.values())))
    plain = Magnitude().sensitivity(weight, Statistics(), layout.kind)
    order = np.arange(layout.columns) if layout.ordered else None
    return replace(plain, rows=plain.rows * np.float32(typical), order=order)


def warn_of_unreached(names: Sequence[str]) -> None:
    """Warn that the damage of these matrices is estimated from their weights alone."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    warnings.warn(
        f"no calibration token reaches {', '.join(names[:_NAMED])}{more}: judged by weights alone "
        "(damage 'magnitude'); more or other calibration text may reach them",
        CalibrationWarning,
        stacklevel=3,
    )
