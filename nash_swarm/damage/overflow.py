"""Checks that statistics and damage are finite, and attention without the most common cause of overflow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch

from nash_swarm.calibration.statistics import Statistics
from nash_swarm.errors import DataError

_PARTS = {
    "inputs": "squares of its inputs",
    "outputs": "squared gradients of its outputs",
    "gradients": "squared gradients of its rows",
    "projected": "squared gradients of its weights",
}


class Overflow(DataError):
    """A statistic or the damage of a matrix is not finite; the message names both."""


def check_statistics(name: str, statistics: Statistics) -> None:
    """Refuse NaN and infinite values in the statistics of the matrix `name`.

    Raises:
        Overflow: there are some.
    """
    sums = [(words, getattr(statistics, part)) for part, words in _PARTS.items()]
    for words, values in [*sums, *((f"sums of {key!r}", found) for key, found in statistics.observed.items())]:
        if values is not None and not torch.isfinite(values).all():
            raise Overflow(
                f"{name}: the {words} leave the range of float32 on the calibration text, though the model's answers "
                "are finite; its weights, or a norm's before it, are too large to be measured"
            )


def check_damage(name: str, damage: npt.NDArray[np.float32]) -> None:
    """Refuse NaN and infinite values in the damage of the matrix `name`, float32 (agents, strategies).

    Raises:
        Overflow: there are some.
    """
    if not (np.isfinite(damage.min()) and np.isfinite(damage.max())):
        raise Overflow(
            f"{name}: the damage of its agents leaves the range of float32; its weights are too large for what the "
            "loss makes of their errors"
        )


@contextmanager
def stable_attention() -> Iterator[None]:
    """Context in which the backward pass of attention uses the attention weights of the forward pass.

    torch's fused attention recomputes them from the scores and their log-sum-exp. Where scores are large, as after a
    norm with large gains, the two differ by the rounding of the scores, and the exponential of that difference
    overflows.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(SDPBackend.MATH):
        yield
