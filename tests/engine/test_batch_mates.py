"""A sequence comes to the same bits alone, among others, padded, with gradients recorded and on several threads."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import transformers
from support.fused import HIDDEN, build, close, ids, pack, unfused
from support.models import tiny_gpt2
from transformers import DynamicCache, StaticCache

import nash_swarm as ns
from nash_swarm.engine import gated, norm, rows

FAMILIES: dict[str, dict[str, Any]] = {
    "Llama": {}, "Mistral": {}, "Qwen2": {}, "Qwen3": {}, "Phi3": {"sliding_window": None},
    "Mistral windows": {"sliding_window": 8},
    "Gemma3Text": {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
}  # fmt: skip
STEPS = 3
PROMPT = 21


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> Any:
    return pack(build(getattr(transformers, f"{request.param.split()[0]}Config"), **FAMILIES[request.param]))


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def answers(model: Any, lengths: list[int], side: str = "left", pieces: int = 1, static: bool = False) -> Any:
    """Logits of sequences of these lengths in one batch: the prompt in pieces, then token by token.

    Returns:
        For each sequence (length, vocabulary). Of padding on the right only the prompt is read.
    """
    longest = max(lengths)
    text, mask = ids(len(lengths), longest), torch.zeros(len(lengths), longest, dtype=torch.int64)
    batch = torch.zeros_like(text)
    spans = [slice(longest - n, longest) if side == "left" else slice(n) for n in lengths]
    for row, span in enumerate(spans):
        # the same text whatever the padding
        batch[row, span], mask[row, span] = text[row, : lengths[row]], 1
    places = (mask.cumsum(1) - 1).clamp(min=0)
    cache: Any = StaticCache(model.config, max_cache_len=64) if static else DynamicCache(config=model.config)
    steps = STEPS if side == "left" else 0
    ends = [(longest - steps) * k // pieces for k in range(pieces + 1)] + list(range(longest - steps + 1, longest + 1))
    found = [
        model(
            batch[:, first:past], attention_mask=mask[:, :past], position_ids=places[:, first:past],
            past_key_values=cache,
        ).logits
        for first, past in itertools.pairwise(ends)
    ]  # fmt: skip
    logits = torch.cat(found, 1).detach()
    return [logits[row, span] for row, span in enumerate(spans)]


def equal(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    for one, other in zip(found, expected, strict=False):
        assert torch.equal(one, other), float((one - other).abs().max())


@pytest.mark.parametrize("activations", ["int8", "fp32"])
def test_a_sequence_does_not_depend_on_its_mates(model: Any, activations: str) -> None:
    ns.set_activations(model, activations)
    lengths = [PROMPT, PROMPT]
    with torch.no_grad():
        alone = answers(model, lengths[:1])
        equal(answers(model, lengths), alone)
        equal(answers(model, [PROMPT, 39, PROMPT, 4, PROMPT, 5]), alone)
        prompt = answers(model, [PROMPT], "right")
        equal(answers(model, [PROMPT, 30, PROMPT, 4], "right"), prompt)
        with threads(2):
            equal(answers(model, [PROMPT, 39, 4]), alone)


@pytest.mark.parametrize("activations", ["int8", "fp32"])
def test_nor_on_whether_gradients_are_recorded(model: Any, activations: str) -> None:
    ns.set_activations(model, activations)
    with torch.no_grad():
        expected = answers(model, [PROMPT])
    equal(answers(model, [PROMPT]), expected)
    equal(answers(model, [PROMPT, 39, 4]), expected)


def test_prompts_in_pieces_and_caches_of_fixed_size(model: Any) -> None:
    with torch.no_grad():
        equal(answers(model, [PROMPT, PROMPT, PROMPT], pieces=2), answers(model, [PROMPT], pieces=2))
        equal(answers(model, [PROMPT, 25, 7], static=True), answers(model, [PROMPT], static=True))


def test_padded_answers_are_those_of_the_modules_own_code(model: Any) -> None:
    ns.set_activations(model, "fp32")
    lengths = [PROMPT, 39, 4]
    for options in ({}, {"side": "right"}, {"pieces": 3}, {"static": True}):
        with torch.no_grad():
            found = answers(model, lengths, **options)  # type: ignore[arg-type]
            with unfused(model):
                for one, other in zip(found, answers(model, lengths, **options), strict=True):  # type: ignore[arg-type]
                    close(one, other, 1e-5)


@pytest.mark.parametrize("tokens", [1, 4])
def test_gradients_are_those_of_the_modules_own_code(model: Any, tokens: int, calls: list[str]) -> None:
    """By the embeddings, the norms' gains, and through the cache."""
    ns.set_activations(model, "fp32")
    mask = torch.ones(3, 9 + tokens, dtype=torch.int64)
    mask[1, :4] = 0
    weights = [each for name, each in model.named_parameters() if "norm" in name]
    before = [weight.requires_grad for weight in weights]
    for weight in weights:
        weight.requires_grad_()

    def gradients() -> list[torch.Tensor]:
        torch.manual_seed(0)
        x = torch.randn(3, 9 + tokens, HIDDEN, requires_grad=True)
        cache = DynamicCache(config=model.config)
        model(inputs_embeds=x[:, :9], attention_mask=mask[:, :9], past_key_values=cache)
        out = model(inputs_embeds=x[:, 9:], attention_mask=mask, past_key_values=cache).logits
        return list(torch.autograd.grad(out.sin().sum(), [x, *weights]))

    try:
        found = gradients()
        assert set(calls) == ({"norm", "gated", "rows"} if tokens == 1 else {"norm"})
        with unfused(model):
            for one, other in zip(found, gradients(), strict=True):
                close(one, other, 2e-5)
    finally:
        for weight, was in zip(weights, before, strict=True):
            weight.requires_grad_(was)


