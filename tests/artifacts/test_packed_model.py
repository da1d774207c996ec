"""Packed models on disk: they come back bit for bit, within the budget, and no changed byte gets through."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import transformers
from support.models import MODELS, allocate, logits, tiny_gpt2

import nash_swarm as ns
from nash_swarm.artifacts.packed_config import config_digest
from nash_swarm.artifacts.packed_model import COUNTED, counted_bytes, is_packed, read_config, read_report
from nash_swarm.errors import BudgetError, DataError, UsageError
from nash_swarm.game import Allocation, Budget
from nash_swarm.quantizers.runtime.cpu.aligned import LINE
from nash_swarm.quantizers.runtime.modules import PackedWeight

Ids = npt.NDArray[np.int32]


@pytest.fixture(scope="module")
def folder(packed: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`packed` on disk; not to be changed."""
    return ns.save(packed, tmp_path_factory.mktemp("saved") / "out", measured={"perplexity": 12.3, "text": "x"})


def test_load_gives_identical_logits(packed: Any, folder: Path, tokens: Ids) -> None:
    expected = logits(packed, tokens)
    loaded = ns.load(folder)
    assert torch.equal(logits(loaded, tokens), expected)
    assert not loaded.training
    plain = transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert torch.equal(logits(plain, tokens), expected)


def test_packing_changed_the_logits_a_little(packed: Any, model: Any, tokens: Ids) -> None:
    original = logits(model, tokens)
    off = (logits(packed, tokens) - original).abs().mean() / original.std()
    assert 0.01 < off < 0.3


def test_every_matrix_is_packed(packed: Any, model: Any) -> None:
    assert not [name for name, parameter in packed.named_parameters() if parameter.ndim > 1]
    assert sum(m.layout.weights for m in packed.modules() if isinstance(m, PackedWeight)) == sum(
        parameter.numel() for parameter in model.parameters() if parameter.ndim > 1
    )


