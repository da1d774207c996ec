"""LoRA by peft on packed matrices: the adapters train, are saved alone, and come back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.models import allocate, logits, tiny_gpt2, tiny_llama

import nash_swarm as ns
from nash_swarm.errors import UsageError
from nash_swarm.integrations.peft import add_adapters, load_adapters
from nash_swarm.models.source import load_source
from nash_swarm.quantizers.runtime.modules import PackedLinear

peft = pytest.importorskip("peft")

IDS = np.random.default_rng(0).integers(3, 101, (4, 32)).astype(np.int32)
LLAMA = ["q_proj", "v_proj", "up_proj", "down_proj"]
CASES = {"llama": (lambda: tiny_llama(tied=False), LLAMA), "tied llama": (lambda: tiny_llama(tied=True), LLAMA),
         "gpt2": (tiny_gpt2, ["c_attn", "c_proj"])}  # fmt: skip


def packed(model: Any) -> Any:
    game = ns.measure(model, tokens=IDS, damage="magnitude", granularity="layer", quiet=True)
    return ns.pack(model, allocate(game), quantizer="rtn", quiet=True)


def lora(targets: list[str]) -> Any:
    return peft.LoraConfig(r=4, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM")


def train(model: Any, ids: torch.Tensor, steps: int, rate: float) -> list[float]:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
    losses = []
    for _ in range(steps):
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("name", CASES)
def test_adapters_train_beside_packed_matrices(name: str, tmp_path: Path) -> None:
    make, targets = CASES[name]
    ns.save(packed(make()), tmp_path / "packed")
    model = ns.load(tmp_path / "packed")
    before = {path: module.packed.clone() for path, module in model.named_modules() if hasattr(module, "packed")}
    plain = logits(model, IDS)
    torch.manual_seed(0)
    adapted = add_adapters(model, lora(targets))
    wrapped = [path for path, module in adapted.named_modules() if hasattr(module, "lora_A")]
    assert all(any(path.endswith(target) for path in wrapped) for target in targets)
    # fresh adapters change nothing
    assert torch.equal(logits(adapted, IDS), plain)
    assert all("lora" in path for path, parameter in adapted.named_parameters() if parameter.requires_grad)
    ids = torch.from_numpy(IDS.astype(np.int64))
    losses = train(adapted.train(), ids, 20, 1e-2)
    adapted.eval()
    assert losses[-1] < 0.9 * losses[0]
    for path, buffer in before.items():
        found = [
            m
            for p, m in adapted.named_modules()
            if p.replace(".base_layer", "").endswith(path) and hasattr(m, "packed")
        ]
        assert torch.equal(found[0].packed, buffer)
    # token by token as all at once: the quick way steps aside for adapters
    with torch.no_grad():
        at_once = adapted(ids[:1, :12], use_cache=False).logits[0]
        cache, one_by_one = None, []
        for place in range(12):
            out = adapted(ids[:1, place : place + 1], past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            one_by_one.append(out.logits[0, 0])
    assert torch.allclose(torch.stack(one_by_one), at_once, atol=0.05)
    adapted.save_pretrained(tmp_path / "adapter")
    assert not list((tmp_path / "adapter").glob("model*"))
    again = load_adapters(ns.load(tmp_path / "packed"), tmp_path / "adapter")
    assert torch.equal(logits(again, IDS), logits(adapted, IDS))
    assert not torch.equal(logits(again, IDS), plain)
    assert not any(parameter.requires_grad for parameter in again.parameters())


def test_what_cannot_be_adapted_says_so() -> None:
    model = packed(tiny_llama(tied=True))
    adapted = add_adapters(model, lora(LLAMA))
    assert {type(module.base_layer) for module in adapted.modules() if hasattr(module, "lora_A")} == {PackedLinear}
    with pytest.raises(UsageError, match="merge them into the original and pack that"):
        adapted.merge_and_unload()
    with pytest.raises(UsageError, match="a IA3Config is none"):
        add_adapters(model, peft.IA3Config(target_modules=["q_proj"]))


@pytest.mark.parametrize("settings", [{"use_dora": True}, {"init_lora_weights": "pissa"}])
def test_adapters_that_start_from_the_weights_are_refused(settings: dict[str, Any]) -> None:
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM", **settings)
    with pytest.raises(UsageError, match="plain LoRA's"):
        add_adapters(packed(tiny_llama(tied=False)), config)


@pytest.mark.parametrize("target", ["embed_tokens", "lm_head"])
@pytest.mark.filterwarnings("ignore:Model with `tie_word_embeddings=True`")
def test_tables_have_no_adapters(target: str) -> None:
    with pytest.raises(UsageError, match="not beside embeddings"):
        add_adapters(packed(tiny_llama(tied=True)), lora([target]))


def test_peft_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(UsageError, match=r"pip install \"nash-swarm\[peft\]\""):
        add_adapters(torch.nn.Linear(1, 1), None)


@pytest.mark.slow
def test_smollm2_learns_in_twenty_steps(tmp_path: Path) -> None:
    source = load_source("smollm2")
    game = ns.measure(source.model, text=None, damage="magnitude", granularity="layer", quiet=True)
    model = ns.pack(source.model, ns.solve(game, bits=4.5, solver="greedy"), quantizer="rtn", quiet=True)
    torch.manual_seed(0)
    adapted = add_adapters(model, lora(["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]))
    text = "The swarm met at noon. Each agent named its price, and the market cleared before one. " * 4
    ids = torch.tensor([source.tokenizer(text)["input_ids"][:64]])
    losses = train(adapted.train(), ids, 20, 1e-3)
    assert losses[-1] < 0.7 * losses[0]
    # there is no folder where peft could see whether the vocabulary has grown
    adapted.eval().save_pretrained(tmp_path, save_embedding_layers=False)
    with torch.no_grad():
        expected = adapted(ids, use_cache=False).logits
        adapted.unload()
        again = load_adapters(model, tmp_path)
        assert torch.equal(again(ids, use_cache=False).logits, expected)


@pytest.mark.parametrize("make", [lambda: tiny_llama(tied=True), lambda: tiny_llama(tied=False), tiny_gpt2])
def test_resizing_says_how(make: Any) -> None:
    model = packed(make())
    expected = logits(model, IDS)
    model.resize_token_embeddings(101)
    for settings in ({"mean_resizing": False}, {}):
        with pytest.raises(UsageError, match="call resize_token_embeddings on the original model, save it, and pack"):
            model.resize_token_embeddings(120, **settings)
    assert model.get_input_embeddings().num_embeddings == 101 and torch.equal(logits(model, IDS), expected)
