"""Phi-3 and Phi-4: joined projections, and rotary positions of a part of each head."""

from __future__ import annotations

from nash_swarm.engine.family import Family

FAMILY = Family(
    model_types=("phi3",),
    projections=("qkv_proj",),
    gates=("gate_up_proj",),
    activation="activation_fn",
    dropouts=("resid_attn_dropout", "resid_mlp_dropout"),
)
