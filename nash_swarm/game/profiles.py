"""Profiles of choices."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Choices = npt.NDArray[np.uint8]
"""A strategy index for each agent, (agents,)."""


def pick(table: npt.NDArray[Any], choices: Choices) -> npt.NDArray[Any]:
    """`table[i, choices[i]]` for every agent i."""
    return np.take_along_axis(table, choices[:, None], axis=1)[:, 0]
