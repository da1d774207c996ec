"""Fused modules against transformers' own: what they compute, when they step aside, what becomes of copies."""

from __future__ import annotations

import copy
import io
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from support.fused import DECODER, HIDDEN, LAYERS, build, close, fused, ids, pack, steps, unfused
from support.models import tiny_gpt2, tiny_llama
from transformers import DynamicCache, StaticCache

import nash_swarm as ns
from nash_swarm.engine import attention, gated, norm
from nash_swarm.engine.fused import Fused


@pytest.mark.parametrize("activations", ["fp32", "int8"])
@pytest.mark.parametrize("static", [False, True])
def test_tokens_come_out_as_from_the_modules_own_code(
    packed: Any, calls: list[str], activations: str, static: bool
) -> None:
    def cache() -> Any:
        return StaticCache(packed.config, max_cache_len=32) if static else DynamicCache(config=packed.config)

    ns.set_activations(packed, activations)
    found = steps(packed, cache())
    seen = set(calls)  # with a static cache there are masks
    assert seen == ({"norm", "gated", "rows"} if static else {"norm", "stack"})
    calls.clear()
    with unfused(packed, DECODER):
        parts = steps(packed, cache())
    assert set(calls) == {"norm", "gated", "rows"}
    # the same operations in the same order
    assert torch.equal(found, parts)
    calls.clear()
    with unfused(packed):
        expected = steps(packed, cache())
    assert not calls
    # inputs rounded to 8 bits jump where the last bit of a norm differs
    close(found, expected, 1e-5 if activations == "fp32" else 0.05)


def test_text_is_generated_as_by_the_modules_own_code(packed: Any, calls: list[str]) -> None:
    ns.set_activations(packed, "fp32")
    options = {"max_new_tokens": 12, "do_sample": False, "attention_mask": torch.ones(1, 7, dtype=torch.int64)}
    found = packed.generate(ids(1, 7), **options)
    assert calls.count("stack") == 11
    with unfused(packed):
        assert torch.equal(found, packed.generate(ids(1, 7), **options))


def test_without_a_cache_one_token_sees_itself(packed: Any, calls: list[str]) -> None:
    ns.set_activations(packed, "fp32")
    with torch.no_grad():
        found = packed(ids(1, 1), use_cache=False).logits
        assert "rows" in calls
        with unfused(packed):
            close(found, packed(ids(1, 1), use_cache=False).logits, 1e-5)


def test_prompts_take_only_the_norm_and_batches_all_but_the_decoder(packed: Any, calls: list[str]) -> None:
    with torch.no_grad():
        packed(ids(1, 9))
        packed(ids(3, 9))
        assert set(calls) == {"norm"}
        packed(ids(3, 1))
    assert set(calls) == {"norm", "gated", "rows"}


def test_masked_tokens_are_close_to_those_of_the_modules_own_code(packed: Any, calls: list[str]) -> None:
    ns.set_activations(packed, "fp32")
    text, mask = ids(1, 8), torch.tensor([[0, 0, 1, 1, 1, 1, 1, 1]])

    def last() -> torch.Tensor:
        cache = DynamicCache(config=packed.config)
        with torch.no_grad():
            packed(text[:, :7], attention_mask=mask[:, :7], past_key_values=cache)
            return packed(text[:, 7:], attention_mask=mask, past_key_values=cache).logits

    found = last()
    assert set(calls) == {"norm", "gated", "rows"}
    with unfused(packed):
        close(found, last(), 1e-5)


@pytest.mark.parametrize("how", ["gradients", "dropout", "bfloat16", "double", "eager attention"])
def test_they_step_aside(packed: Any, calls: list[str], how: str) -> None:
    model, x = copy.deepcopy(packed), ids(1, 1)
    gone = {"norm", "gated", "rows"}
    if how == "gradients":
        gone = set()  # they have derivatives
        assert model(x).logits.requires_grad
    else:
        if how == "dropout":
            gone = {"rows"}
            model.train()
            for layer in model.model.layers:
                layer.self_attn.attention_dropout = 0.5
        elif how == "eager attention":
            gone = {"rows"}
            model.set_attn_implementation("eager")
        else:
            model.to(getattr(torch, how) if how == "bfloat16" else torch.float64)
        with torch.no_grad():
            model(x)
    assert not gone & set(calls)


def test_hooks_on_inner_layers_are_called(packed: Any) -> None:
    layer, seen = packed.model.layers[0], []
    for module in layer.modules():
        for register in (module.register_forward_hook, module.register_forward_pre_hook):
            seen.clear()
            with register(lambda module, *_: seen.append(module)), torch.no_grad():
                packed(ids(1, 1))
            assert seen == [module], f"hooks on {type(module).__name__} are not called once"
    with torch.nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(module)), torch.no_grad():
        seen.clear()
        packed(ids(1, 1))
    assert layer.mlp.down_proj in seen and layer.self_attn.q_proj in seen


def test_another_forward_inside_is_taken(packed: Any) -> None:
    model = copy.deepcopy(packed)
    for module in model.model.layers[0].modules():
        own, seen = module.forward, []
        module.forward = lambda *args, own=own, seen=seen, **kwargs: (seen.append(1), own(*args, **kwargs))[1]
        with torch.no_grad():
            model(ids(1, 1))
        assert seen, f"another forward of {type(module).__name__} is not called"
        del module.forward


