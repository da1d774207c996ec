"""Confidence intervals of an accuracy and of the paired difference of two, and the sign test."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_Z = 1.959963984540054
"""Half the width of a 95 % interval in standard deviations."""


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % confidence interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of_error(cls, value: float, error: float) -> Estimate:
        """From a standard error, by the normal approximation."""
        return cls(value, value - _Z * error, value + _Z * error)


def accuracy(right: npt.NDArray[np.bool_]) -> Estimate:
    """Share of correct answers with Wilson's interval (E. B. Wilson, "Probable inference", JASA 22, 1927).

    Args:
        right: bool (questions,).
    """
    count, share = len(right), float(right.mean())
    spread = _Z * math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2))
    middle = share + _Z**2 / (2 * count)
    scale = 1 + _Z**2 / count
    return Estimate(share, max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale))


def difference(right: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> Estimate:
    """Difference of two accuracies on the same questions (R. G. Newcombe, Statistics in Medicine 17, 1998, method 10).

    The answers are paired, so the interval is far narrower than two separate ones suggest.

    Args:
        right, other: bool (questions,); the value is the accuracy of `right` minus that of `other`.
    """
    one, two = accuracy(right), accuracy(other)
    both, neither = int((right & other).sum()), int((~right & ~other).sum())
    only, only_other = int((right & ~other).sum()), int((~right & other).sum())
    spread = (both + only) * (only_other + neither) * (both + only_other) * (only + neither)
    cross = float(both * neither - only * only_other)
    if cross > len(right) / 2:
        cross = max(0.0, cross - len(right) / 2)  # continuity correction
    elif cross >= 0:
        cross = 0.0
    phi = cross / math.sqrt(spread) if spread else 0.0
    value = one.value - two.value
    below, above = one.value - one.low, one.high - one.value
    below_other, above_other = two.value - two.low, two.high - two.value
    low = value - math.sqrt(max(0.0, below**2 - 2 * phi * below * above_other + above_other**2))
    high = value + math.sqrt(max(0.0, above**2 - 2 * phi * above * below_other + below_other**2))
    return Estimate(value, max(-1.0, low), min(1.0, high))


def sign_test(right: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
    """p-value of the exact two-sided sign test on the questions that only one model answers correctly.

    Source: Q. McNemar, Psychometrika 12, 1947.

    Args:
        right, other: bool (questions,).
    """
    from scipy.stats import binomtest

    only, only_other = int((right & ~other).sum()), int((~right & other).sum())
    return float(binomtest(only, only + only_other).pvalue) if only + only_other else 1.0
