"""Decoder layers as two calls: what they remember of their matrices, and when they leave their parts to themselves."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from support.quick import HIDDEN, LAYER, build, ids, pack, slow

import nash_swarm as ns
from nash_swarm.errors import DataError, UsageError
from nash_swarm.quantizers.runtime.cpu import tuning


@pytest.mark.parametrize("what", ["weights", "other weights", "gain", "other gain", "bias", "epsilon", "activations"])
def test_what_changes_between_tokens_counts(packed: Any, what: str) -> None:
    """A layer remembers where its matrices are; whatever becomes of them must be seen."""
    model = copy.deepcopy(packed)
    ns.set_activations(model, "fp32")
    layer, other = model.model.layers
    with torch.no_grad():
        before = model(ids(1, 1)).logits
        if what == "weights":
            layer.mlp.down_proj.packed.copy_(other.mlp.down_proj.packed)
        elif what == "other weights":
            layer.mlp.down_proj, other.mlp.down_proj = other.mlp.down_proj, layer.mlp.down_proj
        elif what == "gain":
            layer.input_layernorm.weight.mul_(2)
        elif what == "other gain":
            layer.input_layernorm.weight = torch.nn.Parameter(2 * layer.input_layernorm.weight, requires_grad=False)
        elif what == "bias":
            layer.self_attn.o_proj.bias = torch.nn.Parameter(torch.ones(HIDDEN), requires_grad=False)
        elif what == "epsilon":
            layer.input_layernorm.variance_epsilon = 10.0
        else:
            ns.set_activations(model, "int8")
        found = model(ids(1, 1)).logits
        with slow(model, LAYER):
            assert torch.equal(found, model(ids(1, 1)).logits)
        assert not torch.equal(found, before)


def test_a_damaged_matrix_is_refused(packed: Any) -> None:
    model = copy.deepcopy(packed)
    with torch.no_grad():
        model(ids(1, 1))
        model.model.layers[0].mlp.down_proj.packed[-40:] = 255
        with pytest.raises(DataError, match="down_proj"):
            model(ids(1, 1))


def test_products_worth_two_threads_get_them(packed: Any, calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    model, before = copy.deepcopy(packed), torch.get_num_threads()
    monkeypatch.setattr(tuning, "SHARE_SECONDS", 0.0)
    try:
        for threads, kinds in ((2, {"norm", "gated", "attention"}), (1, {"norm", "attention", "decoder_layer"})):
            torch.set_num_threads(threads)
            calls.clear()
            with torch.no_grad():
                model(ids(1, 1))
            assert set(calls) == kinds
    finally:
        torch.set_num_threads(before)


def test_layers_of_odd_sizes_are_left_to_their_parts(calls: list[str]) -> None:
    model = pack(build(num_hidden_layers=1))
    layer = model.model.layers[0]
    narrow = pack(build(num_hidden_layers=1, intermediate_size=128)).model.layers[0]
    layer.mlp.down_proj = narrow.mlp.down_proj
    calls.clear()  # of the trials
    with torch.no_grad(), pytest.raises(UsageError, match="columns"):
        model(ids(1, 1))
    assert "decoder_layer" not in calls
