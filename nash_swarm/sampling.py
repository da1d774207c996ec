"""Sampling settings of generation, in a module without torch, so that options are checked before it is imported."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from nash_swarm.errors import UsageError

_HOTTEST = 100.0


@dataclass(frozen=True)
class Sampling:
    """Sampling settings. `None` stands for the model's own generation setting, or else transformers' (top_k 50).

    Attributes:
        temperature: divisor of the logits; 0 always takes the likeliest token.
        top_k: sample from this many likeliest tokens; 0 for all.
        top_p: sample from the smallest set of likeliest tokens with this total probability; 1 for all.

    Raises:
        UsageError: a value is out of range, or `top_k` or `top_p` is given with temperature 0.
    """

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if self.temperature is not None and not (math.isfinite(self.temperature) and 0 <= self.temperature <= _HOTTEST):
            raise UsageError(f"the temperature must be between 0 and {_HOTTEST:g}, not {self.temperature:g}")
        if self.top_k is not None and self.top_k < 0:
            raise UsageError(f"top-k must be a number of tokens, or 0 for all, not {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UsageError(f"top-p must be above 0 and at most 1, not {self.top_p:g}")
        if self.greedy and (self.top_k is not None or self.top_p is not None):
            raise UsageError("at temperature 0 the likeliest token is taken: leave out top-k and top-p")

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return self.temperature == 0

    def options(self) -> dict[str, Any]:
        """Arguments for transformers' `generate`."""
        if self.greedy:
            return {"do_sample": False}
        given = {"temperature": self.temperature, "top_k": self.top_k, "top_p": self.top_p}
        return {"do_sample": True} | {name: value for name, value in given.items() if value is not None}


GREEDY = Sampling(temperature=0)
"""Always the likeliest token."""
