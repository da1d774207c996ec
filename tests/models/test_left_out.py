"""What is stored and not part of the model that is loaded is named, once, and kept with the source."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from support.coded import add_tensors
from support.models import logits, tiny_gpt2, tiny_llama

from nash_swarm.errors import LeftOutWarning
from nash_swarm.models.offload import checkpoint_of
from nash_swarm.models.source import _from_disk, load_source

IDS = np.arange(3, 19, dtype=np.int32)[None]
_TEXT = {
    "hidden_size": 40, "intermediate_size": 72, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 101,
    "num_key_value_heads": 2, "head_dim": 10, "max_position_embeddings": 64,
}  # fmt: skip
_VISION = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 8,
    "patch_size": 4,
}  # fmt: skip


def gemma3() -> Any:
    config = transformers.Gemma3Config(
        text_config={**_TEXT, "query_pre_attn_scalar": 10}, vision_config=_VISION, mm_tokens_per_image=4
    )
    return transformers.Gemma3ForConditionalGeneration(config).eval()


def llava() -> Any:
    config = transformers.LlavaConfig(
        text_config={**_TEXT, "model_type": "llama"},
        vision_config={**_VISION, "model_type": "clip_vision_model"},
        image_token_index=100,
    )
    return transformers.LlavaForConditionalGeneration(config).eval()


def said(folder: Path, *groups: str) -> str:
    return f"not part of the model that is loaded from {folder.name}: {', '.join(groups)}"


@pytest.mark.parametrize("make", [gemma3, llava])
def test_the_language_model_of_a_multimodal_one(make: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = make()
    model.save_pretrained(tmp_path)
    with pytest.warns(LeftOutWarning, match=r"not part of the model that is loaded.*vision_tower \(\d+ tensors\)"):
        source = load_source(str(tmp_path))
    assert type(source.model).__name__ == {"gemma3": "Gemma3ForCausalLM", "llava": "LlamaForCausalLM"}[make.__name__]
    assert not any("vision" in name for name, _ in source.model.named_modules())
    with torch.no_grad():
        expected = model(input_ids=torch.from_numpy(IDS.astype(np.int64))).logits
    assert torch.allclose(logits(source.model, IDS), expected, atol=1e-5)
    disk = _from_disk(tmp_path, str(tmp_path), False, None, tmp_path)
    assert checkpoint_of(disk.model) is not None
    assert source.left_out == (said(tmp_path, *disk.left_out),)
    assert torch.equal(logits(disk.model, IDS), logits(source.model, IDS))
    source.model.save_pretrained(tmp_path / "text")
    alone = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "text", dtype=torch.float32)
    assert torch.equal(logits(alone.eval(), IDS), logits(source.model, IDS))


def test_layers_that_predict_further_tokens(tmp_path: Path) -> None:
    tiny_llama(tied=True).save_pretrained(tmp_path)
    mtp = {"model.layers.2.eh_proj.weight": torch.ones(40, 80), "model.layers.2.enorm.weight": torch.ones(40),
           "mtp.fc.weight": torch.ones(40, 40)}  # fmt: skip
    add_tensors(tmp_path, mtp)
    expected = ("model.layers.2 (2 tensors)", "mtp (1 tensor)")
    with pytest.warns(LeftOutWarning, match=r"model.layers.2 \(2 tensors\), mtp \(1 tensor\)"):
        assert load_source(str(tmp_path)).left_out == (said(tmp_path, *expected),)
    assert _from_disk(tmp_path, str(tmp_path), False, None, tmp_path).left_out == expected


def test_those_that_transformers_passes_over_without_a_word(tmp_path: Path) -> None:
    config = transformers.Glm4MoeConfig(
        **_TEXT, moe_intermediate_size=32, n_routed_experts=4, num_experts_per_tok=2, first_k_dense_replace=1,
        n_shared_experts=1, n_group=1, topk_group=1,
    )  # fmt: skip
    transformers.Glm4MoeForCausalLM(config).save_pretrained(tmp_path)
    add_tensors(tmp_path, {"model.layers.46.eh_proj.weight": torch.ones(40, 80)})
    with pytest.warns(LeftOutWarning):
        assert load_source(str(tmp_path)).left_out == (said(tmp_path, "model.layers.46 (1 tensor)"),)


def test_a_head_for_masked_tokens(tmp_path: Path) -> None:
    config = transformers.BertConfig(
        hidden_size=40, num_hidden_layers=2, num_attention_heads=4, intermediate_size=72, vocab_size=101,
        max_position_embeddings=64,
    )  # fmt: skip
    transformers.BertForMaskedLM(config).save_pretrained(tmp_path)
    with pytest.warns(LeftOutWarning, match="cls"):
        source = load_source(str(tmp_path))
    assert source.left_out == (said(tmp_path, "cls (5 tensors)"),) and "cls" in source.note


@pytest.mark.parametrize("make", [lambda: tiny_llama(tied=True), lambda: tiny_llama(tied=False), tiny_gpt2])
def test_nothing_is_said_of_complete_models(make: Any, tmp_path: Path) -> None:
    model = make()
    model.save_pretrained(tmp_path)
    first = next(iter(model.state_dict()))
    # what older checkpoints hold, and what is tied
    remade = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(5), "h.0.attn.bias": torch.ones(1, 1, 64, 64),
              "h.0.attn.masked_bias": torch.tensor(-1e4)}  # fmt: skip
    if model.config.tie_word_embeddings:
        remade["lm_head.weight"] = model.get_output_embeddings().weight.detach().clone()
    add_tensors(tmp_path, remade)
    with warnings.catch_warnings():
        warnings.simplefilter("error", LeftOutWarning)
        source = load_source(str(tmp_path))
    assert source.left_out == () and first in source.model.state_dict()
