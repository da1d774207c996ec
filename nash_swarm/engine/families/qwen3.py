"""Qwen3: norms of the heads of queries and keys."""

from __future__ import annotations

from nash_swarm.engine.family import Family

FAMILY = Family(model_types=("qwen3",), head_norms=("q_norm", "k_norm"))
