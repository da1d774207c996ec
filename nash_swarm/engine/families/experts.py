"""Decoders whose MLP is a mixture of experts, or has no gate: norms and attentions alone."""

from __future__ import annotations

from nash_swarm.engine.family import Family

FAMILY = Family(model_types=("mixtral", "qwen2_moe", "arcee"), gates=())
