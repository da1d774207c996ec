"""Qwen3 with experts: norms and attentions alone."""

from __future__ import annotations

from nash_swarm.engine.family import Family

FAMILY = Family(model_types=("qwen3_moe",), head_norms=("q_norm", "k_norm"), gates=())
