"""Models built without memory for their weights have the buffers of models built with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from support.bench import Bench
from support.models import logits, tiny_llama
from torch import nn

import nash_swarm as ns
from nash_swarm.errors import DataError, UsageError
from nash_swarm.models import skeletons
from nash_swarm.models.kinds import auto_class
from nash_swarm.models.offload import offloaded
from nash_swarm.models.skeletons import outline, skeleton
from nash_swarm.models.source import load_source

_SIZES = {
    "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "vocab_size": 509, "max_position_embeddings": 64, "initializer_range": 0.1,
}  # fmt: skip


def gemma3n() -> Any:
    """Its `_init_weights` of a part asks the whole model for what only the part has."""
    return transformers.Gemma3nTextConfig(
        **_SIZES, num_hidden_layers=4, num_kv_shared_layers=2, layer_types=["sliding_attention", "full_attention"] * 2,
        activation_sparsity_pattern=[0.5, 0.0, 0.0, 0.0], hidden_size_per_layer_input=16,
        vocab_size_per_layer_input=509, laurel_rank=8, sliding_window=16,
    )  # fmt: skip


def falcon_h1() -> Any:
    """Nothing but its constructor computes the multipliers of its mixers."""
    return transformers.FalconH1Config(
        **_SIZES, num_hidden_layers=2, mamba_d_ssm=64, mamba_n_heads=4, mamba_d_head=16, mamba_d_state=8,
        mamba_n_groups=1, mamba_chunk_size=16, ssm_multipliers=[0.5, 0.6, 0.7, 0.8, 0.9],
    )  # fmt: skip


CONFIGS: dict[str, Callable[[], Any]] = {
    "gemma3n": gemma3n,
    "falcon-h1": falcon_h1,
    "llama": lambda: tiny_llama(tied=True).config,
    "gpt2": lambda: transformers.GPT2Config(n_positions=64, n_embd=40, n_layer=2, n_head=4, vocab_size=101),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_buffers_hold_their_values(name: str) -> None:
    config = CONFIGS[name]()
    built = auto_class(config).from_config(config, dtype=torch.float32)
    made = skeleton(config)
    stored = set(built.state_dict())
    assert set(made.state_dict()) == stored
    buffers = dict(built.named_buffers())
    assert [path for path, _ in made.named_buffers()] == list(buffers)
    for path, buffer in made.named_buffers():
        assert buffer.is_meta if path in stored else torch.equal(buffer, buffers[path]), path
    assert all(parameter.is_meta for parameter in made.parameters())
    shared = built.get_input_embeddings().weight is built.get_output_embeddings().weight
    assert (made.get_input_embeddings().weight is made.get_output_embeddings().weight) == shared


def test_random_numbers_are_left_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    skeleton(gemma3n())
    assert torch.equal(torch.rand(3), expected)


def test_large_weights_never_have_memory() -> None:
    config = tiny_llama(tied=True).config
    config.vocab_size = 1 << 45
    assert skeleton(config).get_input_embeddings().weight.shape[0] == 1 << 45


def test_large_buffers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", torch.ones(1 << 14, 1 << 15), persistent=False)

    class Factory:
        @staticmethod
        def from_config(config: Any, dtype: Any) -> Any:
            return Holder()

    monkeypatch.setattr(skeletons, "auto_class", lambda _: Factory)
    with pytest.raises(UsageError, match="the buffer table of a Holder is too large"):
        skeleton(None)
    with pytest.raises(DataError, match="bytes of buffers"):
        outline(None, 1000)


@pytest.mark.parametrize("name", ["gemma3n", "falcon-h1"])
def test_they_load_and_give_the_same_from_disk(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = auto_class(config := CONFIGS[name]()).from_config(config, dtype=torch.float32).eval()
    model.save_pretrained(tmp_path)
    ids = np.arange(3, 19, dtype=np.int32)[None]
    expected = logits(model, ids)
    assert torch.equal(logits(load_source(str(tmp_path)).model, ids), expected)
    disk = offloaded(tmp_path, transformers.AutoConfig.from_pretrained(tmp_path), tmp_path)
    if name == "gemma3n":  # it multiplies with weights of modules that it does not run
        with pytest.raises(UsageError, match="does not come apart into blocks"):
            ns.measure(disk, tokens=ids, quiet=True)
        return
    assert torch.equal(logits(disk, ids), expected)


def test_gemma3n_is_compressed(bench: Bench, tmp_path: Path) -> None:
    torch.manual_seed(0)
    transformers.Gemma3nForCausalLM(gemma3n()).save_pretrained(tmp_path / "source")
    transformers.AutoTokenizer.from_pretrained(bench.model).save_pretrained(tmp_path / "source")
    made = ns.compress(
        str(tmp_path / "source"), out=tmp_path / "out", bits=6.0, text=str(bench.text), windows=2, eval_windows=1,
        effort="fast", quiet=True,
    )  # fmt: skip
    assert made.evaluation is not None and made.evaluation.kl is not None and made.evaluation.kl < 0.5
    assert torch.isfinite(logits(ns.load(tmp_path / "out"), np.arange(3, 19, dtype=np.int32)[None])).all()
