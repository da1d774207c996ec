"""Gains and weights so large that squares and gradients overflow: measured nevertheless, or named in the error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support.models import allocate, logits, tiny_gpt2, tiny_llama

import nash_swarm as ns
from nash_swarm.errors import DataError

IDS = np.random.default_rng(0).integers(0, 101, (4, 32)).astype(np.int32)


def _with(model: Any, name: str, factor: float) -> Any:
    with torch.no_grad():
        parameter = model.get_parameter(f"{name}.weight")
        parameter.fill_(factor) if parameter.ndim == 1 else parameter.mul_(factor)
    assert torch.isfinite(logits(model, IDS)).all()
    return model


@pytest.mark.parametrize("gain", [7e4, 1e9])
@pytest.mark.parametrize("name", ["model.layers.0.input_layernorm", "model.layers.1.input_layernorm", "gpt2"])
def test_large_gains_before_attention(name: str, gain: float) -> None:
    # the fused backward pass of attention overflows there
    model = (
        _with(tiny_gpt2(), "transformer.h.0.ln_1", gain)
        if name == "gpt2"
        else _with(tiny_llama(tied=False), name, gain)
    )
    game = ns.measure(model, tokens=IDS, quiet=True)
    packed = ns.pack(model, allocate(game, 0.9), quiet=True)
    assert torch.isfinite(logits(packed, IDS)).all()


def test_it_is_measured_as_with_attention_that_does_not_overflow() -> None:
    model = _with(tiny_llama(tied=False), "model.layers.0.input_layernorm", 7e4)
    game = ns.measure(model, tokens=IDS, quiet=True)
    model.set_attn_implementation("eager")
    expected = ns.measure(model, tokens=IDS, quiet=True)
    assert np.allclose(game.damage, expected.damage, rtol=1e-2, atol=1e-7)


@pytest.mark.parametrize("damage", ["fisher", "activation"])
@pytest.mark.parametrize(
    ("name", "factor", "named"),
    [
        (
            "model.layers.0.post_attention_layernorm",
            1e10,
            r"model\.layers\.0\.mlp\.down_proj: the squares of its inputs",
        ),
        ("model.layers.1.mlp.up_proj", 1e20, r"model\.layers\.1\.mlp\.(down_proj: the squares|up_proj: the damage)"),
        ("model.norm", 1e20, r"lm_head: the squares of its inputs"),
        ("model.layers.0.mlp.down_proj", 1e20, r"model\.layers\.0\.mlp\.down_proj: the damage of its agents"),
    ],
)
def test_what_cannot_be_measured_is_named(name: str, factor: float, named: str, damage: str) -> None:
    model = _with(tiny_llama(tied=False), name, factor)
    with pytest.raises(DataError, match=f"^{named}"):
        ns.measure(model, tokens=IDS, damage=damage, quiet=True)


def test_so_is_what_cannot_be_packed() -> None:
    model = _with(tiny_llama(tied=False), "model.layers.0.post_attention_layernorm", 1e10)
    game = ns.measure(model, tokens=IDS, damage="magnitude", quiet=True)
    with pytest.raises(DataError, match=r"^model\.layers\.0\.mlp\.down_proj: the squares of its inputs"):
        ns.pack(model, allocate(game), quiet=True)
