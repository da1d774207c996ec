"""Sums of outer products over tokens, to the same bits on any number of threads."""

from __future__ import annotations

import torch

_TOKENS = 512
"""Tokens that one product sums over: over more, some libraries add in an order that depends on the number of threads,
and everything that follows from the sums would, too."""


def add_products(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Add the sum over tokens of l r^T to `total`, which is returned.

    Args:
        total: (rows, columns), changed.
        left: (tokens, rows).
        right: (tokens, columns), as many tokens.
    """
    for some, others in zip(left.split(_TOKENS), right.split(_TOKENS), strict=True):
        total.addmm_(some.T, others)
    return total
