"""Every declared family: one call a token, with the numbers of the modules' own code, far beyond the windows."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import transformers
from support.fused import DECODER, after, build, close, equal, ids, pack, states, steps, unfused
from transformers import DynamicCache

import nash_swarm as ns
from nash_swarm.engine import preallocated

WINDOW = {"sliding_window": 6}
GEMMA3 = {**WINDOW, "layer_types": ["sliding_attention", "full_attention"], "query_pre_attn_scalar": 24}
PHI3 = {"head_dim": 64, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}}
SERVED: list[tuple[str, dict[str, Any]]] = [
    ("Llama", {}),
    ("Mistral", {"sliding_window": None}),
    ("Mistral", WINDOW),
    ("Qwen2", {}),
    ("Qwen2", {**WINDOW, "use_sliding_window": True, "max_window_layers": 1}),
    ("Qwen3", {"attention_bias": True}),
    ("Gemma3Text", GEMMA3),
    ("Phi3", {"sliding_window": None}),
    ("Phi3", {**WINDOW, **PHI3}),
]


@pytest.mark.parametrize(("kind", "settings"), SERVED)
def test_families(calls: list[str], monkeypatch: pytest.MonkeyPatch, kind: str, settings: dict[str, Any]) -> None:
    """One call a token, far beyond the windows, in caches that keep a window or all."""
    monkeypatch.setattr(preallocated, "_LEAST", 5)
    model = pack(build(getattr(transformers, f"{kind}Config"), **settings))
    ns.set_activations(model, "fp32")
    for make in (DynamicCache, lambda: DynamicCache(config=model.config)):
        calls.clear()  # of the trials
        cache, other = make(), make()
        found = steps(model, cache, tokens=20)
        assert calls.count("stack") == 20
        with unfused(model, DECODER):
            assert torch.equal(found, steps(model, other, tokens=20))
        assert equal(states(cache), states(other))
        with unfused(model):
            close(found, steps(model, make(), tokens=20), 1e-5)


@pytest.mark.parametrize(("kind", "settings"), [("Mistral", WINDOW), ("Gemma3Text", GEMMA3), ("Phi3", WINDOW | PHI3)])
def test_long_texts_are_those_of_the_modules_own_code(calls: list[str], kind: str, settings: dict[str, Any]) -> None:
    model = pack(build(getattr(transformers, f"{kind}Config"), max_position_embeddings=128, **settings))
    ns.set_activations(model, "fp32")
    options: dict[str, Any] = {"max_new_tokens": 64, "do_sample": False, "attention_mask": torch.ones(1, 7).long()}
    calls.clear()
    found = model.generate(ids(1, 7), **options)
    assert found.shape == (1, 71) and calls.count("stack") == 63
    with unfused(model):
        assert torch.equal(found, model.generate(ids(1, 7), **options))


@pytest.mark.parametrize("what", ["window", "gain", "dropout"])
def test_what_families_read_counts(what: str) -> None:
    kind, settings = ("Phi3", WINDOW | PHI3) if what == "dropout" else ("Gemma3Text", GEMMA3)
    model = pack(build(getattr(transformers, f"{kind}Config"), **settings))
    ns.set_activations(model, "fp32")
    cache = DynamicCache()
    steps(model, cache, tokens=9)
    same, unchanged = copy.deepcopy(cache), after(model, copy.deepcopy(cache))
    if what == "window":
        model.config.sliding_window = 3
        for layer in model.model.layers:
            layer.self_attn.sliding_window = layer.self_attn.sliding_window and 3
    elif what == "gain":
        with torch.no_grad():
            model.model.layers[0].post_feedforward_layernorm.weight.mul_(2)
    else:
        model.model.layers[0].resid_mlp_dropout = torch.nn.Dropout(0.99).train()
    found = after(model, cache)
    if what != "dropout":
        with unfused(model, DECODER):
            assert torch.equal(found, after(model, same))
    assert not torch.equal(found, unchanged)
