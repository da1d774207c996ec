"""Extreme weights, activations and texts through `compress`."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from support.bench import Bench
from support.models import logits

import nash_swarm as ns
from nash_swarm.errors import DataError
from nash_swarm.models.source import Source, load_source

BITS = 5.0


def compressed(bench: Bench, source: Any, out: Path, **settings: Any) -> tuple[ns.Compressed, Any]:
    """Compress and reload a model, with the checks that hold for all of them."""
    settings = {"bits": BITS, "text": str(bench.text), "windows": 3, "eval_windows": 1, "contest": False} | settings
    made = ns.compress(source, out=out, quiet=True, **settings)
    assert made.evaluation is not None and made.evaluation.loss is not None and made.evaluation.kl is not None
    assert math.isfinite(made.evaluation.loss) and math.isfinite(made.evaluation.kl)
    assert made.file_bytes * 8 <= made.allocation.budget.total_bits
    assert np.isfinite(made.allocation.certificate.predicted_damage)
    loaded = ns.load(out)
    assert all(torch.isfinite(tensor).all() for tensor in loaded.state_dict().values())
    assert torch.isfinite(logits(loaded, np.arange(3, 19, dtype=np.int32)[None])).all()
    return made, loaded


@torch.no_grad()
def zero_layers(model: Any) -> None:
    """Zero matrices and a zero block."""
    for module in (model.model.layers[0].mlp, model.model.layers[1].self_attn):
        for parameter in module.parameters():
            parameter.zero_()


@torch.no_grad()
def dead_inputs(model: Any) -> None:
    """Input channels that are always zero: a whole group and single ones."""
    for layer in model.model.layers:
        layer.input_layernorm.weight[:65] = 0
        layer.post_attention_layernorm.weight[7] = 0
        layer.mlp.up_proj.weight[3:70] = 0
    model.model.norm.weight[:33] = 0


@torch.no_grad()
def singular(model: Any) -> None:
    """An embedding of rank one: all inputs are multiples of one vector."""
    table = model.model.embed_tokens.weight
    table.copy_(table[:, :1] * table[:1])
    model.model.layers[0].self_attn.v_proj.weight.zero_()


@torch.no_grad()
def constant_groups(model: Any) -> None:
    """Groups of equal weights: positive, negative, tiny, and zero."""
    attention = model.model.layers[0].self_attn
    attention.q_proj.weight.fill_(0.37)
    attention.k_proj.weight.fill_(-0.011)
    attention.v_proj.weight[:, :64] = 1e-7
    model.model.layers[1].mlp.down_proj.weight[:, 64:128] = 0
    model.model.layers[1].mlp.gate_proj.weight[5] = -3.0


@torch.no_grad()
def tiny_and_huge(model: Any) -> None:
    """Weights of very different magnitudes, within a matrix and between matrices."""
    attention = model.model.layers[0].self_attn
    attention.q_proj.weight[:, ::2] *= 1e-20
    attention.k_proj.weight.mul_(1e-30)
    attention.v_proj.weight.mul_(1e4)
    attention.o_proj.weight.mul_(1e-4)


def _model(bench: Bench) -> Source:
    return load_source(str(bench.model))


@pytest.mark.parametrize("change", [zero_layers, dead_inputs, singular, constant_groups, tiny_and_huge])
def test_odd_weights_and_activations(change: Callable[[Any], None], bench: Bench, tmp_path: Path) -> None:
    source = _model(bench)
    change(source.model)
    made, loaded = compressed(bench, source, tmp_path / "out")
    assert made.evaluation is not None and made.evaluation.kl is not None
    assert made.evaluation.kl < 1.0
    for (name, before), after in zip(
        source.model.model.layers[0].mlp.named_parameters(), loaded.model.layers[0].mlp.children(), strict=False
    ):
        if not before.any():
            assert not after.weight.any(), name


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    "place", ["model.layers.1.mlp.up_proj", "model.embed_tokens", "model.norm", "model.layers.0.input_layernorm"]
)
def test_weights_that_are_no_numbers_are_named(value: float, place: str, bench: Bench, tmp_path: Path) -> None:
    source = _model(bench)
    weight = source.model.get_parameter(f"{place}.weight")
    weight.data.flatten()[5] = value
    with pytest.raises(DataError, match=f"^{place.replace('.', '[.]')} holds NaN or infinite weights"):
        compressed(bench, source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("effort", ["fast", "best"])
def test_weights_whose_activations_overflow_are_refused(effort: str, bench: Bench, tmp_path: Path) -> None:
    source = _model(bench)
    with torch.no_grad():
        source.model.model.layers[0].mlp.up_proj.weight.mul_(1e20)
        source.model.model.layers[0].mlp.down_proj.weight.mul_(1e25)
    with pytest.raises(DataError, match="LlamaForCausalLM answers with NaN or infinite values"):
        compressed(bench, source, tmp_path / "out", effort=effort)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("quantizer", ["gptq", "rtn"])
@pytest.mark.parametrize("damage", ["fisher", "activation", "magnitude"])
def test_matrices_of_one_column_or_one_row(damage: str, quantizer: str, bench: Bench, tmp_path: Path) -> None:
    tokenizer = _model(bench).tokenizer
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=40, intermediate_size=1, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, head_dim=2, initializer_range=0.2, bos_token_id=1, eos_token_id=1,
    )  # fmt: skip
    source = Source(transformers.LlamaForCausalLM(config).eval(), tokenizer, "thin")
    _, loaded = compressed(bench, source, tmp_path / "out", damage=damage, quantizer=quantizer, bits=8.0)
    assert loaded.model.layers[0].mlp.down_proj.weight.shape == (40, 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_checkpoints(dtype: torch.dtype, bench: Bench, tmp_path: Path) -> None:
    source = _model(bench)
    source.model.to(dtype).save_pretrained(tmp_path / "half")
    source.tokenizer.save_pretrained(tmp_path / "half")
    made, loaded = compressed(bench, str(tmp_path / "half"), tmp_path / "out")
    assert made.evaluation is not None and made.evaluation.kl is not None
    assert made.evaluation.kl < 1.0
    # and one that is in memory, in half precision, already
    again, _ = compressed(bench, Source(source.model, source.tokenizer, "half"), tmp_path / "again")
    assert again.file_bytes == pytest.approx(made.file_bytes, rel=0.01)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}


def test_texts_shorter_than_a_window(bench: Bench, tmp_path: Path) -> None:
    source, text = _model(bench), bench.text.read_text(encoding="utf-8")
    short = tmp_path / "short.txt"
    short.write_text(text[:1500], encoding="utf-8")
    made, _ = compressed(bench, source, tmp_path / "out", text=str(short))
    calibration = made.allocation.calibration
    assert calibration is not None and 16 <= calibration.tokens.shape[1] < 512
    short.write_text(text[:100], encoding="utf-8")
    with pytest.raises(DataError, match=r"short\.txt has \d+ tokens; at least 128 are needed"):
        compressed(bench, source, tmp_path / "none", text=str(short))
    assert not (tmp_path / "none").exists()
