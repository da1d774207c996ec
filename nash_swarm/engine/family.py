"""What a family of decoders declares: where its parts are, and which of the kernels' forms they have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Family:
    """Decoders whose layers are rotary attention and a gated MLP, each behind a root-mean-square norm.

    Names are of attributes. Defaults are Llama's. Which layers see only a window is read from the configuration
    (`sliding_window`, `layer_types`), where transformers' caches read it; head sizes, scales and the kind of activation
    are read from the modules. Whatever is declared is held against the modules' own `forward` when a model is loaded.

    Attributes:
        model_types: `config.model_type` of the decoders.
        embedding, layers, norm, rotary: of the decoder.
        rotary_by_type: the rotary module is asked once for each of `config.layer_types`, and named the type.
        before_attention, before_mlp: norms of a layer in front of its two halves.
        after_attention, after_mlp: norms of what a half adds to the token, if there are any.
        gain_offset: added to the weights of norms.
        epsilon: of a norm.
        attention, mlp: of a layer.
        projections: of the attention, queries, keys and values; one name if they are one matrix, in that order.
        output: of the attention.
        head_norms: of the attention, of queries and of keys.
        gates: of the MLP, gate and up; one name if they are one matrix, in that order; empty if the MLP is of another
            kind, which leaves the model with fused norms and attentions.
        down, activation: of the MLP.
        dropouts: of a layer, which must not drop anything.
        unset: of the configuration, which must be `None` or `False`.
    """

    model_types: tuple[str, ...]
    embedding: str = "embed_tokens"
    layers: str = "layers"
    norm: str = "norm"
    rotary: str = "rotary_emb"
    rotary_by_type: bool = False
    before_attention: str = "input_layernorm"
    after_attention: str | None = None
    before_mlp: str = "post_attention_layernorm"
    after_mlp: str | None = None
    gain_offset: float = 0.0
    epsilon: str = "variance_epsilon"
    attention: str = "self_attn"
    mlp: str = "mlp"
    projections: tuple[str, ...] = ("q_proj", "k_proj", "v_proj")
    output: str = "o_proj"
    head_norms: tuple[str, ...] = ()
    gates: tuple[str, ...] = ("gate_proj", "up_proj")
    down: str = "down_proj"
    activation: str = "act_fn"
    dropouts: tuple[str, ...] = ()
    unset: tuple[str, ...] = ()

    @property
    def norms(self) -> dict[str, str]:
        """A layer's norms, by their place in `decoder_layer.NORMS`."""
        places = {
            "before_attention": self.before_attention, "after_attention": self.after_attention,
            "before_mlp": self.before_mlp, "after_mlp": self.after_mlp,
        }  # fmt: skip
        return {place: name for place, name in places.items() if name is not None}

    @property
    def attention_parts(self) -> tuple[str, ...]:
        """Children of an attention."""
        return (*self.projections, self.output, *self.head_norms)

    @property
    def layer_parts(self) -> tuple[str, ...]:
        """Children of a layer."""
        return (self.attention, self.mlp, *self.norms.values(), *self.dropouts)

    @property
    def decoder_parts(self) -> tuple[str, ...]:
        """Children of a decoder."""
        return (self.embedding, self.layers, self.norm, self.rotary)


def windows(config: Any, count: int) -> tuple[int | None, ...] | None:
    """How many tokens each of `count` layers sees, itself included; `None` if some layer is of another kind."""
    window, kinds = getattr(config, "sliding_window", None), getattr(config, "layer_types", None)
    if kinds is None:
        return (window,) * count
    if not set(kinds[:count]) <= {"full_attention", "sliding_attention"} or len(kinds) < count:
        return None
    return tuple(window if kind == "sliding_attention" else None for kind in kinds[:count])
