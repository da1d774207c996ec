"""Windows are as long as a model has positions for, whatever its configuration calls that."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from support.models import ByteTokenizer, tiny_gpt2

import nash_swarm as ns
from nash_swarm.calibration.text import cut_windows, load_text
from nash_swarm.models.positions import longest_window

_SIZES = {"hidden_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 101}


def mpt() -> Any:
    return transformers.MptForCausalLM(
        transformers.MptConfig(d_model=40, n_heads=4, n_layers=2, vocab_size=101, max_seq_len=48)
    )


def opt() -> Any:
    return transformers.OPTForCausalLM(
        transformers.OPTConfig(**_SIZES, ffn_dim=72, word_embed_proj_dim=40, max_position_embeddings=48)
    )


def roberta() -> Any:
    config = transformers.RobertaConfig(**_SIZES, intermediate_size=72, max_position_embeddings=50, pad_token_id=1)
    return transformers.RobertaModel(config)


def led() -> Any:
    return transformers.LEDForConditionalGeneration(
        transformers.LEDConfig(
            d_model=40, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
            encoder_ffn_dim=72, decoder_ffn_dim=72, vocab_size=101, max_encoder_position_embeddings=64,
            max_decoder_position_embeddings=48, attention_window=8,
        )
    )  # fmt: skip


def gpt2() -> Any:
    model = tiny_gpt2()
    # a configuration that says more than there is
    model.transformer.wpe = torch.nn.Embedding(48, 40)
    return model


MODELS = {"mpt": mpt, "opt": opt, "roberta": roberta, "led": led, "gpt2": gpt2}


@pytest.mark.parametrize("name", MODELS)
def test_the_longest_window(name: str) -> None:
    assert longest_window(MODELS[name]()) == 48


@pytest.mark.parametrize("name", ["mpt", "opt", "roberta", "gpt2"])
def test_it_is_the_longest_that_runs(name: str) -> None:
    model = MODELS[name]().eval()
    ids = torch.arange(2, 51)[None] % 97 + 3
    with torch.no_grad():
        model(ids[:, :48])
        with pytest.raises((IndexError, RuntimeError)):
            model(ids)


def test_windows_are_cut_to_it() -> None:
    text = load_text("python-docs")
    windows = cut_windows(text, ByteTokenizer(), length=512, part="calibration", model=mpt())
    assert windows.shape[1] == 48


def test_a_packed_model_has_as_many() -> None:
    for make in (opt, roberta):
        model = make().eval()
        tokens = np.random.default_rng(0).integers(3, 101, (2, 32)).astype(np.int32)
        game = ns.measure(model, tokens=tokens, damage="magnitude", granularity="layer", quiet=True)
        packed = ns.pack(model, ns.solve(game, bits=9.0), quantizer="rtn", quiet=True)
        assert longest_window(packed) == longest_window(model) == 48


def test_relative_positions_and_towers_for_images_have_no_limit() -> None:
    t5 = transformers.T5ForConditionalGeneration(
        transformers.T5Config(d_model=40, d_kv=10, d_ff=72, num_layers=2, num_heads=4, vocab_size=101)
    )
    assert longest_window(t5) == 1 << 30
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 8, "patch_size": 4}  # fmt: skip
    text = transformers.Gemma3TextConfig(**_SIZES, intermediate_size=72, max_position_embeddings=64, head_dim=10,
                                         num_key_value_heads=2)  # fmt: skip
    config = transformers.Gemma3Config(text_config=text.to_dict(), vision_config=vision, mm_tokens_per_image=4)
    assert longest_window(transformers.Gemma3ForConditionalGeneration(config)) == 64
