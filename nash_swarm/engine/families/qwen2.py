"""Qwen2: Llama with biases of queries, keys and values, which every projection may have."""

from __future__ import annotations

from nash_swarm.engine.family import Family

FAMILY = Family(model_types=("qwen2",))
