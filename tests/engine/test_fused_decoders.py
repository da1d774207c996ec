"""Decoders as one call: the same bits as their layers, what they remember, and the cache that grows under them."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from support.fused import DECODER, HIDDEN, LAYERS, after, build, equal, ids, pack, states, steps, unfused
from transformers import DynamicCache

import nash_swarm as ns
from nash_swarm.engine import preallocated, stack
from nash_swarm.errors import DataError
from nash_swarm.quantizers.runtime.cpu import tuning

Change = Callable[[Any], object]


def read(model: Any, tokens: int = 5) -> DynamicCache:
    """A cache of so many tokens, the last of which was read alone."""
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        model(ids(1, tokens)[:, :-1], past_key_values=cache)
        model(ids(1, tokens)[:, -1:], past_key_values=cache)
    return cache


@pytest.mark.parametrize(("activations", "together"), [("fp32", 1), ("fp32", 8), ("int8", 1)])
def test_tokens_and_cache_are_those_of_the_layers(
    packed: Any, calls: list[str], monkeypatch: pytest.MonkeyPatch, activations: str, together: int
) -> None:
    monkeypatch.setattr(preallocated, "_LEAST", 1)  # grows at nearly every token
    monkeypatch.setattr(preallocated, "_TOGETHER", together)
    ns.set_activations(packed, activations)
    cache, other = DynamicCache(config=packed.config), DynamicCache(config=packed.config)
    found = steps(packed, cache, tokens=25)
    assert calls.count("stack") == 25
    with unfused(packed, DECODER):
        assert torch.equal(found, steps(packed, other, tokens=25))
    assert cache.get_seq_length() == other.get_seq_length() == 30
    assert equal(states(cache), states(other))


CHANGES: dict[str, Change] = {
    "weights": lambda m: m.layers[0].mlp.down_proj.packed.copy_(m.layers[1].mlp.down_proj.packed),
    "other weights": lambda m: setattr(m.layers[0].mlp, "down_proj", m.layers[1].mlp.down_proj),
    "gain": lambda m: m.layers[0].input_layernorm.weight.mul_(2),
    "other gain": lambda m: setattr(
        m.layers[0].input_layernorm, "weight", torch.nn.Parameter(torch.ones(HIDDEN), requires_grad=False)
    ),
    "data of a gain": lambda m: setattr(m.layers[1].input_layernorm.weight, "data", torch.ones(HIDDEN)),
    "bias": lambda m: setattr(
        m.layers[0].self_attn.o_proj, "bias", torch.nn.Parameter(torch.ones(HIDDEN), requires_grad=False)
    ),
    "no bias": lambda m: setattr(m.layers[0].self_attn.o_proj, "bias", None),
    "epsilon": lambda m: setattr(m.layers[1].post_attention_layernorm, "variance_epsilon", 10.0),
    "scale": lambda m: setattr(m.layers[0].self_attn, "scaling", 3.0),
    "activations": lambda m: ns.set_activations(m, "int8"),
    "another norm": lambda m: setattr(m.layers[1], "input_layernorm", torch.nn.Identity()),
    "another matrix": lambda m: setattr(m.layers[0].mlp, "gate_proj", torch.nn.Linear(HIDDEN, 160)),
    "a layer twice": lambda m: m.layers.__setitem__(0, m.layers[1]),
    "fewer layers": lambda m: setattr(m.config, "num_hidden_layers", 1),
    "hook": lambda m: m.layers[0].mlp.act_fn.register_forward_hook(lambda *_: torch.zeros(1, 1, 160)),
    "earlier hook": lambda m: m.layers[1].register_forward_pre_hook(lambda _, args: (0 * args[0], *args[1:])),
    "forward": lambda m: setattr(m.layers[1].self_attn.k_proj, "forward", lambda x: torch.ones(1, 1, 64)),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_changes_between_tokens_counts(packed: Any, what: str) -> None:
    model = copy.deepcopy(packed)
    ns.set_activations(model, "fp32")
    cache = read(model)
    same = copy.deepcopy(cache)
    unchanged = after(model, copy.deepcopy(cache))
    with torch.no_grad():
        CHANGES[what](model.model)
    found = after(model, cache)
    with unfused(model, DECODER):
        assert torch.equal(found, after(model, same))
    assert not torch.equal(found, unchanged)


@pytest.mark.parametrize(
    "how", ["dropout", "eager attention", "hidden states", "tuple", "padding", "gradients", "bfloat16", "an old cache"]
)
def test_it_steps_aside(packed: Any, calls: list[str], how: str) -> None:
    model = copy.deepcopy(packed)
    cache, options = read(model), {}
    calls.clear()
    if how == "dropout":
        model.train()
        model.model.layers[1].self_attn.attention_dropout = 0.5
    elif how == "eager attention":
        model.set_attn_implementation("eager")
    elif how == "hidden states":
        options["output_hidden_states"] = True
    elif how == "tuple":
        with torch.no_grad():
            given = model.model(ids(1, 1), past_key_values=cache, return_dict=False)
        assert isinstance(given, tuple)
    elif how == "padding":
        options["attention_mask"] = torch.tensor([[0, 1, 1, 1, 1, 1]])
    elif how == "gradients":
        model(ids(1, 1), past_key_values=cache)
    elif how == "bfloat16":
        model.to(torch.bfloat16)
        cache = DynamicCache(config=model.config)
        with torch.no_grad():
            model(ids(1, 4), past_key_values=cache)
    else:
        cache.layers[0].keys = cache.layers[0].keys.double()
        with pytest.raises(RuntimeError):
            after(model, cache)
    if how not in ("tuple", "gradients", "an old cache"):
        after(model, cache, **options)
    assert "stack" not in calls


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("activations", ["int8", "fp32"])
def test_workers_come_to_the_same_bits(
    packed: Any, calls: list[str], monkeypatch: pytest.MonkeyPatch, activations: str, threads: int
) -> None:
    ns.set_activations(packed, activations)
    expected = steps(packed, DynamicCache(config=packed.config), tokens=20)
    before, shared = torch.get_num_threads(), []
    gather = stack.gather_helpers
    monkeypatch.setattr(stack, "gather_helpers", lambda *sizes: shared.append(sizes[0]) or gather(*sizes))
    monkeypatch.setattr(stack, "cores", lambda: 64)
    monkeypatch.setattr(tuning, "SPIN_SHARE", 0)  # the smallest product is worth it
    try:
        torch.set_num_threads(threads)
        model = copy.deepcopy(packed)
        calls.clear()
        for _ in range(10):
            assert torch.equal(steps(model, DynamicCache(config=packed.config), tokens=20), expected)
        assert shared == [threads] * 200
        assert calls.count("stack") == 200
    finally:
        torch.set_num_threads(before)


def test_nobody_is_called_for_what_one_thread_does_as_fast(packed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(stack, "gather_helpers")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        read(packed)
        monkeypatch.setattr(stack, "cores", lambda: 1)
        monkeypatch.setattr(tuning, "SPIN_SHARE", 0)
        read(copy.deepcopy(packed))
    finally:
        torch.set_num_threads(before)


def test_embeddings_can_be_given(packed: Any, calls: list[str]) -> None:
    cache = read(packed)
    same = copy.deepcopy(cache)
    calls.clear()
    with torch.no_grad():
        token = packed.model.embed_tokens(ids(1, 1))
        found = packed.model(inputs_embeds=token, past_key_values=cache)
        assert calls.count("stack") == 1
        assert torch.equal(found.last_hidden_state, packed.model(ids(1, 1), past_key_values=same).last_hidden_state)
    assert found.past_key_values is cache


def test_a_shortened_cache_goes_on_in_memory_of_its_own(packed: Any, calls: list[str]) -> None:
    cache = read(packed)
    first, held = states(cache), [layer.keys for layer in cache.layers]
    after(packed, cache)
    longer = states(cache)
    longest = [layer.keys for layer in cache.layers]
    cache.crop(-1)
    assert equal(states(cache), first)
    with torch.no_grad():
        packed(torch.full((1, 1), 7), past_key_values=cache)
    # what was kept before is as it was, whoever has it
    assert equal([keys.clone() for keys in held], first[::2])
    assert equal([keys.clone() for keys in longest], longer[::2])
    assert not equal(states(cache), longer)
    assert "rows" not in calls


@pytest.mark.parametrize("how", ["deep", "shallow", "pickle", "by hand"])
def test_copies_of_a_cache_go_their_own_ways(packed: Any, how: str) -> None:
    cache = read(packed)
    if how == "shallow":
        twin = copy.copy(cache)
        twin.layers = [copy.copy(layer) for layer in cache.layers]
    elif how == "by hand":
        twin = DynamicCache([(layer.keys, layer.values) for layer in cache.layers])
        for layer, other in zip(twin.layers, cache.layers, strict=True):
            layer.keys, layer.values = other.keys, other.values
    else:
        twin = copy.deepcopy(cache) if how == "deep" else pickle.loads(pickle.dumps(cache))
    expected = after(packed, copy.deepcopy(cache))
    with torch.no_grad():
        other = packed(torch.full((1, 1), 7), past_key_values=twin).logits
    kept = states(twin)
    assert torch.equal(after(packed, cache), expected)
    assert equal(states(twin), kept)
    assert not torch.equal(other, expected)
    assert not equal(kept, states(cache))


def test_a_pickled_cache_needs_no_nash_swarm(packed: Any) -> None:
    assert b"nash_swarm." not in pickle.dumps(read(packed))


def test_free_room_has_nothing_of_what_was_there(packed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True)
    try:
        cache = read(packed)
    finally:
        torch.use_deterministic_algorithms(False)
    # new memory is NaN in this mode
    for layer in cache.layers:
        for state in (layer.keys, layer.values):
            memory = torch.empty(0).set_(state.untyped_storage())
            assert memory.numel() > state.numel()
            assert not memory.isnan().any()


def test_the_layers_go_on_with_a_cache_that_has_room(packed: Any) -> None:
    cache = read(packed)
    same = copy.deepcopy(cache)
    expected = after(packed, same)
    with unfused(packed, DECODER):
        assert torch.equal(after(packed, cache), expected)
    assert torch.equal(after(packed, cache), after(packed, same))  # and the decoder after them


def test_memory_grows_by_shares(packed: Any) -> None:
    cache = read(packed)
    sizes = set()
    for _ in range(40):
        after(packed, cache)
        sizes.add(cache.layers[0].keys.untyped_storage().nbytes())
    assert len(sizes) == 1  # of 64 tokens more, and two tensors of each layer
    assert sizes == {2 * LAYERS * cache.layers[0].keys[:, :, :1].numel() * 4 * (4 + 64)}


def test_sampling_beams_and_assistance_agree_with_the_modules_own_code() -> None:
    model = pack(build(num_hidden_layers=3))
    ns.set_activations(model, "fp32")
    mask = torch.ones(1, 7, dtype=torch.int64)
    options: dict[str, Any] = {"max_new_tokens": 9, "attention_mask": mask, "do_sample": False}
    for settings in ({}, {"num_beams": 3}, {"prompt_lookup_num_tokens": 2}, {"assistant_model": copy.deepcopy(model)}):
        found = model.generate(ids(1, 7), **options, **settings)
        with unfused(model):
            assert torch.equal(found, model.generate(ids(1, 7), **options, **settings)), settings


def test_a_damaged_matrix_is_refused(packed: Any) -> None:
    model = copy.deepcopy(packed)
    cache = read(model)
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.packed[-40:] = 255
    with pytest.raises(DataError, match="down_proj"):
        after(model, cache)


@pytest.mark.parametrize("what", ["gain", "epsilon", "hook"])
def test_norms_of_heads_count(what: str) -> None:
    model = pack(build(transformers.Qwen3Config))
    ns.set_activations(model, "fp32")
    cache = read(model)
    unchanged, norm = after(model, copy.deepcopy(cache)), model.model.layers[1].self_attn.k_norm
    if what == "gain":
        norm.weight = torch.nn.Parameter(3 * norm.weight, requires_grad=False)
    elif what == "epsilon":
        norm.variance_epsilon = 10.0
    else:
        norm.register_forward_hook(lambda _, args, out: 2 * out)
    found = after(model, copy.deepcopy(cache))
    with unfused(model, DECODER):
        assert torch.equal(found, after(model, cache))
    assert not torch.equal(found, unchanged)


@pytest.mark.parametrize("kind", ["Llama", "Mistral", "Qwen2"])
def test_what_is_not_to_be_kept_is_shown_as_by_the_modules_own_code(kind: str) -> None:
    model = pack(
        build(getattr(transformers, f"{kind}Config"), **({"sliding_window": None} if kind == "Mistral" else {}))
    )
    cache = read(model)
    with torch.no_grad():
        found = model.model(ids(1, 1), past_key_values=copy.deepcopy(cache), use_cache=False)
        with unfused(model):
            own = model.model(ids(1, 1), past_key_values=cache, use_cache=False)
    assert (found.past_key_values is None) == (own.past_key_values is None)


def test_in_inference_mode(packed: Any, calls: list[str]) -> None:
    cache = read(packed)
    expected = [after(packed, cache) for _ in range(2)]
    calls.clear()
    with torch.inference_mode():
        inside = read(packed)
        assert torch.equal(after(packed, inside), expected[0])
    assert torch.equal(after(packed, inside), expected[1])
    assert calls.count("stack") == 3


def test_what_has_been_outgrown_is_freed(packed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preallocated, "_LEAST", 3)
    monkeypatch.setattr(preallocated, "_TOGETHER", 1)
    cache, seen, real = read(packed), [], torch.Tensor.copy_

    def copy_(target: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        seen.append(len({(*layer.keys.shape[2:], layer.keys.stride(1)) for layer in cache.layers}))
        return real(target, states)

    first = cache.layers[0].keys
    monkeypatch.setattr(torch.Tensor, "copy_", copy_)
    for _ in range(3):
        after(packed, cache)
    assert seen == [1, 1, 2, 2]  # keys and values of the first layer, then of the second, when the first has its own
    assert not any(layer.keys.data_ptr() == first.data_ptr() for layer in cache.layers)
