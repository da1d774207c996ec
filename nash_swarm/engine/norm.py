"""Root-mean-square norms as one call, with the same bits whether gradients are recorded or not."""

from __future__ import annotations

from typing import Any

import torch

from nash_swarm.engine.draw import Draw, Pairs
from nash_swarm.engine.family import Family
from nash_swarm.engine.fused import Fused, is_plain_eager, strange
from nash_swarm.quantizers.runtime.cpu.fused.single_token import LANES, kernels
from nash_swarm.quantizers.runtime.layer_plan import is_vector

_GAIN = "_nash_swarm_gain"


class FusedNorm(Fused):
    """A norm whose gain is its weight, or its weight and an offset; any number of tokens."""

    @classmethod
    def mismatch(cls, module: Any, family: Family) -> str | None:
        """See `Fused.mismatch`."""
        if (reason := strange(module, (), ("weight",))) is not None:
            return reason
        if not isinstance(getattr(module, family.epsilon, None), float):
            return f"it has no {family.epsilon}"
        if module.weight.ndim != 1 or len(module.weight) % LANES:
            return f"its {tuple(module.weight.shape)} gains are no multiple of {LANES}"
        return None

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """As the module's own."""
        weight: Any = self._parameters["weight"]
        if torch.compiler.is_compiling():
            return super().forward(hidden_states)
        if hidden_states.is_cpu and not hidden_states.is_contiguous():
            hidden_states = hidden_states.contiguous()
        if not is_plain_eager(hidden_states) or not is_vector(weight, hidden_states.shape[-1]):
            return super().forward(hidden_states)
        if torch.is_grad_enabled() and (hidden_states.requires_grad or weight.requires_grad):
            offset = self.family.gain_offset
            gain = offset + weight if offset else weight
            out: torch.Tensor = _Norm.apply(hidden_states, gain, self.epsilon())  # type: ignore[no-untyped-call]
            return out
        return _norm(hidden_states, self.gain(), self.epsilon())

    def trial(self, draw: Draw) -> Pairs:
        """See `Fused.trial`."""
        for scale in (1.0, 100.0, 1e-3):
            x = scale * draw.normal(1, 3, len(self.gain()))
            yield _norm(x, self.gain(), self.epsilon()), super().forward(x)

    def epsilon(self) -> float:
        """Of the root."""
        epsilon: float = self.__dict__[self.family.epsilon]
        return epsilon

    def gain(self) -> torch.Tensor:
        """What the normed token is multiplied with, float32; the same tensor as long as the weight does not change."""
        weight: Any = self._parameters["weight"]
        if not self.family.gain_offset:
            return weight
        state = None if weight.is_inference() else (weight.data_ptr(), weight._version, weight.dtype)
        known = self.__dict__.get(_GAIN)
        if known is None or state is None or known[0] != state:
            known = self.__dict__[_GAIN] = state, (self.family.gain_offset + weight).detach()
        gain: torch.Tensor = known[1]
        return gain

    def __getstate__(self) -> Any:
        # addresses are of no use in a copy
        return {name: value for name, value in self.__dict__.items() if name != _GAIN}


def _norm(x: torch.Tensor, gain: torch.Tensor, epsilon: float) -> torch.Tensor:
    out, size = torch.empty_like(x), gain.numel()
    kernels().norm(x.data_ptr(), gain.data_ptr(), out.data_ptr(), x.numel() // size, size, epsilon)
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
