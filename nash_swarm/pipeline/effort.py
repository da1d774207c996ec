"""How much time a compression may take: named settings of everything that trades minutes for quality."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nash_swarm.errors import UsageError
from nash_swarm.names import DEFAULT_GRANULARITY, DEFAULT_GROUP_SIZE, DEFAULT_QUANTIZER, Granularity, Levels
from nash_swarm.pipeline.tuning import Tuning


@dataclass(frozen=True)
class Effort:
    """Settings of the stages of `compress`.

    Attributes:
        windows: calibration windows that the damage is measured on.
        granularity: what an agent is, see `measure`.
        levels: where the values of codes lie, see `measure`; even ones are taken where every weight has its own width.
        group_size: columns that share a scale and zero-point per row.
        quantizer: name of the rounding method.
        rounding_windows: calibration windows that matrices are rounded with; as many as the damage's if that is more.
        contest: whether the result is tried against the baselines, see `compress`.
        propagation: see `pack`.
        tuning: how the packed model is tuned; `None` for not at all.
        tuning_windows: calibration windows it is tuned on.
    """

    windows: int
    granularity: Granularity = DEFAULT_GRANULARITY
    levels: Levels = "normal"
    group_size: int = DEFAULT_GROUP_SIZE
    quantizer: str = DEFAULT_QUANTIZER
    rounding_windows: int = 0
    contest: bool = True
    propagation: float = 0.0
    tuning: Tuning | None = None
    tuning_windows: int = 0


EFFORTS: Mapping[str, Effort] = {
    "fast": Effort(windows=8, contest=False),
    "default": Effort(windows=16, rounding_windows=32),
    "best": Effort(
        windows=32,
        rounding_windows=128,
        contest=False,
        tuning=Tuning(steps=128, batch=2),
        tuning_windows=128,
    ),
}


def find_effort(name: str) -> Effort:
    """The settings of that name.

    Raises:
        UsageError: there are none.
    """
    if not isinstance(name, str) or name not in EFFORTS:
        raise UsageError(f"unknown effort {name!r}; choose one of {', '.join(EFFORTS)}")
    return EFFORTS[name]
