"""Work over many agents, cut into spans that plain threads share."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

SPAN = 1 << 16
"""Agents of one span. Fixed, so that sums and tie-breaks do not depend on the number of threads."""


def over_spans(task: Callable[[int, int], T], agents: int, span: int | None = None) -> list[T]:
    """`task(start, stop)` for consecutive spans of `span` (by default `SPAN`) agents, results in span order.

    The tasks are expected to call kernels that release the GIL: Numba's own parallel back ends abort or stall when
    two Python threads enter them or when torch's OpenMP runs beside them.
    """
    span = span or SPAN
    starts = range(0, agents, span)
    if len(starts) == 1:
        return [task(0, agents)]
    with ThreadPoolExecutor(min(cores(), len(starts))) as pool:
        return list(pool.map(lambda start: task(start, min(start + span, agents)), starts))


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
