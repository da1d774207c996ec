"""Root-mean-square norms as one call."""

from __future__ import annotations

from typing import Any

import torch

from nash_swarm.integrations.single_token.quick import Quick, unseen
from nash_swarm.integrations.single_token.recognise import runs
from nash_swarm.quantizers.kernels.single_token import LANES, kernels
from nash_swarm.quantizers.layer_plan import is_vector

CODE = "9635bcd843f309a0"


class QuickNorm(Quick):
    """`LlamaRMSNorm` and its namesakes; any number of tokens."""

    variance_epsilon: float

    @staticmethod
    def fits(module: Any) -> bool:
        """Whether the module is one."""
        return (
            runs(module, CODE)
            and set(module._parameters) == {"weight"}
            and module.weight.ndim == 1
            and len(module.weight) % LANES == 0
            and isinstance(module.variance_epsilon, float)
        )

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """As the module's own."""
        weight: Any = self._parameters["weight"]
        if torch.compiler.is_compiling() or not unseen(hidden_states) or not is_vector(weight, hidden_states.shape[-1]):
            return super().forward(hidden_states)
        out = torch.empty_like(hidden_states)
        size = weight.numel()
        addresses = (hidden_states.data_ptr(), weight.data_ptr(), out.data_ptr())
        kernels().norm(*addresses, hidden_states.numel() // size, size, self.variance_epsilon)
        return out
