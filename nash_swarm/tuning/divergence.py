"""KL between two models' next-token distributions from their output heads' inputs, a few tokens at a time.

All logits of a batch take gigabytes; a slice of them stays in the processor's cache.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

_SLICE = 64
"""Tokens whose logits are in memory at once."""


@dataclass
class Head:
    """An output head `logits = h W^T + b`.

    Attributes:
        weight: float32 (vocabulary, hidden).
        bias: float32 (vocabulary,) or `None`.
        dtype: what gradients are multiplied in.
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
    """What `divergence` found.

    Attributes:
        kl: mean KL(teacher || student), nats per token.
        hidden: its gradient by the student's head inputs, of their shape and type; `None` if not asked for.
        weight: its gradient by the student's head, float32 (vocabulary, hidden); `None` if not asked for.
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
    """KL of the teacher's next-token distribution to the student's, and its gradients.

    Args:
        student: the student's head inputs, (..., hidden).
        head: the student's output head.
        teacher: the teacher's head inputs, of the same shape.
        original: the teacher's output head.
        gradient: return the gradient by `student`.
        train_head: return the gradient by `head.weight` too.
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
