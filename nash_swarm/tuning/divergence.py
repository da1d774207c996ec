"""KL between two models' next-token distributions, computed from the inputs of their output heads.

The logits are computed for a few tokens at a time: those of a whole batch take gigabytes, a slice stays in the cache.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

_SLICE = 64
"""Number of tokens whose logits are in memory at once."""


@dataclass
class Head:
    """An output head `logits = h W^T + b`.

    Attributes:
        weight: float32 (vocabulary, hidden).
        bias: float32 (vocabulary,) or `None`.
        dtype: type of the products of gradients.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None = None
    dtype: torch.dtype = torch.bfloat16

    def __post_init__(self) -> None:
        self.back = self.weight.to(self.dtype)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """(tokens, hidden) to float32 (tokens, vocabulary)."""
        return torch.nn.functional.linear(hidden.float(), self.weight, self.bias)


@dataclass(frozen=True)
class Divergence:
    """A mean KL with its gradients.

    Attributes:
        kl: mean KL(teacher || student), nats per token.
        hidden: its gradient with respect to the student's head inputs, of their shape and type; or `None`.
        weight: its gradient with respect to the student's head, float32 (vocabulary, hidden); or `None`.
    """

    kl: float
    hidden: torch.Tensor | None = None
    weight: torch.Tensor | None = None


@torch.no_grad()
def divergence(
    student: torch.Tensor,
    head: Head,
    teacher: torch.Tensor,
    original: Head,
    *,
    gradient: bool,
    train_head: bool = False,
) -> Divergence:
    """KL(teacher || student) of the next-token distributions, and its gradients.

    Args:
        student: the student's head inputs, (..., hidden).
        head: the student's output head.
        teacher: the teacher's head inputs, of the same shape.
        original: the teacher's output head.
        gradient: return the gradient with respect to `student`.
        train_head: with `gradient`, return that with respect to `head.weight`, too.
    """
    flat, target = student.detach().flatten(0, -2), teacher.flatten(0, -2)
    tokens, total = len(flat), 0.0
    hidden = torch.empty_like(flat) if gradient else None
    weight = torch.zeros_like(head.weight) if train_head else None
    for start in range(0, tokens, _SLICE):
        part = slice(start, start + _SLICE)
        got, expected = head.logits(flat[part]), original.logits(target[part])
        got.sub_(got.logsumexp(-1, keepdim=True))
        expected.sub_(expected.logsumexp(-1, keepdim=True))
        share = expected.exp()
        total += float(torch.dot(share.flatten(), expected.sub_(got).flatten()))
        if hidden is not None:
            slope = got.exp_().sub_(share).div_(tokens).to(head.dtype)
            hidden[part] = (slope @ head.back).to(hidden.dtype)
            if weight is not None:
                weight += slope.T @ flat[part].to(head.dtype)
    return Divergence(total / tokens, None if hidden is None else hidden.view(student.shape), weight)
