"""Gated MLPs: the input is rounded once, and three products and the gate follow each other without torch between."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from nash_swarm.engine.quick import Quick, bare, unnoticed, untouched
from nash_swarm.engine.recognise import Pattern
from nash_swarm.engine.trial import Draw, NotQuick, Pairs
from nash_swarm.quantizers.runtime.cpu.fused.single_token import LANES, kernels
from nash_swarm.quantizers.runtime.products import one_token


class QuickGatedMlp(Quick):
    """`LlamaMLP` and its likes with SiLU; one token, or one of each sequence of a batch."""

    pattern = Pattern(
        parts=frozenset({"gate_proj", "up_proj", "down_proj"}), may=frozenset({"act_fn"}),
        settings=frozenset({"mlp_bias"}),
    )  # fmt: skip

    @classmethod
    def mismatch(cls, module: Any) -> str | None:
        """See `Quick.mismatch`."""
        from transformers.activations import SiLUActivation

        if type(getattr(module, "act_fn", None)) not in (nn.SiLU, SiLUActivation):
            return "its activation is not SiLU"
        if not bare(module.gate_proj, module.up_proj, module.down_proj):
            return "its matrices are not packed, packed weight by weight, or hooked"
        return cls.pattern.mismatch(module)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As the module's own."""
        inner = self._modules
        if torch.compiler.is_compiling() or not unnoticed(x) or not _of_one_token(x) or not untouched(inner["act_fn"]):
            return super().forward(x)
        if torch.is_grad_enabled() or x.numel() != x.shape[-1] or not self.may():
            # what is not one sequence's comes to the bits that it would come to alone
            values, factors = inner["gate_proj"](x), inner["up_proj"](x)  # type: ignore[misc]
            gated = _gated(values, factors) if _fit(values, factors) else inner["act_fn"](values) * factors  # type: ignore[misc]
            return inner["down_proj"](gated)  # type: ignore[misc]
        out = self._run(x)
        return super().forward(x) if out is None else out

    def trial(self, draw: Draw) -> Pairs:
        """See `Quick.trial`."""
        gate: Any = self._modules["gate_proj"]
        for scale in (1.0, 8.0):
            x = scale * draw.normal(1, 1, gate.in_features)
            if (out := self._run(x)) is None:
                raise NotQuick(f"the size between its matrices is no multiple of {LANES}")
            yield out, super().forward(x)

    def may(self) -> bool:
        """Whether nobody would notice that the layers inside are not called."""
        inner = self._modules
        return bare(inner["gate_proj"], inner["up_proj"], inner["down_proj"]) and untouched(inner["act_fn"])

    def _run(self, x: torch.Tensor) -> torch.Tensor | None:
        inner = self._modules
        values, factors = one_token(x, inner["gate_proj"], inner["up_proj"])
        if values.numel() != factors.numel() or values.numel() % LANES:
            return None
        kernels().gate(values.data_ptr(), factors.data_ptr(), values.data_ptr(), values.numel())
        return one_token(values, inner["down_proj"])[0].view(*x.shape[:-1], -1)


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
