"""Type of tuning's products: the faster one differs between processors."""

from __future__ import annotations

import time
from functools import cache

import torch

from nash_swarm.names import Precision

_ROUNDS = 5
_CLEARLY = 1.1
"""Factor by which bfloat16, the less exact type, must be faster to be chosen."""


def compute_dtype(precision: Precision) -> torch.dtype:
    """The torch type that a precision stands for, on this machine with as many threads as torch has now."""
    if precision == "auto":
        return _faster(torch.get_num_threads())
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


@cache
def _faster(threads: int) -> torch.dtype:
    """The faster type, by the shortest of several times of products of tuning's typical shape."""
    operands = {
        dtype: (torch.ones(512, 1024, dtype=dtype), torch.ones(1024, 1024, dtype=dtype))
        for dtype in (torch.float32, torch.bfloat16)
    }
    fastest = dict.fromkeys(operands, float("inf"))
    for _ in range(_ROUNDS):
        for dtype, (x, weight) in operands.items():
            start = time.perf_counter()
            torch.nn.functional.linear(x, weight)
            fastest[dtype] = min(fastest[dtype], time.perf_counter() - start)
    quick = fastest[torch.bfloat16] * _CLEARLY < fastest[torch.float32]
    return torch.bfloat16 if quick else torch.float32
