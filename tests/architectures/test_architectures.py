"""Every architecture, from measuring to generating: budget, what is packed, what a reloaded model gives."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from support.architectures import ARCHITECTURES, VOCABULARY, Small
from support.dense import dense_copy

import nash_swarm as ns
from nash_swarm.artifacts.accounting import REPORT_BYTES
from nash_swarm.artifacts.packed_model import counted_bytes
from nash_swarm.errors import CalibrationWarning, UsageError
from nash_swarm.models.experts import prepare
from nash_swarm.models.kinds import auto_class
from nash_swarm.models.tasks import task_of
from nash_swarm.models.walk import find_matrices
from nash_swarm.quantizers.runtime.modules import PackedWeight

BITS = 3.5
_PARAMETERS = [
    pytest.param(small, id=name, marks=[pytest.mark.slow] if small.slow else [])
    for name, small in ARCHITECTURES.items()
]


def answers(model: Any, ids: torch.Tensor) -> torch.Tensor:
    task = task_of(model)
    with torch.no_grad():
        return task.answer(model(**task.inputs(ids)))


@pytest.mark.filterwarnings("ignore:.*reference PyTorch implementation.*")
@pytest.mark.parametrize("small", _PARAMETERS)
def test_an_architecture_from_measuring_to_generating(small: Small, tmp_path: Path) -> None:
    model = small.make()
    rng = np.random.default_rng(0)
    tokens = rng.integers(3, VOCABULARY, (6, 32)).astype(np.int32)
    unseen = torch.from_numpy(rng.integers(3, VOCABULARY, (2, 24)))
    original = answers(model, unseen)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CalibrationWarning)
        game = ns.measure(model, tokens=tokens, granularity="tile", group_size=32, quiet=True)
    found = " ".join(str(w.message) for w in caught if w.category is CalibrationWarning)
    assert bool(found) == bool(small.unreached) and all(name in found for name in small.unreached)
    assert torch.equal(answers(model, unseen), original), "measuring changed the model"

    # everything with two or more axes plays, but for what is named
    packed_weights = sum(tensor.weights for tensor in game.tensors)
    left = [name for name, p in model.named_parameters() if p.ndim == 2 and any(part in name for part in small.half)]
    assert all(any(part in name for name in left) for part in small.half)
    matrices = sum(p.numel() for name, p in model.named_parameters() if p.ndim >= 2 and "conv1d" not in name)
    assert packed_weights == matrices - sum(model.get_parameter(name).numel() for name in left) - _vectors(model)

    allocation = ns.solve(game, bits=BITS)
    assert allocation.certificate.fill >= 0.999
    packed = ns.pack(model, allocation, quiet=True)
    assert torch.equal(answers(model, unseen), original), "packing changed the model"
    ns.save(packed, tmp_path / "packed")
    size = counted_bytes(tmp_path / "packed")
    assert size * 8 <= BITS * game.parameters
    assert allocation.certificate.used_bits // 8 - REPORT_BYTES - 700 <= size <= allocation.certificate.used_bits // 8

    loaded = ns.load(tmp_path / "packed")
    assert type(loaded) is type(model)
    kept = {name for name, module in loaded.named_modules() if isinstance(module, PackedWeight)}
    assert kept == {tensor.name for tensor in game.tensors}
    mine = answers(loaded, unseen)
    assert torch.equal(mine, answers(packed, unseen))
    # what the packed modules stand for, as the plain model computes it
    dense = answers(dense_copy(model, packed), unseen)
    exact = answers(ns.load(tmp_path / "packed", activations="fp32"), unseen)
    torch.testing.assert_close(exact, dense, rtol=1e-3, atol=1e-3 * float(dense.abs().max()))
    assert float((mine - dense).norm()) < 0.1 * float(dense.norm())
    assert not torch.allclose(dense, original, rtol=1e-2)
    if model.can_generate():
        ids = loaded.generate(unseen[:1, :5], max_new_tokens=4, do_sample=False, pad_token_id=2)
        again = packed.generate(unseen[:1, :5], max_new_tokens=4, do_sample=False, pad_token_id=2)
        assert torch.equal(ids, again) and ids.shape[1] > 1


def _vectors(model: Any) -> int:
    """Weights with two axes that multiply nothing: RWKV's time mixing, Mamba's state decay, biases of fused experts."""
    return sum(
        p.numel()
        for name, p in model.named_parameters()
        if p.ndim >= 2 and ("time_mix" in name or name.endswith(("A_log", "_bias")))
    )


def test_kinds_of_linear_that_do_more_than_multiply_stay() -> None:
    torch.manual_seed(0)
    config = transformers.PhimoeConfig(
        vocab_size=VOCABULARY, hidden_size=64, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=32, num_local_experts=4,
    )  # fmt: skip
    model = transformers.PhimoeForCausalLM(config).eval()
    names = {matrix.name for matrix in find_matrices(prepare(model))}
    assert "model.layers.0.mlp.experts.gate_up_proj.3" in names
    assert isinstance(model.model.layers[0].mlp.router, torch.nn.Linear) and "model.layers.0.mlp.router" not in names
    falcon = ARCHITECTURES["falcon"].make()
    assert "transformer.h.0.mlp.dense_h_to_4h" in {matrix.name for matrix in find_matrices(falcon)}


@pytest.mark.parametrize(
    ("config", "architecture", "expected"),
    [
        ("BertConfig", "BertForMaskedLM", "AutoModel"),
        ("BertConfig", "BertForPreTraining", "AutoModel"),
        ("BertConfig", "BertLMHeadModel", "AutoModelForCausalLM"),
        ("LlamaConfig", "LlamaForCausalLM", "AutoModelForCausalLM"),
        ("LlamaConfig", None, "AutoModelForCausalLM"),
        ("T5Config", "T5ForConditionalGeneration", "AutoModelForSeq2SeqLM"),
    ],
)
def test_a_configuration_says_what_loads_it(config: str, architecture: str | None, expected: str) -> None:
    made = getattr(transformers, config)(architectures=[architecture] if architecture else None)
    assert auto_class(made).__name__ == expected


def test_models_that_do_something_else_are_refused() -> None:
    with pytest.raises(UsageError, match="BertForSequenceClassification neither writes text"):
        auto_class(transformers.BertConfig(architectures=["BertForSequenceClassification"]))
    config = transformers.ViTConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    with pytest.raises(UsageError, match="ViTModel reads pixel_values, not text"):
        task_of(transformers.ViTModel(config))