def test_gradients_have_gradients(packed: Any) -> None:
    layer = packed.model.layers[0]
    torch.manual_seed(0)
    x, factors = torch.randn(3, 1, HIDDEN, requires_grad=True), torch.randn(3, 1, HIDDEN, requires_grad=True)
    keys, values = (torch.randn(3, 1, 5, HIDDEN, requires_grad=True) for _ in range(2))
    spans = ((0, 5), (2, 5), (1, 4))
    mask = torch.tensor([[first <= k < past for k in range(5)] for first, past in spans])[:, None, None]

    def second(out: torch.Tensor, *inputs: torch.Tensor) -> list[torch.Tensor]:
        first = torch.autograd.grad(out.sin().sum(), inputs, create_graph=True)
        return list(torch.autograd.grad(sum(each.pow(2).sum() for each in first), inputs))  # type: ignore[arg-type]

    queries = x.view(3, 1, 1, HIDDEN)
    found = [
        *second(layer.input_layernorm(x), x),
        *second(gated._gated(x, factors, gated.SILU), x, factors),
        *second(rows.attend_one(queries, keys, values, spans, 0.1), x, keys, values),
    ]
    with unfused(packed):
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            attended = torch.nn.functional.scaled_dot_product_attention(
                queries, keys, values, attn_mask=mask, scale=0.1
            )
        expected = [
            *second(layer.input_layernorm(x), x),
            *second(torch.nn.functional.silu(x) * factors, x, factors),
            *second(attended.transpose(1, 2), x, keys, values),
        ]
    for one, other in zip(found, expected, strict=True):
        close(one, other, 1e-4)


def test_long_contexts_of_many_sequences_are_shared_out(packed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    queries, keys, values = torch.randn(7, 6, 1, 32), torch.randn(7, 2, 50, 32), torch.randn(7, 2, 50, 32)
    spans = tuple((row, 50 - row) for row in range(7))
    alone = rows.attend_one(queries, keys, values, spans, 0.2)
    monkeypatch.setattr(rows, "_SHARE", 0)
    with threads(3):
        assert torch.equal(rows.attend_one(queries, keys, values, spans, 0.2), alone)
    for row, (first, past) in enumerate(spans):
        own = slice(row, row + 1)
        part = rows.attend_one(
            queries[own], keys[own, :, first:past], values[own, :, first:past], ((0, past - first),), 0.2
        )
        assert torch.equal(part, alone[own])


def test_norms_do_not_depend_on_the_tokens_beside(packed: Any) -> None:
    layer = packed.model.layers[0].input_layernorm
    assert isinstance(layer, norm.FusedNorm)
    x = torch.randn(40, HIDDEN, generator=torch.Generator().manual_seed(0)).requires_grad_()
    with torch.no_grad():
        together = layer(x)
        for tokens in (1, 2, 17):
            assert torch.equal(layer(x[:tokens]), together[:tokens])
    assert torch.equal(layer(x), together)
    strided = torch.zeros(40, 2 * HIDDEN)[:, ::2].copy_(x.detach())
    assert torch.equal(layer(strided), together)


def kl(one: torch.Tensor, other: torch.Tensor) -> float:
    one, other = one.double().log_softmax(-1), other.double().log_softmax(-1)
    return float((one.exp() * (one - other)).sum(-1).mean())


@pytest.mark.parametrize(("activations", "bound"), [("int8", 1e-3), ("fp32", 1e-9)])
def test_models_of_other_code_stay_close(activations: str, bound: float) -> None:
    """Their attention is torch's, which takes another way where there is padding."""
    model = copy.deepcopy(pack(tiny_gpt2()))
    ns.set_activations(model, activations)
    with torch.no_grad():
        alone, together = answers(model, [PROMPT]), answers(model, [PROMPT, 39, 4])
    assert kl(alone[0], together[0]) < bound