def test_a_loaded_model_saves_to_the_same_bytes(folder: Path, tmp_path: Path, tokens: Ids) -> None:
    again = ns.save(ns.load(folder), tmp_path / "again")
    for name in ("model.safetensors", "config.json"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()
    assert read_report(again) == read_report(folder)


@pytest.mark.parametrize("loaded", [False, True])
def test_save_pretrained_reloads(packed: Any, folder: Path, tmp_path: Path, tokens: Ids, loaded: bool) -> None:
    model = ns.load(folder) if loaded else packed
    model.save_pretrained(tmp_path / "plain")
    for load in (ns.load, transformers.AutoModelForCausalLM.from_pretrained):
        assert torch.equal(logits(load(tmp_path / "plain"), tokens), logits(packed, tokens))
    stored = (tmp_path / "plain" / "model.safetensors").stat().st_size
    assert stored == pytest.approx((folder / "model.safetensors").stat().st_size, abs=64)


@pytest.mark.parametrize("granularity", ["layer", "tile", "parameter"])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_files_keep_within_the_budget(granularity: str, share: float, tokens: Ids, tmp_path: Path) -> None:
    for name, make in MODELS.items():
        model = make()
        game = ns.measure(model, damage="magnitude", text=None, granularity=granularity, group_size=32, quiet=True)
        allocation = allocate(game, share)
        packed = ns.pack(model, allocation, quantizer="rtn", quiet=True)
        folder = ns.save(packed, tmp_path / name)
        # the slack is what is reserved for the report and the card, and for digits in the header
        left = allocation.certificate.used_bits // 8 - counted_bytes(folder)
        assert 0 <= left < 4200, name
        assert counted_bytes(folder) == sum(path.stat().st_size for path in folder.iterdir())
        assert torch.equal(logits(ns.load(folder), tokens), logits(packed, tokens))


def test_scope_linear_leaves_the_rest_in_half_precision(tokens: Ids, tmp_path: Path) -> None:
    for name, make in MODELS.items():
        model = make()
        game = ns.measure(model, tokens=tokens, scope="linear", group_size=32, quiet=True)
        allocation = allocate(game)
        packed = ns.pack(model, allocation, quiet=True)
        folder = ns.save(packed, tmp_path / name)
        assert torch.equal(logits(ns.load(folder), tokens), logits(packed, tokens))
        config = read_config(folder)
        assert config.scope == "linear" and not config.heads
        embedding = model.get_input_embeddings().weight
        assert torch.equal(packed.get_input_embeddings().weight, embedding.half().float())
        used = sum(entry.size for entry in config.tensors.values())
        assert used == allocation.certificate.used_bits // 8 <= allocation.budget.total_bits // 8


def test_a_budget_that_the_files_break_leaves_nothing_behind(
    packed: Any, allocation: Allocation, tmp_path: Path
) -> None:
    tight = replace(allocation, budget=Budget(8 * 10_000, "10KB"))
    with pytest.raises(BudgetError, match="10KB"):
        ns.save(packed, tmp_path / "out", allocation=tight)
    assert not list(tmp_path.iterdir())


def test_saving_needs_a_packed_model_and_an_empty_place(model: Any, packed: Any, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not packed"):
        ns.save(model, tmp_path / "out")
    with pytest.raises(UsageError, match="not empty"):
        ns.save(packed, folder)
    with pytest.raises(DataError, match="does not exist"):
        ns.save(packed, tmp_path / "missing" / "out")
    assert not list(tmp_path.iterdir())


def test_the_report_and_the_card_say_what_was_done(folder: Path, allocation: Allocation) -> None:
    report = read_report(folder)
    assert report["solver"] == "greedy" and report["measured"] == {"perplexity": 12.3, "text": "x"}
    assert report["certificate"]["used_bits"] == allocation.certificate.used_bits
    card = (folder / "README.md").read_text()
    for words in ("import nash_swarm", 'nash_swarm.load("out")', "Certificate", "perplexity 12.3", "greedy"):
        assert words in card
    assert is_packed(folder) and not is_packed(folder.parent)
    assert {path.name for path in folder.iterdir()} == set(COUNTED)


def test_a_tokenizer_is_saved_beside_it_and_not_counted(packed: Any, folder: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    words = Tokenizer(WordLevel({"[UNK]": 0, "hello": 1, "swarm": 2}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")
    out = ns.save(packed, tmp_path / "out", tokenizer=tokenizer, measured={"perplexity": 12.3, "text": "x"})
    assert ns.load_tokenizer(out)("hello swarm")["input_ids"] == [1, 2]
    assert counted_bytes(out) == counted_bytes(folder)
    assert ns.load_tokenizer(folder) is None


def test_generation_from_a_packed_model(tokens: Ids, tmp_path: Path) -> None:
    model = tiny_gpt2()
    game = ns.measure(model, damage="magnitude", text=None, group_size=32, quiet=True)
    packed = ns.pack(model, allocate(game, 1.0), quantizer="rtn", quiet=True)
    loaded = ns.load(ns.save(packed, tmp_path / "out"))
    ids = torch.from_numpy(tokens[:1, :8].astype(np.int64))
    results = [m.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=0) for m in (packed, loaded)]
    assert torch.equal(*results) and results[0].shape[1] > 8


def test_activations_are_chosen_when_loading(packed: Any, folder: Path, tokens: Ids) -> None:
    exact = ns.load(folder, activations="fp32")
    rounded = ns.load(folder)
    assert not torch.equal(logits(exact, tokens), logits(rounded, tokens))
    ns.set_activations(rounded, "fp32")
    assert torch.equal(logits(exact, tokens), logits(rounded, tokens))
    with pytest.raises(UsageError, match="int8, fp32, not 'int16'"):
        ns.load(folder, activations="int16")


def test_rounded_activations_cost_little(packed: Any, model: Any, folder: Path, tokens: Ids) -> None:
    models = {mode: ns.load(folder, activations=mode) for mode in ("int8", "fp32")}
    found = ns.evaluate(models, tokens, reference=models["fp32"], quiet=True)
    weights = ns.evaluate({"packed": models["fp32"]}, tokens, reference=model, quiet=True)["packed"].kl
    assert found["fp32"].kl == 0
    assert found["int8"].kl is not None and weights is not None
    assert 0 < found["int8"].kl < 0.01 and found["int8"].kl < 0.2 * weights


def test_packed_buffers_settle_in_one_run_of_memory(folder: Path, tokens: Ids, tmp_path: Path) -> None:
    loaded = ns.load(folder)
    buffers = [module.packed for module in loaded.modules() if isinstance(module, PackedWeight)]
    starts = sorted((buffer.data_ptr(), len(buffer)) for buffer in buffers)
    assert all(start % LINE == 0 for start, _ in starts)
    assert all(0 <= later - (start + size) < LINE for (start, size), (later, _) in pairwise(starts))
    # each is a tensor of its own all the same
    buffers[0].add_(0)
    assert all(buffer._version == buffers[1]._version for buffer in buffers[1:])
    assert buffers[0]._version > buffers[1]._version
    again = ns.load(ns.save(loaded, tmp_path / "again"))
    assert torch.equal(logits(again, tokens), logits(loaded, tokens))


def test_another_class_than_the_saved_one_is_named(packed: Any, tmp_path: Path) -> None:
    ns.save(packed, tmp_path / "out")
    kind = type(packed).__name__
    for loader in (transformers.AutoModel, transformers.AutoModelForSequenceClassification):
        with pytest.raises(
            UsageError, match=f"a packed {kind}, which cannot .* use AutoModelForCausalLM or nash_swarm"
        ):
            loader.from_pretrained(tmp_path / "out")


@pytest.mark.parametrize("version", [1, 2])
def test_models_of_older_formats_must_be_packed_again(folder: Path, tmp_path: Path, version: int) -> None:
    copy = tmp_path / "older"
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text())
    config["quantization_config"]["format"] = version
    config["quantization_config"]["digest"] = config_digest(config)
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match="packed again"):
        ns.load(copy)
