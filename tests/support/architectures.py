"""Tiny random models of every architecture that nash-swarm claims to handle, as data: class, configuration, what is special."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import transformers

from support.models import VOCABULARY


@dataclass(frozen=True)
class Tiny:
    """How to make one tiny model.

    Attributes:
        model: name of the transformers class.
        config: name of its configuration's class.
        settings: beside those all have in common.
        generates: whether it writes text.
        slow: leave it to the slow tests.
    """

    model: str
    config: str
    settings: dict[str, Any] = field(default_factory=dict)
    generates: bool = True
    slow: bool = False

    def make(self, seed: int = 0) -> Any:
        """The model in eval mode, weights and biases random."""
        torch.manual_seed(seed)
        common = {"vocab_size": VOCABULARY, "initializer_range": 0.2, "bos_token_id": 0, "eos_token_id": 1}
        common |= {"pad_token_id": None}
        config = getattr(transformers, self.config)(**common | self.settings)
        model = getattr(transformers, self.model)(config).eval()
        for name, parameter in model.named_parameters():
            # transformers starts biases at zero, where a lost one would not be noticed
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.2)
        return model


def _llama(**more: Any) -> dict[str, Any]:
    """Two blocks of grouped-query attention; hidden size 40, no multiple of 16 or 32."""
    return {
        "hidden_size": 40, "intermediate_size": 72, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 10, "max_position_embeddings": 64, **more,
    }  # fmt: skip


_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "decoder_sparse_step": 1}
_SMALL = {"hidden_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64}

TINY: dict[str, Tiny] = {
    "llama": Tiny("LlamaForCausalLM", "LlamaConfig", _llama(tie_word_embeddings=False)),
    "llama tied": Tiny("LlamaForCausalLM", "LlamaConfig", _llama(tie_word_embeddings=True)),
    "mistral": Tiny("MistralForCausalLM", "MistralConfig", _llama(sliding_window=16)),
    "qwen2": Tiny("Qwen2ForCausalLM", "Qwen2Config", _llama(tie_word_embeddings=True)),
    "qwen3": Tiny("Qwen3ForCausalLM", "Qwen3Config", _llama(tie_word_embeddings=True)),
    "gemma2": Tiny("Gemma2ForCausalLM", "Gemma2Config", _llama(sliding_window=16, query_pre_attn_scalar=10)),
    "gemma3": Tiny("Gemma3ForCausalLM", "Gemma3TextConfig", _llama(sliding_window=16, query_pre_attn_scalar=10)),
    "phi": Tiny("PhiForCausalLM", "PhiConfig", {**_SMALL, "intermediate_size": 72, "partial_rotary_factor": 0.4}),
    "phi3": Tiny("Phi3ForCausalLM", "Phi3Config", _llama()),
    "gpt2": Tiny("GPT2LMHeadModel", "GPT2Config", {"n_positions": 64, "n_embd": 40, "n_layer": 2, "n_head": 4}),
    "gpt-neox": Tiny("GPTNeoXForCausalLM", "GPTNeoXConfig", {**_SMALL, "intermediate_size": 72}),
    "opt": Tiny("OPTForCausalLM", "OPTConfig", {**_SMALL, "ffn_dim": 72, "word_embed_proj_dim": 40, "pad_token_id": 1}),
    "opt projected": Tiny(
        "OPTForCausalLM", "OPTConfig", {**_SMALL, "ffn_dim": 72, "word_embed_proj_dim": 24, "do_layer_norm_before": False, "pad_token_id": 1}
    ),
    "bloom": Tiny("BloomForCausalLM", "BloomConfig", {"hidden_size": 40, "n_layer": 2, "n_head": 4}),
    "mamba": Tiny("MambaForCausalLM", "MambaConfig", {"hidden_size": 40, "num_hidden_layers": 2, "state_size": 8}),
    "mamba2": Tiny("Mamba2ForCausalLM", "Mamba2Config", {"hidden_size": 40, "num_hidden_layers": 2, "state_size": 8, "num_heads": 8, "head_dim": 10, "n_groups": 2, "chunk_size": 16}),
    "rwkv": Tiny("RwkvForCausalLM", "RwkvConfig", {"hidden_size": 40, "num_hidden_layers": 2, "attention_hidden_size": 40, "intermediate_size": 72, "context_length": 64}),
    "mixtral": Tiny("MixtralForCausalLM", "MixtralConfig", _llama(num_local_experts=4, intermediate_size=24)),
    "qwen2-moe": Tiny("Qwen2MoeForCausalLM", "Qwen2MoeConfig", _llama(**_EXPERTS, shared_expert_intermediate_size=32)),
    "qwen3-moe": Tiny("Qwen3MoeForCausalLM", "Qwen3MoeConfig", _llama(**_EXPERTS)),
    "gpt-oss": Tiny("GptOssForCausalLM", "GptOssConfig", _llama(num_local_experts=4, num_experts_per_tok=2, intermediate_size=24, sliding_window=16)),
    "bert": Tiny("BertModel", "BertConfig", {**_SMALL, "intermediate_size": 72, "pad_token_id": 0}, generates=False),
    "t5": Tiny("T5ForConditionalGeneration", "T5Config", {"d_model": 40, "d_kv": 10, "d_ff": 72, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0, "pad_token_id": 0, "tie_word_embeddings": True}),
}
