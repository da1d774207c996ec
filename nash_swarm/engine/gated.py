"""Gated MLPs: the gate of one token, or of one of each sequence of a batch, is one kernel, with derivatives."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from torch import nn

from nash_swarm.engine.draw import Draw, NotFused, Pairs
from nash_swarm.engine.family import Family
from nash_swarm.engine.fused import Fused, is_packed, is_plain_eager, is_untouched, strange
from nash_swarm.quantizers.runtime.cpu.fused.single_token import GELU, GELU_TANH, LANES, SILU, kernels


class FusedMlp(Fused):
    """down(activation(gate(x)) * up(x)), gate and up apart or joined; one token, or one of each of a batch."""

    @classmethod
    def mismatch(cls, module: Any, family: Family) -> str | None:
        """See `Fused.mismatch`."""
        matrices = (*family.gates, family.down)
        if (reason := strange(module, matrices, other=(family.activation,))) is not None:
            return reason
        activation = getattr(module, family.activation, None)
        if type(activation) not in _activations():
            return f"its activation is {getattr(activation, '__name__', type(activation).__name__)}"
        if not is_packed(*(module._modules[name] for name in matrices)):
            return "its matrices are not packed, packed weight by weight, or hooked"
        return None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As the module's own."""
        if torch.compiler.is_compiling() or not is_plain_eager(x) or not _of_one_token(x) or not self._is_known():
            return super().forward(x)
        out = self._run(x)
        return super().forward(x) if out is None else out

    def trial(self, draw: Draw) -> Pairs:
        """See `Fused.trial`."""
        gate: Any = self._modules[self.family.gates[0]]
        for scale in (1.0, 8.0):
            x = scale * draw.normal(1, 1, gate.in_features)
            if (out := self._run(x)) is None:
                raise NotFused(f"the size between its matrices is no multiple of {LANES}")
            yield out, super().forward(x)

    def may(self) -> bool:
        """Whether kernels may stand in for the layers inside: they are packed, without hooks, and known."""
        return self._is_known() and is_packed(*(self._modules[name] for name in (*self.family.gates, self.family.down)))

    def kind(self) -> int:
        """Of the activation: `SILU`, `GELU_TANH` or `GELU`."""
        return _activations()[type(self._modules[self.family.activation])]

    def _is_known(self) -> bool:
        activation: Any = self._modules[self.family.activation]
        return type(activation) in _activations() and is_untouched(activation)

    def _run(self, x: torch.Tensor) -> torch.Tensor | None:
        inner, family = self._modules, self.family
        both = [inner[name](x) for name in family.gates]  # type: ignore[misc]
        values, factors = both if len(both) == 2 else (part.contiguous() for part in both[0].chunk(2, -1))
        if values.shape != factors.shape or values.shape[-1] % LANES:
            return None
        if not (is_plain_eager(values) and is_plain_eager(factors)):
            return None
        out: torch.Tensor = inner[family.down](_gated(values, factors, self.kind()))  # type: ignore[misc]
        return out


@cache
def _activations() -> dict[type[Any], int]:
    """Classes of activations, of torch and of any release of transformers."""
    from transformers import activations

    named = {
        "SiLUActivation": SILU, "GELUTanh": GELU_TANH, "PytorchGELUTanh": GELU_TANH, "NewGELUActivation": GELU_TANH,
        "GELUActivation": GELU,
    }  # fmt: skip
    found = {getattr(activations, name): kind for name, kind in named.items() if hasattr(activations, name)}
    return {**found, nn.SiLU: SILU}


def _of_one_token(x: torch.Tensor) -> bool:
    """Whether there is one token, or a batch of sequences of one."""
    return x.numel() == x.shape[-1] or (x.ndim == 3 and x.shape[1] == 1 and x.shape[0] > 0)


def _gated(values: torch.Tensor, factors: torch.Tensor, kind: int) -> torch.Tensor:
    if torch.is_grad_enabled() and (values.requires_grad or factors.requires_grad):
        out: torch.Tensor = _Gate.apply(values, factors, kind)  # type: ignore[no-untyped-call]
        return out
    return _gate(values, factors, kind)


def _gate(values: torch.Tensor, factors: torch.Tensor, kind: int) -> torch.Tensor:
    out = torch.empty_like(values)
    kernels().gate(values.data_ptr(), factors.data_ptr(), out.data_ptr(), values.numel(), kind)
    return out


class _Gate(torch.autograd.Function):
    """The kernel, and a derivative made of torch's operations, so that it has derivatives of its own."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, factors: torch.Tensor, kind: int) -> torch.Tensor:
        ctx.save_for_backward(values, factors)
        ctx.kind = kind
        return _gate(values, factors, kind)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        values, factors = ctx.saved_tensors
        activated, slope = _with_slope(values, ctx.kind)
        of_values = gradients[0] * factors * slope if ctx.needs_input_grad[0] else None
        of_factors = gradients[0] * activated if ctx.needs_input_grad[1] else None
        return of_values, of_factors, None


def _with_slope(x: torch.Tensor, kind: int) -> tuple[torch.Tensor, torch.Tensor]:
    """An activation and its derivative."""
    if kind == SILU:
        open_ = torch.sigmoid(x)
        return x * open_, open_ * (1 + x * (1 - open_))
    if kind == GELU:
        below = 0.5 * (1 + torch.erf(x / math.sqrt(2)))
        return x * below, below + x * torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    bend = math.sqrt(2 / math.pi)
    tanh = torch.tanh(bend * (x + 0.044715 * x**3))
    return 0.5 * x * (1 + tanh), 0.5 * (1 + tanh) + 0.5 * x * (1 - tanh**2) * bend * (1 + 0.134145 * x**2)
