"""Gated MLPs: the input is rounded once, and three products and the gate follow each other without torch between."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from nash_swarm.integrations.single_token.quick import Quick, bare, unseen, untouched
from nash_swarm.integrations.single_token.recognise import runs
from nash_swarm.quantizers.kernels.single_token import LANES, kernels
from nash_swarm.quantizers.products import one_token

CODE = "7d2027d4464e3e71"


class QuickGatedMlp(Quick):
    """`LlamaMLP` and its namesakes with SiLU; one token."""

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
        if torch.compiler.is_compiling() or not unseen(x) or x.numel() != x.shape[-1] or not self.may():
            return super().forward(x)
        values, factors = one_token(x, gate, up)
        if values.numel() != factors.numel() or values.numel() % LANES:
            return super().forward(x)
        kernels().gate(values.data_ptr(), factors.data_ptr(), values.data_ptr(), values.numel())
        return one_token(values, down)[0].view(*x.shape[:-1], -1)

    def may(self) -> bool:
        """Whether nobody would notice that the layers inside are not called."""
        inner = self._modules
        return bare(inner["gate_proj"], inner["up_proj"], inner["down_proj"]) and untouched(inner["act_fn"])
