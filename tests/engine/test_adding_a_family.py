"""CONTRIBUTING.md's example of a decode family, on a model class that transformers does not have."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import transformers
from support.fused import build, close, fused, pack, steps, unfused
from transformers.models.llama import modeling_llama as llama

import nash_swarm as ns
from nash_swarm.engine import families
from nash_swarm.engine.decoder import FusedDecoder
from nash_swarm.engine.family import Family
from nash_swarm.engine.swap import fuse
from nash_swarm.errors import UsageError

CONTRIBUTING = Path(__file__).parents[2] / "CONTRIBUTING.md"


class RenamedConfig(transformers.LlamaConfig):
    model_type = "renamed"


class Mixer(llama.LlamaAttention):
    """Llama's attention with one projection."""

    def __init__(self, config: Any, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        self._sizes = [layer.out_features for layer in (self.q_proj, self.k_proj, self.v_proj)]
        del self.q_proj, self.k_proj, self.v_proj, self.o_proj
        self.joined = torch.nn.Linear(config.hidden_size, sum(self._sizes), bias=False)
        self.out = torch.nn.Linear(self._sizes[0], config.hidden_size, bias=False)

    def forward(
        self, hidden_states: Any, position_embeddings: Any = None, attention_mask: Any = None,
        past_key_values: Any = None, **kwargs: Any,
    ) -> Any:  # fmt: skip
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        parts = self.joined(hidden_states).split(self._sizes, -1)
        queries, keys, values = (part.reshape(shape).transpose(1, 2) for part in parts)
        queries, keys = llama.apply_rotary_pos_emb(queries, keys, *position_embeddings)
        if past_key_values is not None:
            keys, values = past_key_values.update(keys, values, self.layer_idx)
        attend = llama.ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, None)
        out, weights = attend(self, queries, keys, values, attention_mask, scaling=self.scaling, **kwargs)
        return self.out(out.reshape(*shape[:-2], -1)), weights


class Layer(llama.LlamaDecoderLayer):
    def __init__(self, config: Any, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        del self.self_attn, self.input_layernorm, self.post_attention_layernorm
        self.mixer = Mixer(config, layer_idx)
        self.norm_1, self.norm_2 = (llama.LlamaRMSNorm(config.hidden_size) for _ in range(2))

    def forward(self, hidden_states: Any, **kwargs: Any) -> Any:
        hidden_states = hidden_states + self.mixer(self.norm_1(hidden_states), **kwargs)[0]
        return hidden_states + self.mlp(self.norm_2(hidden_states))


class RenamedModel(llama.LlamaModel):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.tokens = self.embed_tokens
        del self.embed_tokens
        self.layers = torch.nn.ModuleList([Layer(config, k) for k in range(config.num_hidden_layers)])

    def get_input_embeddings(self) -> Any:
        return self.tokens

    def forward(self, input_ids: Any = None, inputs_embeds: Any = None, **kwargs: Any) -> Any:
        return super().forward(
            inputs_embeds=self.tokens(input_ids) if inputs_embeds is None else inputs_embeds, **kwargs
        )


class RenamedForCausalLM(llama.LlamaForCausalLM):
    config_class = RenamedConfig
    _tied_weights_keys: Any = None

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model = RenamedModel(config)


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The page's code that registers the family, with the page's file importable."""
    monkeypatch.setattr(families, "_registered", {})
    section = CONTRIBUTING.read_text(encoding="utf-8").partition("## Add a decode family")[2].partition("\n## ")[0]
    assert len(section.splitlines()) < 40
    file, use = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    module = ModuleType("renamed")
    exec(file, module.__dict__)
    monkeypatch.setitem(sys.modules, "renamed", module)
    yield use


def test_the_example_decodes_fused(example: str, calls: list[str]) -> None:
    torch.manual_seed(0)
    model = RenamedForCausalLM(RenamedConfig(**_sizes())).eval()
    model = pack(model)
    assert not fused(model) and "no family of the model type renamed" in str(fuse(model))
    exec(example, {})
    assert fuse(model) is None
    assert any(isinstance(module, FusedDecoder) for module in model.modules())
    ns.set_activations(model, "fp32")
    calls.clear()
    found = steps(model, transformers.DynamicCache(), tokens=9)
    assert calls.count("stack") == 9
    with unfused(model):
        close(found, steps(model, transformers.DynamicCache(), tokens=9), 1e-5)


def _sizes() -> dict[str, Any]:
    config = build().config
    names = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "head_dim",
        "num_key_value_heads", "max_position_embeddings", "initializer_range", "bos_token_id", "eos_token_id",
        "pad_token_id",
    )  # fmt: skip
    return {name: getattr(config, name) for name in names}


def test_a_model_type_is_declared_once() -> None:
    with pytest.raises(UsageError, match="'llama' already"):
        families.register(Family(model_types=("llama",)))
