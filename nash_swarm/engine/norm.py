"""Root-mean-square norms as one call, with the same bits whether gradients are recorded or not."""

from __future__ import annotations

from typing import Any

import torch

from nash_swarm.engine.quick import Quick, unnoticed
from nash_swarm.engine.recognise import Pattern
from nash_swarm.engine.trial import Draw, Pairs
from nash_swarm.quantizers.runtime.cpu.fused.single_token import LANES, kernels
from nash_swarm.quantizers.runtime.layer_plan import is_vector


class QuickNorm(Quick):
    """`LlamaRMSNorm` and its likes; any number of tokens."""

    pattern = Pattern(weights=frozenset({"weight"}), settings=frozenset({"variance_epsilon"}))
    variance_epsilon: float

    @classmethod
    def resembles(cls, module: Any) -> bool:
        """Whether the module is a norm of some kind."""
        return "norm" in type(module).__name__.lower() and "weight" in module._parameters

    @classmethod
    def mismatch(cls, module: Any) -> str | None:
        """See `Quick.mismatch`."""
        if set(module._parameters) != {"weight"} or not isinstance(vars(module).get("variance_epsilon"), float):
            return "it is no root-mean-square norm with a gain and a variance_epsilon"
        if module.weight.ndim != 1 or len(module.weight) % LANES:
            return f"its {tuple(module.weight.shape)} gains are no multiple of {LANES}"
        return cls.pattern.mismatch(module)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """As the module's own."""
        weight: Any = self._parameters["weight"]
        if torch.compiler.is_compiling():
            return super().forward(hidden_states)
        if hidden_states.is_cpu and not hidden_states.is_contiguous():
            hidden_states = hidden_states.contiguous()
        if not unnoticed(hidden_states) or not is_vector(weight, hidden_states.shape[-1]):
            return super().forward(hidden_states)
        if torch.is_grad_enabled() and (hidden_states.requires_grad or weight.requires_grad):
            out: torch.Tensor = _Norm.apply(hidden_states, weight, self.variance_epsilon)  # type: ignore[no-untyped-call]
            return out
        return _norm(hidden_states, weight, self.variance_epsilon)

    def trial(self, draw: Draw) -> Pairs:
        """See `Quick.trial`."""
        weight: Any = self._parameters["weight"]
        for scale in (1.0, 100.0, 1e-3):
            x = scale * draw.normal(1, 3, len(weight))
            yield _norm(x, weight, self.variance_epsilon), super().forward(x)


def _norm(x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    out, size = torch.empty_like(x), weight.numel()
    kernels().norm(x.data_ptr(), weight.data_ptr(), out.data_ptr(), x.numel() // size, size, epsilon)
    return out


class _Norm(torch.autograd.Function):
    """The kernel, and a derivative made of torch's operations, so that it has derivatives of its own."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.epsilon = epsilon
        return _norm(x, weight, epsilon)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        gradient, of_x, of_weight = gradients[0], None, None
        factor = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + ctx.epsilon)
        normed = x * factor
        if ctx.needs_input_grad[0]:
            inner = gradient * weight
            of_x = factor * (inner - normed * (inner * normed).mean(-1, keepdim=True))
        if ctx.needs_input_grad[1]:
            of_weight = (gradient * normed).flatten(0, -2).sum(0)
        return of_x, of_weight, None
