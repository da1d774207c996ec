"""Which modules are fused: those that have what their family declares and compute the same, in any release."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from support.fused import HIDDEN, build, fused, pack, unfused
from support.models import tiny_gpt2

import nash_swarm as ns
from nash_swarm.engine import preallocated, probe
from nash_swarm.engine.attention import FusedAttention
from nash_swarm.engine.decoder import FusedDecoder
from nash_swarm.engine.fused import cache_argument, strange
from nash_swarm.engine.gated import FusedMlp
from nash_swarm.engine.norm import FusedNorm
from nash_swarm.engine.swap import fuse
from nash_swarm.errors import DataError, SlowerWarning

KINDS = {
    "norm": ("model.layers.0.input_layernorm", FusedNorm),
    "mlp": ("model.layers.0.mlp", FusedMlp),
    "attention": ("model.layers.0.self_attn", FusedAttention),
    "decoder": ("model", FusedDecoder),
}


@pytest.fixture(scope="module")
def llama() -> Any:
    return pack(build())


def verdict(model: Any, kind: str) -> str | None:
    path, fused_kind = KINDS[kind]
    module = model.get_submodule(path)
    assert isinstance(module, fused_kind)
    return probe.refusal(module)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [1.1, 0.9, float("nan")])
def test_another_formula_is_refused(llama: Any, monkeypatch: pytest.MonkeyPatch, kind: str, scale: float) -> None:
    """Same parts, settings and arguments, but another answer: only numbers tell."""
    model = copy.deepcopy(llama)
    assert verdict(model, kind) is None
    own: Any = type(model.get_submodule(KINDS[kind][0])).__bases__[1]
    forward = own.forward

    def other(*args: Any, **kwargs: Any) -> Any:
        out = forward(*args, **kwargs)
        if isinstance(out, tuple):
            return (scale * out[0], *out[1:])
        if isinstance(out, torch.Tensor):
            return scale * out
        out.last_hidden_state = scale * out.last_hidden_state
        return out

    monkeypatch.setattr(own, "forward", other)
    assert "something else" in str(verdict(model, kind))


def test_a_norm_with_another_sign_is_refused(llama: Any) -> None:
    class Norm(type(llama.model.norm).__bases__[1]):  # type: ignore[misc]
        def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
            variance = hidden_states.pow(2).mean(-1, keepdim=True)
            return self.weight * hidden_states * torch.rsqrt(variance + 1 - self.variance_epsilon)

    model = copy.deepcopy(llama)
    for layer in model.model.layers:
        layer.input_layernorm.__class__ = Norm
    reason = fuse(_plain(model))
    assert reason is not None
    assert reason.startswith("family llama, model.layers.0.input_layernorm (Norm): its own code gives something else")
    assert isinstance(model.model.norm, FusedNorm) and isinstance(model.model.layers[0].self_attn, FusedAttention)
    assert not any(isinstance(module, FusedDecoder) for module in model.modules())


def _plain(model: Any) -> Any:
    for module in fused(model):
        module.__class__ = type(module).__bases__[1]
    return model


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda a: a.add_module("sinks", torch.nn.Identity()), "has a sinks"),
        (lambda a: a.register_parameter("sinks", torch.nn.Parameter(torch.zeros(1))), "has a weight sinks"),
        (lambda a: setattr(a, "head_dim", 24), "heads of 24"),
        (lambda a: setattr(a, "o_proj", torch.nn.Linear(192, HIDDEN)), "not packed"),
        (lambda a: setattr(a, "num_key_value_groups", 2), "no whole heads"),
        (lambda a: setattr(a, "forward", lambda *_, **__: None), "forward was replaced"),
    ],
)
def test_an_attention_that_looks_otherwise_is_refused(llama: Any, change: Any, reason: str) -> None:
    model = _plain(copy.deepcopy(llama))
    for layer in model.model.layers:
        change(layer.self_attn)
    assert reason in str(fuse(model))
    assert not any(isinstance(module, FusedAttention | FusedDecoder) for module in model.modules())


@pytest.mark.parametrize("name", ["cache", "past_key_values"])
def test_the_cache_has_either_name(name: str) -> None:
    scope: dict[str, Any] = {}
    exec(f"def forward(self, hidden_states, {name}=None, **kwargs): ...", scope)
    assert cache_argument(scope["forward"]) == name


def test_parts_and_weights_count() -> None:
    norm = torch.nn.LayerNorm(3)
    assert strange(norm, (), ("weight", "bias")) is None
    assert strange(norm, (), ("weight",)) == "it has a weight bias"
    assert strange(norm, ("q",), ("weight", "bias")) == "it has no q"
    assert strange(torch.nn.Sequential(norm), ()) == "it has a 0"


@pytest.mark.parametrize("how", ["counter", "copy", "other"])
def test_a_cache_that_keeps_more_is_left_alone(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    from transformers.cache_utils import DynamicCache, DynamicLayer

    update = DynamicLayer.update

    def other(self: Any, keys: Any, values: Any, *args: Any, **kwargs: Any) -> Any:
        out = update(self, keys, values, *args, **kwargs)
        if how == "counter":
            self.count = getattr(self, "count", 0) + keys.shape[2]
        elif how == "copy":
            out = out[0].clone(), out[1].clone()
        else:
            self.keys = out[0].flip(2)
            out = self.keys, out[1]
        return out

    cache = DynamicCache()
    assert preallocated.PreallocatedCache.is_known(cache)
    preallocated._kinds.cache_clear()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(DynamicLayer, "update", other)
            assert not preallocated.PreallocatedCache.is_known(cache)
    finally:
        preallocated._kinds.cache_clear()
    assert preallocated.PreallocatedCache.is_known(cache)


def test_one_trial_stands_for_all_layers_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[type] = []
    for kind in {kind for _, kind in KINDS.values()}:

        def counted(self: Any, draw: Any, kind: Any = kind, real: Any = kind.trial) -> Any:
            tried.append(kind)
            return real(self, draw)

        monkeypatch.setattr(kind, "trial", counted)
    pack(build(num_hidden_layers=5))
    assert sorted(kind.__name__ for kind in tried) == sorted(kind.__name__ for _, kind in KINDS.values())


def test_a_trial_leaves_no_trace(llama: Any) -> None:
    model = copy.deepcopy(llama).train()
    state, modes = torch.get_rng_state(), [module.training for module in model.modules()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert fuse(_plain(model)) is None
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_damaged_matrix_is_no_slow_model(llama: Any) -> None:
    model = _plain(copy.deepcopy(llama))
    model.model.layers[0].mlp.down_proj.packed[-40:] = 255
    with pytest.raises(DataError, match="down_proj"):
        fuse(model)


@pytest.mark.parametrize(
    ("kind", "settings", "reason"),
    [
        ("Gemma", {}, "no family of the model type gemma is declared"),
        ("Mixtral", {}, r"family mixtral, model \(MixtralModel\): its MLPs are of a kind"),
        ("Llama", {"hidden_act": "relu"}, r"llama, model\.layers\.0\.mlp \(LlamaMLP\): its activation is ReLU"),
        ("Llama", {"head_dim": 24}, r"self_attn \(LlamaAttention\): its heads of 24 elements"),
    ],
)
def test_loading_says_once_why_a_model_is_unfused(
    tmp_path: Path, kind: str, settings: dict[str, Any], reason: str
) -> None:
    ns.save(pack(build(getattr(transformers, f"{kind}Config"), **settings)), tmp_path / "out")
    with pytest.warns(SlowerWarning, match=reason) as found:
        ns.load(tmp_path / "out")
    assert len([w for w in found if issubclass(w.category, SlowerWarning)]) == 1
    assert transformers.__version__ in str(found[0].message) and torch.__version__ in str(found[0].message)


def test_loading_says_nothing_of_a_fused_model(llama: Any, tmp_path: Path) -> None:
    ns.save(llama, tmp_path / "out")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ns.load(tmp_path / "out")


def test_a_model_without_layers_of_a_known_kind(tmp_path: Path) -> None:
    ns.save(pack(tiny_gpt2()), tmp_path / "out")
    with pytest.warns(SlowerWarning, match="GPT2LMHeadModel generates text module by module"):
        model = ns.load(tmp_path / "out")
    assert not fused(model)


@pytest.mark.parametrize("kind", ["Llama", "Mistral", "Qwen2", "Qwen3"])
def test_generated_text_is_the_modules_own(kind: str, calls: list[str]) -> None:
    """In every release of transformers that is allowed: all but the first token are one call each."""
    settings = {"sliding_window": None} if kind == "Mistral" else {}
    model = pack(build(getattr(transformers, f"{kind}Config"), **settings))
    ns.set_activations(model, "fp32")
    ids = torch.randint(2, 101, (1, 7), generator=torch.Generator().manual_seed(3))
    options = {"max_new_tokens": 12, "do_sample": False, "attention_mask": torch.ones(1, 7, dtype=torch.int64)}
    calls.clear()
    found = model.generate(ids, **options)
    assert calls.count("stack") == 11
    with unfused(model):
        assert torch.equal(found, model.generate(ids, **options))


HYBRIDS = {
    # no positions at all
    "GraniteMoeHybrid": {
        "layer_types": ["attention"] * 2, "position_embedding_type": "nope", "shared_intermediate_size": 64,
        "num_local_experts": 0, "mamba_n_heads": 8, "mamba_d_head": 24, "mamba_n_groups": 1, "mamba_d_state": 16,
    },
    # cosines of half a head
    "Bamba": {
        "attn_layer_indices": [1], "mamba_n_heads": 8, "mamba_d_head": 24, "mamba_n_groups": 1, "mamba_d_state": 16,
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", HYBRIDS)
def test_attentions_with_other_positions_generate(kind: str) -> None:
    model = pack(build(getattr(transformers, f"{kind}Config"), **HYBRIDS[kind]))
    ns.set_activations(model, "fp32")
    ids, mask = torch.randint(2, 101, (2, 7), generator=torch.Generator().manual_seed(3)), torch.ones(2, 7).long()
    mask[1, :3] = 0
    for rows in (1, 2):
        options = {"max_new_tokens": 5, "do_sample": False, "attention_mask": mask[:rows]}
        found = model.generate(ids[:rows], **options)
        with unfused(model):
            assert torch.equal(found, model.generate(ids[:rows], **options))


@pytest.mark.parametrize("kind", ["mlp", "attention"])
def test_weights_of_a_modules_own_count(llama: Any, kind: str) -> None:
    """One trial stands for all layers, so what differs from layer to layer must be known."""
    model = _plain(copy.deepcopy(llama))
    path, fused_kind = KINDS[kind]
    model.get_submodule(path).register_parameter("scale", torch.nn.Parameter(torch.ones(1), requires_grad=False))
    assert "it has a weight scale" in str(fuse(model))
    assert not isinstance(model.get_submodule(path), fused_kind)


def test_settings_that_a_family_leaves_unset_count() -> None:
    model = _plain(pack(build(transformers.Gemma3TextConfig)))
    model.config.attn_logit_softcapping = 50.0
    assert "it is configured with attn_logit_softcapping" in str(fuse(model))


def test_places_far_away_count(llama: Any) -> None:
    """Another treatment of far tokens shows, though a forward gets along without their places."""
    own: Any = type(llama.model.layers[0].self_attn).__bases__[1]

    class Far(own):  # type: ignore[misc]
        def forward(
            self, hidden_states: Any, position_embeddings: Any = None, attention_mask: Any = None,
            past_key_values: Any = None, position_ids: Any = None, **kwargs: Any,
        ) -> Any:  # fmt: skip
            out, weights = own.forward(
                self, hidden_states, position_embeddings, attention_mask, past_key_values, **kwargs
            )
            far = position_ids is not None and int(position_ids.max()) > 4096
            return (2 * out if far else out), weights

    model = _plain(copy.deepcopy(llama))
    for layer in model.model.layers:
        layer.self_attn.__class__ = Far
    assert "something else" in str(fuse(model))
