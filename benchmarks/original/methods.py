"""How the document rounds: `nn.Linear` only, a width for every weight, one scale for each width of a tensor.

What it left open is decided here in its favour: a scale spans the weights that share it, not the whole tensor, and both
readings of a weight's importance are there, its size and its size times its gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from nash_swarm.errors import UsageError

SHARES = ((8, 0.1), (4, 0.2), (2, 0.7))
"""Widths and the shares of a tensor's weights that get them, most important ones first."""
_HALF_BITS = 16

Importance = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]
"""Of each weight, from the weights and their gradient."""


@dataclass(frozen=True)
class Method:
    """A row of the document's table.

    Attributes:
        name: what its row is called.
        importance: which weights count; `None` for one width for all.
        bits: the width for all where there is no importance.
        needs_gradient: whether the importance looks at gradients.
    """

    name: str
    importance: Importance | None = None
    bits: int = 4
    needs_gradient: bool = False


def _size(weight: torch.Tensor, gradient: torch.Tensor | None) -> torch.Tensor:
    return weight.abs()


def _first_order(weight: torch.Tensor, gradient: torch.Tensor | None) -> torch.Tensor:
    assert gradient is not None
    return (weight * gradient).abs()


METHODS = (
    Method("quantile of |w|", _size),
    Method("quantile of |w dL/dw|", _first_order, needs_gradient=True),
    Method("uniform 4 bits"),
)


@dataclass(frozen=True)
class Rounding:
    """What rounding by the document's method did, and what it takes.

    Attributes:
        weights: weights that were rounded.
        code_bits: sum of their widths.
        map_entropy: bits a weight that no map of the widths can do without on average (C. Shannon 1948): the entropy of
            the shares of the widths, tensor by tensor.
        scales: numbers that a decoder needs beside the codes.
        others: parameters that were not touched.
    """

    weights: int
    code_bits: int
    map_entropy: float
    scales: int
    others: int

    @property
    def theoretical_bytes(self) -> int:
        """What the document counts: codes of the rounded tensors, and nothing else."""
        return self.code_bits // 8

    @property
    def theoretical_bits(self) -> float:
        """Bits a rounded weight, as the document counts."""
        return self.code_bits / self.weights

    @property
    def least_bytes(self) -> int:
        """The least that a file with all of it can take: codes, map, 16-bit scales, and the rest in 16 bits."""
        bits = self.code_bits + self.map_entropy * self.weights + _HALF_BITS * (self.scales + self.others)
        return math.ceil(bits / 8)

    @property
    def parameters(self) -> int:
        """All parameters of the model, tied ones once."""
        return self.weights + self.others


def linears(model: nn.Module) -> dict[str, nn.Linear]:
    """Every `nn.Linear`, a shared weight once; GPT-2's blocks have none, because they are made of `Conv1D`.

    Raises:
        UsageError: there is none.
    """
    found = {name: module for name, module in model.named_modules() if type(module) is nn.Linear}
    unique = {id(module.weight): (name, module) for name, module in reversed(found.items())}
    if not unique:
        raise UsageError(f"{type(model).__name__} has no nn.Linear, which is all that the original protocol rounds")
    return dict(reversed(unique.values()))


@torch.no_grad()
def round_linears(model: nn.Module, method: Method, gradients: Mapping[str, torch.Tensor] | None = None) -> Rounding:
    """Round every `nn.Linear` of `model` in place; whatever shares its weight (a tied embedding) changes with it.

    Args:
        model: changed.
        method: which widths.
        gradients: of the loss, by module, float32 of the weights' shapes; if the method needs them.
    """
    modules = linears(model)
    code_bits, map_bits, scales = 0, 0.0, 0
    for name, module in modules.items():
        weight = module.weight.data
        if method.importance is None:
            widths = torch.full(weight.shape, method.bits, dtype=torch.uint8)
        else:
            widths = widths_by_rank(method.importance(weight, None if gradients is None else gradients[name]))
        counts: list[int] = []
        for bits in widths.unique().tolist():
            chosen = widths == bits
            weight[chosen] = round_to_grid(weight[chosen], bits)
            counts.append(int(chosen.sum()))
            code_bits += bits * counts[-1]
            scales += 1
        map_bits += -sum(count * math.log2(count / weight.numel()) for count in counts)
    weights = sum(module.weight.numel() for module in modules.values())
    total = sum(parameter.numel() for parameter in {id(p): p for p in model.parameters()}.values())
    return Rounding(weights, code_bits, map_bits / weights, scales, total - weights)


def widths_by_rank(importance: torch.Tensor) -> torch.Tensor:
    """The 10/20/70 % rule within one tensor, uint8 of its shape; of equal weights the first ones rank higher."""
    order = importance.flatten().argsort(descending=True, stable=True)
    widths = torch.empty(order.shape, dtype=torch.uint8)
    start, share = 0, 0.0
    for bits, part in SHARES:
        share += part
        stop = round(share * len(order))
        widths[order[start:stop]] = bits
        start = stop
    return widths.reshape(importance.shape)


def round_to_grid(weights: torch.Tensor, bits: int) -> torch.Tensor:
    """Symmetric rounding to nearest with one scale, from the largest weight: 2^(bits - 1) - 1 levels on each side."""
    steps = 2 ** (bits - 1) - 1
    scale = float(weights.abs().max()) / steps if weights.numel() else 0.0
    return (weights / scale).round().clamp(-steps, steps) * scale if scale else weights.clone()