def test_a_layer_put_in_later_is_called(packed: Any) -> None:
    model = copy.deepcopy(packed)
    model.model.layers[0].mlp.gate_proj = torch.nn.Linear(HIDDEN, 160)
    model.model.layers[1].self_attn.o_proj = torch.nn.Sequential(model.model.layers[1].self_attn.o_proj)
    with torch.no_grad():
        found = model(ids(1, 1)).logits
        with unfused(model):
            close(found, model(ids(1, 1)).logits, 0.05)


def test_hidden_states_are_recorded(packed: Any) -> None:
    model = copy.deepcopy(packed)  # transformers' hooks stay
    with torch.no_grad():
        found = model(ids(1, 1), output_hidden_states=True).hidden_states
    assert len(found) == LAYERS + 1


def test_compiled_and_exported_modules_use_their_own_code(packed: Any) -> None:
    ns.set_activations(packed, "fp32")
    mlp, x = packed.model.layers[0].mlp, torch.randn(1, 1, HIDDEN)
    norm_of_it = packed.model.layers[0].input_layernorm
    with torch.no_grad():
        both = torch.compile(lambda x: mlp(norm_of_it(x)), backend="aot_eager", fullgraph=True)
        close(both(x), mlp(norm_of_it(x)), 1e-5)
        exported = torch.export.export(mlp, (x,)).module()
        close(exported(x), mlp(x), 1e-5)
    assert any("nash_swarm." in str(node.target) for node in exported.graph.nodes)


@pytest.mark.slow
def test_compiled_models_use_their_modules_own_code(packed: Any) -> None:
    ns.set_activations(packed, "fp32")
    with torch.no_grad():
        expected = packed(ids(1, 1), use_cache=False).logits
        compiled = torch.compile(packed, backend="aot_eager", fullgraph=True)(ids(1, 1), use_cache=False).logits
    close(compiled, expected, 1e-5)


def test_copies_pickles_and_saved_models_stay_fused(packed: Any, tmp_path: Path) -> None:
    ns.set_activations(packed, "fp32")
    expected = steps(packed, DynamicCache(config=packed.config))
    stream = io.BytesIO()
    torch.save(packed.model.layers[0].mlp, stream)
    stream.seek(0)
    assert isinstance(torch.load(stream, weights_only=False), Fused)
    ns.save(packed, tmp_path / "saved")
    reloaded = ns.load(tmp_path / "saved", activations="fp32")
    for twin in (copy.deepcopy(packed), pickle.loads(pickle.dumps(packed)), reloaded):
        assert len(fused(twin)) == len(fused(packed)) == 2 * LAYERS + 1 + 2 * LAYERS + 1
        assert twin.state_dict().keys() == packed.state_dict().keys()
        assert torch.equal(steps(twin, DynamicCache(config=twin.config)), expected)


def test_many_threads_get_what_one_gets(packed: Any) -> None:
    ns.set_activations(packed, "int8")
    before = torch.get_num_threads()

    def run(_: int) -> torch.Tensor:
        return steps(packed, DynamicCache(config=packed.config))

    expected = run(0)
    try:
        torch.set_num_threads(2)
        with ThreadPoolExecutor(8) as callers:
            assert all(torch.equal(found, expected) for found in callers.map(run, range(24), timeout=120))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("kind", "whole"), [("Mixtral", False), ("Qwen3Moe", False), ("Arcee", False), ("Qwen3", True)]
)
def test_what_is_declared_is_fused(kind: str, whole: bool) -> None:
    """Also where the MLP is of another kind, and the layers are not one call."""
    model = pack(build(getattr(transformers, f"{kind}Config")))
    kinds = [type(module).__bases__[0] for module in fused(model)]
    assert kinds.count(attention.FusedAttention) == LAYERS
    assert kinds.count(DECODER) == whole
    assert kinds.count(norm.FusedNorm) >= 2 * LAYERS + 1
    assert kinds.count(gated.FusedMlp) == (LAYERS if whole else 0)
    ns.set_activations(model, "fp32")
    found = steps(model, DynamicCache(config=model.config))
    with unfused(model):
        close(found, steps(model, DynamicCache(config=model.config)), 1e-5)


def test_what_the_kernels_cannot_do_is_left_alone() -> None:
    assert not fused(pack(tiny_gpt2()))
    odd = fused(pack(tiny_llama(tied=True)))
    assert not any(isinstance(module, norm.FusedNorm | attention.FusedAttention) for module in odd)
    other = fused(pack(build(hidden_act="relu")))
    assert other and not any(isinstance(module, gated.FusedMlp) for module in other)


@pytest.mark.parametrize("activation", ["silu", "gelu", "gelu_pytorch_tanh", "gelu_new"])
def test_activations_and_their_derivatives(activation: str) -> None:
    model = pack(build(hidden_act=activation, num_hidden_layers=1))
    mlp, x = model.model.layers[0].mlp, torch.randn(3, 1, HIDDEN, requires_grad=True)
    assert isinstance(mlp, gated.FusedMlp)
    ns.set_activations(model, "fp32")

    def both() -> tuple[torch.Tensor, torch.Tensor]:
        out = mlp(x)
        return out.detach(), torch.autograd.grad(out.sin().sum(), x)[0]

    found = both()
    with unfused(model):
        for one, other in zip(found, both(), strict=True):
            close(one, other, 1e-5)
