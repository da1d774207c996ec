"""The document's protocol, piece by piece, against what can be worked out by hand or asked of transformers."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from support.bench import Bench
from support.benchmarks import script
from support.models import tiny_gpt2, tiny_llama
from torch import nn

from nash_swarm.calibration.text import Text
from nash_swarm.errors import UsageError
from nash_swarm.models.source import load_source

script("original/run")  # its parts can be imported from here on

from methods import (  # noqa: E402
    METHODS,
    SHARES,
    Rounding,
    linears,
    round_linears,
    round_to_grid,
    widths_by_rank,
)
from padding import LENGTH, Padded, pad_passages, padded_gradients, padded_loss  # noqa: E402

QUANTILE, FIRST_ORDER, UNIFORM = METHODS


def test_a_tenth_gets_8_bits_a_fifth_4_and_the_rest_2() -> None:
    importance = torch.from_numpy(np.random.default_rng(0).permutation(1000).astype(np.float32)).reshape(50, 20)
    widths = widths_by_rank(importance)
    assert widths.shape == importance.shape
    assert (widths[importance >= 900] == 8).all() and (widths == 8).sum() == 100
    assert (widths[(importance >= 700) & (importance < 900)] == 4).all() and (widths == 4).sum() == 200
    assert (widths == 2).sum() == 700
    assert (widths_by_rank(torch.ones(7)) == torch.tensor([8, 4, 2, 2, 2, 2, 2])).all()


def test_three_bits_a_weight_and_the_map_that_was_not_paid_for() -> None:
    model = nn.Sequential(nn.Linear(100, 100, bias=False), nn.Linear(100, 50))
    rounding = round_linears(model, QUANTILE)
    assert rounding.weights == 15_000 and rounding.others == 50
    assert rounding.theoretical_bits == pytest.approx(3.0) and rounding.theoretical_bytes == 15_000 * 3 // 8
    assert rounding.map_entropy == pytest.approx(-sum(share * math.log2(share) for _, share in SHARES))
    assert round(rounding.map_entropy, 3) == 1.157
    bits = 15_000 * (3 + rounding.map_entropy) + 16 * (6 + 50)
    assert rounding.least_bytes == math.ceil(bits / 8)


def test_the_published_size_is_that_of_the_tied_head_at_4_bits() -> None:
    head = 50257 * 768
    gpt2 = Rounding(weights=head, code_bits=4 * head, map_entropy=0.0, scales=1, others=124_439_808 - head)
    assert round(gpt2.theoretical_bytes / 2**20, 2) == 18.40
    assert gpt2.weights / gpt2.parameters < 0.32
    assert round(1 - gpt2.theoretical_bits / 32, 3) == 0.875


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_rounding_is_to_the_nearest_of_symmetric_levels(bits: int) -> None:
    weights = torch.randn(500, generator=torch.Generator().manual_seed(0))
    rounded = round_to_grid(weights, bits)
    scale = float(weights.abs().max()) / (2 ** (bits - 1) - 1)
    levels = scale * torch.arange(-(2 ** (bits - 1)) + 1, 2 ** (bits - 1))
    nearest = levels[(weights[:, None] - levels).abs().argmin(1)]
    assert torch.allclose(rounded, nearest, atol=1e-6)
    assert torch.allclose(round_to_grid(rounded, bits), rounded)
    assert not round_to_grid(torch.zeros(3), bits).any()


def test_of_gpt2_only_the_tied_head_is_rounded() -> None:
    model = tiny_gpt2()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rounding = round_linears(model, UNIFORM)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"lm_head.weight", "transformer.wte.weight"}
    assert rounding.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert rounding.weights == before["lm_head.weight"].numel() and rounding.map_entropy == 0


def test_each_tensor_is_ranked_for_itself() -> None:
    model = nn.Sequential(nn.Linear(10, 10, bias=False), nn.Linear(10, 10, bias=False))
    torch.manual_seed(0)
    nn.init.normal_(model[0].weight), nn.init.normal_(model[1].weight, std=1e-3)
    round_linears(model, QUANTILE)
    for layer in model:
        assert len(layer.weight.unique()) > 8  # both have weights of 8 bits


def test_first_order_importance_needs_the_gradient(padded: Padded) -> None:
    model = tiny_llama(tied=False)
    gradients = padded_gradients(model, linears(model), padded)
    other = copy.deepcopy(model)
    round_linears(model, FIRST_ORDER, gradients)
    round_linears(other, QUANTILE)
    assert not torch.equal(model.lm_head.weight, other.lm_head.weight)
    for name, gradient in gradients.items():
        assert gradient.shape == model.get_submodule(name).weight.shape and gradient.abs().sum() > 0


@pytest.fixture
def padded() -> Padded:
    rng = torch.Generator().manual_seed(0)
    lengths = torch.tensor([LENGTH, 10, 3, 30, 64, 2, 50, 20, 7, 9])
    mask = (torch.arange(LENGTH) < lengths[:, None]).long()
    return Padded(torch.randint(1, 60, (len(lengths), LENGTH), generator=rng) * mask, mask)


@pytest.mark.parametrize("make", [tiny_gpt2, lambda: tiny_llama(tied=True)])
def test_the_loss_is_what_transformers_says_of_padded_labels(make: Any, padded: Padded) -> None:
    model = make()
    with torch.no_grad():
        told = model(input_ids=padded.ids, attention_mask=padded.mask, labels=padded.ids).loss
    assert padded_loss(model, padded) == pytest.approx(float(told), rel=1e-5)
    gradients = padded_gradients(model, linears(model), padded)
    model(input_ids=padded.ids, attention_mask=padded.mask, labels=padded.ids).loss.backward()
    for name, module in linears(model).items():
        assert torch.allclose(gradients[name], module.weight.grad, atol=1e-6)
    assert padded.padding == pytest.approx(1 - float(padded.mask[:, 1:].sum()) / (10 * 63))
    assert padded.tokens == 10 * 63


def test_passages_are_lines_or_paragraphs(bench: Bench) -> None:
    tokenizer = load_source(str(bench.model)).tokenizer
    text = Text("\n".join(f"line {number} of a text " * (1 + number % 3) for number in range(100)), "made")
    made = pad_passages(text, tokenizer, 0, count=20)
    assert made.ids.shape == made.mask.shape == (20, LENGTH)
    assert (made.ids[made.mask == 0] == tokenizer.eos_token_id).all() and made.padding > 0
    texts = {tokenizer.decode(ids[mask == 1]) for ids, mask in zip(made.ids, made.mask, strict=True)}
    assert all(text.startswith("line ") for text in texts) and len(texts) == 20
    assert torch.equal(made.ids, pad_passages(text, tokenizer, 0, count=20).ids)
    with pytest.raises(UsageError, match="no tokenizer"):
        pad_passages(text, None, 0)


def test_a_model_without_linear_layers_is_refused() -> None:
    with pytest.raises(UsageError, match=r"no nn\.Linear"):
        linears(nn.Sequential(nn.Embedding(3, 4)))
