"""Llama, and decoders that have the same parts."""

from __future__ import annotations

from nash_swarm.engine.family import Family

FAMILY = Family(model_types=("llama", "mistral", "ministral"))
