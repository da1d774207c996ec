"""Random inputs that fused modules are tried on, and what a trial gives."""

from __future__ import annotations

from collections.abc import Iterator

import torch

Pairs = Iterator[tuple[torch.Tensor, torch.Tensor]]
"""What the kernels give, and what the module's own code gives."""


class NotFused(Exception):
    """The kernels cannot do what the module does."""


class Draw:
    """Random tensors, the same for every trial."""

    def __init__(self) -> None:
        self._generator = torch.Generator().manual_seed(0)

    def normal(self, *shape: int) -> torch.Tensor:
        """Float32, standard normal, with an outlier as hidden states have them."""
        x = torch.randn(shape, generator=self._generator)
        x.view(-1)[0] *= 8
        return x

    def positions(self, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines of a token's position, float32 (1, 1, size) each."""
        angles = 6.3 * torch.rand((1, 1, size // 2), generator=self._generator)
        both = torch.cat([angles, angles], dim=-1)
        return both.cos(), both.sin()

    def token(self, vocabulary: int) -> torch.Tensor:
        """An id, int64 (1, 1)."""
        return torch.randint(vocabulary, (1, 1), generator=self._generator)
