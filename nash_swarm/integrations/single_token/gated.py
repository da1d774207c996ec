"""Gated MLPs: the input is rounded once, and three products and the gate follow each other without torch between."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from nash_swarm.integrations.single_token.quick import Quick, bare, unseen, untouched
from nash_swarm.integrations.single_token.recognise import Pattern
from nash_swarm.integrations.single_token.trial import Draw, NotQuick, Pairs
from nash_swarm.quantizers.kernels.single_token import LANES, kernels
from nash_swarm.quantizers.products import one_token


class QuickGatedMlp(Quick):
    """`LlamaMLP` and its likes with SiLU; one token."""

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
        if torch.compiler.is_compiling() or not unseen(x) or x.numel() != x.shape[-1] or not self.may():
            return super().forward(x)
        out = self._run(x)
        return super().forward(x) if out is None else out

    def trial(self, draw: Draw) -> Pairs:
        """See `Quick.trial`."""
        for scale in (1.0, 8.0):
            x = scale * draw.normal(1, 1, self._modules["gate_proj"].in_features)  # type: ignore[union-attr]
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
