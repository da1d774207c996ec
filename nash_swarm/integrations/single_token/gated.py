"""Gated MLPs: the input is rounded once, and three products and the gate follow each other without torch between."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from nash_swarm.integrations.single_token.quick import Quick, bare, unnoticed, untouched
from nash_swarm.integrations.single_token.recognise import runs
from nash_swarm.quantizers.kernels.single_token import LANES, kernels
from nash_swarm.quantizers.products import one_token

CODE = "7d2027d4464e3e71"


class QuickGatedMlp(Quick):
    """`LlamaMLP` and its namesakes with SiLU; one token, or one of each sequence of a batch."""

    @staticmethod
    def fits(module: Any) -> bool:
        """Whether the module is one."""
        from transformers.activations import SiLUActivation

        return (
            runs(module, CODE)
            and type(module.act_fn) in (nn.SiLU, SiLUActivation)
            and bare(module.gate_proj, module.up_proj, module.down_proj)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As the module's own."""
        inner = self._modules
        gate, up, down = inner["gate_proj"], inner["up_proj"], inner["down_proj"]
        if torch.compiler.is_compiling() or not unnoticed(x) or not _of_one_token(x) or not untouched(inner["act_fn"]):
            return super().forward(x)
        if torch.is_grad_enabled() or x.numel() != x.shape[-1] or not self.may():
            # what is not one sequence's comes to the bits that it would come to alone
            values, factors = gate(x), up(x)  # type: ignore[misc]
            return down(_gated(values, factors) if _fit(values, factors) else inner["act_fn"](values) * factors)  # type: ignore[misc]
        values, factors = one_token(x, gate, up)
        if values.numel() != factors.numel() or values.numel() % LANES:
            return super().forward(x)
        kernels().gate(values.data_ptr(), factors.data_ptr(), values.data_ptr(), values.numel())
        return one_token(values, down)[0].view(*x.shape[:-1], -1)

    def may(self) -> bool:
        """Whether nobody would notice that the layers inside are not called."""
        inner = self._modules
        return bare(inner["gate_proj"], inner["up_proj"], inner["down_proj"]) and untouched(inner["act_fn"])


def _of_one_token(x: torch.Tensor) -> bool:
    """Whether there is one token, or a batch of sequences of one."""
    return x.numel() == x.shape[-1] or (x.ndim == 3 and x.shape[1] == 1 and x.shape[0] > 0)


def _fit(values: torch.Tensor, factors: torch.Tensor) -> bool:
    return unnoticed(values) and unnoticed(factors) and values.shape == factors.shape and values.shape[-1] % LANES == 0


def _gated(values: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    if torch.is_grad_enabled() and (values.requires_grad or factors.requires_grad):
        out: torch.Tensor = _Gate.apply(values, factors)  # type: ignore[no-untyped-call]
        return out
    return _gate(values, factors)


def _gate(values: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(values)
    kernels().gate(values.data_ptr(), factors.data_ptr(), out.data_ptr(), values.numel())
    return out


class _Gate(torch.autograd.Function):
    """The kernel, and a derivative made of torch's operations, so that it has derivatives of its own."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(values, factors)
        return _gate(values, factors)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        values, factors = ctx.saved_tensors
        open_ = torch.sigmoid(values)
        of_values = of_factors = None
        if ctx.needs_input_grad[0]:
            of_values = gradients[0] * factors * open_ * (1 + values * (1 - open_))
        if ctx.needs_input_grad[1]:
            of_factors = gradients[0] * values * open_
        return of_values, of_factors
