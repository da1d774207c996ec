"""Small random models of every architecture that nash-swarm handles, as data: classes, sizes, what is special."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import transformers

VOCABULARY = 509
_PER_FAMILY: Mapping[str, Any] = {
    "vocab_size": VOCABULARY, "initializer_range": 0.1, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
}  # fmt: skip


@dataclass(frozen=True)
class Small:
    """How to make one model.

    Attributes:
        model: name of the transformers class.
        config: name of its configuration's class.
        settings: beside those that all have in common.
        half: parts of names whose matrices are left at 16 bits.
        unreached: parts of names of matrices that no text reaches.
        slow: left to the slow tests.
    """

    model: str
    config: str
    settings: Mapping[str, Any]
    half: tuple[str, ...] = ()
    unreached: tuple[str, ...] = ()
    slow: bool = False

    def make(self, seed: int = 0, **more: Any) -> Any:
        """The model in eval mode, weights and biases random; `more` settings go before its own."""
        torch.manual_seed(seed)
        config = getattr(transformers, self.config)(**{**_PER_FAMILY, **self.settings, **more})
        model = getattr(transformers, self.model)(config).eval()
        for name, parameter in model.named_parameters():
            # transformers starts biases at zero, where a lost one would not be noticed
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.1)
        return model


_COMMON = {"hidden_size": 120, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64}
_PLAIN = {**_COMMON, "intermediate_size": 200}
_LLAMA = {**_PLAIN, "num_key_value_heads": 2, "head_dim": 30}
_GEMMA = {**_LLAMA, "sliding_window": 16, "query_pre_attn_scalar": 30}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 72, "decoder_sparse_step": 1}
_LOCAL_EXPERTS = {**_LLAMA, "num_local_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 72}
_OPT = {**_COMMON, "ffn_dim": 200, "pad_token_id": 1}
_MAMBA = {"hidden_size": 120, "num_hidden_layers": 2, "state_size": 8}
_T5 = {
    "d_model": 120, "d_kv": 30, "d_ff": 200, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0,
    "initializer_factor": 0.5,
}  # fmt: skip
_BART = {
    "d_model": 120, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 200, "decoder_ffn_dim": 200, "max_position_embeddings": 64,
    "scale_embedding": True, "init_std": 0.1, "decoder_start_token_id": 1, "forced_eos_token_id": None,
}  # fmt: skip

ARCHITECTURES: dict[str, Small] = {
    "llama": Small("LlamaForCausalLM", "LlamaConfig", {**_LLAMA, "tie_word_embeddings": False}),
    "llama-tied": Small("LlamaForCausalLM", "LlamaConfig", {**_LLAMA, "tie_word_embeddings": True}, slow=True),
    "mistral": Small("MistralForCausalLM", "MistralConfig", {**_LLAMA, "sliding_window": 16}, slow=True),
    "qwen2": Small("Qwen2ForCausalLM", "Qwen2Config", {**_LLAMA, "tie_word_embeddings": True}, slow=True),
    "qwen3": Small("Qwen3ForCausalLM", "Qwen3Config", {**_LLAMA, "tie_word_embeddings": True}, slow=True),
    "gemma2": Small("Gemma2ForCausalLM", "Gemma2Config", _GEMMA, slow=True),
    "gemma3": Small("Gemma3ForCausalLM", "Gemma3TextConfig", _GEMMA),
    "phi": Small("PhiForCausalLM", "PhiConfig", {**_PLAIN, "partial_rotary_factor": 0.4}, slow=True),
    "phi-tied": Small(
        "PhiForCausalLM", "PhiConfig", {**_PLAIN, "partial_rotary_factor": 0.4, "tie_word_embeddings": True}
    ),
    "phi3": Small("Phi3ForCausalLM", "Phi3Config", _LLAMA, slow=True),
    "gpt2": Small(
        "GPT2LMHeadModel", "GPT2Config", {"n_positions": 64, "n_embd": 120, "n_layer": 2, "n_head": 4}, slow=True
    ),
    "gpt-neox": Small("GPTNeoXForCausalLM", "GPTNeoXConfig", _PLAIN, slow=True),
    "opt": Small("OPTForCausalLM", "OPTConfig", {**_OPT, "word_embed_proj_dim": 120}, slow=True),
    "opt-projected": Small(
        "OPTForCausalLM", "OPTConfig", {**_OPT, "word_embed_proj_dim": 56, "do_layer_norm_before": False}
    ),
    "gpt-j": Small(
        "GPTJForCausalLM",
        "GPTJConfig",
        {"n_positions": 64, "n_embd": 120, "n_layer": 2, "n_head": 4, "rotary_dim": 12},
        slow=True,
    ),
    "falcon": Small(
        "FalconForCausalLM",
        "FalconConfig",
        {"hidden_size": 120, "num_hidden_layers": 2, "num_attention_heads": 4},
        slow=True,
    ),
    "bloom": Small("BloomForCausalLM", "BloomConfig", {"hidden_size": 120, "n_layer": 2, "n_head": 4}, slow=True),
    "mamba": Small("MambaForCausalLM", "MambaConfig", _MAMBA, half=("dt_proj",)),
    "mamba2": Small(
        "Mamba2ForCausalLM",
        "Mamba2Config",
        {**_MAMBA, "num_heads": 8, "head_dim": 30, "n_groups": 2, "chunk_size": 16},
        slow=True,
    ),
    "jamba": Small(
        "JambaForCausalLM",
        "JambaConfig",
        {
            **_LLAMA,
            "num_hidden_layers": 4,
            "num_experts": 2,
            "use_mamba_kernels": False,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
        },
        half=("dt_proj", "router"),
        slow=True,
    ),
    "rwkv": Small(
        "RwkvForCausalLM",
        "RwkvConfig",
        {
            "hidden_size": 120,
            "num_hidden_layers": 2,
            "intermediate_size": 200,
            "context_length": 64,
            "rescale_every": 1,
        },
    ),
    "mixtral": Small("MixtralForCausalLM", "MixtralConfig", _LOCAL_EXPERTS, half=("mlp.gate",)),
    "qwen2-moe": Small(
        "Qwen2MoeForCausalLM",
        "Qwen2MoeConfig",
        {**_LLAMA, **_EXPERTS, "shared_expert_intermediate_size": 72},
        half=("mlp.gate",),
        slow=True,
    ),
    "qwen3-moe": Small("Qwen3MoeForCausalLM", "Qwen3MoeConfig", {**_LLAMA, **_EXPERTS}, half=("mlp.gate",), slow=True),
    "gpt-oss": Small(
        "GptOssForCausalLM",
        "GptOssConfig",
        {**_LOCAL_EXPERTS, "sliding_window": 16, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
        half=("mlp.router",),
        slow=True,
    ),
    "bert": Small("BertModel", "BertConfig", _PLAIN, unreached=("pooler.dense",)),
    "modernbert": Small("ModernBertModel", "ModernBertConfig", {**_PLAIN, "local_attention": 16}, slow=True),
    "albert": Small("AlbertModel", "AlbertConfig", {**_PLAIN, "embedding_size": 56}, unreached=("pooler",), slow=True),
    "deberta": Small(
        "DebertaV2Model",
        "DebertaV2Config",
        {**_PLAIN, "relative_attention": True, "position_buckets": 16, "pos_att_type": ["p2c", "c2p"]},
        unreached=("pos_key_proj", "pos_query_proj"),
        slow=True,
    ),
    "t5": Small("T5ForConditionalGeneration", "T5Config", _T5),
    "t5-gated": Small(
        "T5ForConditionalGeneration",
        "T5Config",
        {**_T5, "tie_word_embeddings": False, "feed_forward_proj": "gated-gelu"},
        slow=True,
    ),
    "bart": Small("BartForConditionalGeneration", "BartConfig", _BART, slow=True),
    "marian": Small(
        "MarianMTModel",
        "MarianConfig",
        {**_BART, "decoder_start_token_id": 2},
        unreached=("encoder.embed_positions", "decoder.embed_positions"),
        slow=True,
    ),
}
