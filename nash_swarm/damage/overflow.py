"""Statistics and damage that are not finite: which matrix they are of, and attention without the usual cause."""

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
    """Something that is measured of a matrix is not finite; the message names both."""


def check_statistics(name: str, statistics: Statistics) -> None:
    """Refuse statistics of the matrix `name` that hold NaN or infinite values.

    Raises:
        Overflow: they do.
    """
    for part, words in _PARTS.items():
        values = getattr(statistics, part)
        if values is not None and not torch.isfinite(values).all():
            raise Overflow(
                f"{name}: the {words} leave the range of float32 on the calibration text, though the model's answers "
                "are finite; its weights, or a norm's before it, are too large to be measured"
            )


def check_damage(name: str, damage: npt.NDArray[np.float32]) -> None:
    """Refuse damage of the matrix `name`, float32 (agents, strategies), that holds NaN or infinite values.

    Raises:
        Overflow: it does.
    """
    if not (np.isfinite(damage.min()) and np.isfinite(damage.max())):
        raise Overflow(
            f"{name}: the damage of its agents leaves the range of float32; its weights are too large for what the "
            "loss makes of their errors"
        )


@contextmanager
def stable_attention() -> Iterator[None]:
    """Attention whose backward pass uses the weights of the forward pass.

    torch's fused attention computes them anew from scores and their logarithmic sum. Where scores are large, as behind
    a norm with large gains, the two differ by the rounding of the scores, and the exponential of that overflows.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(SDPBackend.MATH):
        yield
