"""Gemma 3, text: four norms a layer whose gain is 1 + w, norms of heads, GELU, windows, two rotary bases."""

from __future__ import annotations

from nash_swarm.engine.family import Family

FAMILY = Family(
    model_types=("gemma3_text",),
    rotary_by_type=True,
    after_attention="post_attention_layernorm",
    before_mlp="pre_feedforward_layernorm",
    after_mlp="post_feedforward_layernorm",
    gain_offset=1.0,
    epsilon="eps",
    head_norms=("q_norm", "k_norm"),
    unset=("attn_logit_softcapping", "use_bidirectional_attention"),
)
