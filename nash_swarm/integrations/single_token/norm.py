"""Root-mean-square norms as one call."""

from __future__ import annotations

from typing import Any

import torch

from nash_swarm.integrations.single_token.quick import Quick, unseen
from nash_swarm.integrations.single_token.recognise import Pattern
from nash_swarm.integrations.single_token.trial import Draw, Pairs
from nash_swarm.quantizers.kernels.single_token import LANES, kernels
from nash_swarm.quantizers.layer_plan import is_vector


class QuickNorm(Quick):
    """`LlamaRMSNorm` and its likes; any number of tokens."""

    pattern = Pattern(settings=frozenset({"variance_epsilon"}))
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
        if torch.compiler.is_compiling() or not unseen(hidden_states) or not is_vector(weight, hidden_states.shape[-1]):
            return super().forward(hidden_states)
        return self._run(hidden_states)

    def trial(self, draw: Draw) -> Pairs:
        """See `Quick.trial`."""
        size = len(self._parameters["weight"])  # type: ignore[arg-type]
        for scale in (1.0, 100.0, 1e-3):
            x = scale * draw.normal(1, 3, size)
            yield self._run(x), super().forward(x)

    def _run(self, x: torch.Tensor) -> torch.Tensor:
        weight: Any = self._parameters["weight"]
        out, size = torch.empty_like(x), weight.numel()
        addresses = (x.data_ptr(), weight.data_ptr(), out.data_ptr())
        kernels().norm(*addresses, x.numel() // size, size, self.variance_epsilon)
        return out
