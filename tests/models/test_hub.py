"""Names that may be on the hub: one question with a short patience, and the cache where there is no answer."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from support.models import tiny_llama
from support.tokenizer_files import KINDS

from nash_swarm.errors import DataError, UsageError
from nash_swarm.models.source import load_source


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder here has the name of a model's makers."""
    monkeypatch.chdir(tmp_path)


def test_an_unreachable_hub_is_said_at_once_with_both_possibilities(monkeypatch: pytest.MonkeyPatch) -> None:
    # nobody listens there; transformers alone asks six times and waits 23 seconds between
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    started = time.perf_counter()
    with pytest.raises(
        DataError, match="no folder org/none here, and the hub cannot be asked for org/none: "
    ) as raised:
        load_source("org/none")
    assert time.perf_counter() - started < 10 and "\n" not in str(raised.value)


def _answer(monkeypatch: pytest.MonkeyPatch, *files: str) -> None:
    def model_info(self: Any, name: str, **_: Any) -> Any:
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=file) for file in files])

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["adapter_config.json", "adapter_model.bin"], "LoRA adapter"),
        (["adapter_config.json", "adapter_model.safetensors"], "LoRA adapter"),
        (["a.Q4_0.gguf", "README.md"], "GGUF files only; .* a.Q4_0.gguf"),
        (["model_index.json", "unet/x.safetensors"], "diffusers"),
        (["config.json", "pytorch_model.bin"], "no safetensors weights"),
        (["README.md"], "no config.json"),
    ],
)
def test_what_the_hub_has_is_told_before_anything_is_fetched(
    files: list[str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _answer(monkeypatch, *files)
    with pytest.raises(DataError, match=f"org/name on the hub .*{words}"):
        load_source("org/name")


def test_a_model_that_the_hub_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import RepositoryNotFoundError

    def fail(*_: Any, **__: Any) -> None:
        error = RepositoryNotFoundError.__new__(RepositoryNotFoundError)
        raise error

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", fail)
    with pytest.raises(DataError, match="no folder org/name here, and the hub has no model org/name"):
        load_source("org/name")


def test_a_cached_model_loads_without_the_hub_and_brings_its_small_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    place, commit = cache / "models--org--name", "0123456789012345678901234567890123456789"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(commit)
    tiny_llama(tied=True).save_pretrained(tmp_path / "model")
    KINDS["fast"](tmp_path / "model")
    (tmp_path / "model" / "LICENSE").write_text("free")
    (place / "blobs").mkdir()
    (place / "snapshots" / commit).mkdir(parents=True)
    for file in (tmp_path / "model").iterdir():
        shutil.copy(file, place / "blobs" / file.name)
        (place / "snapshots" / commit / file.name).symlink_to(place / "blobs" / file.name)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    loaded = load_source("org/name")
    assert loaded.name == "org/name" and loaded.tokenizer.vocab_size > 256
    assert {path.name for path in loaded.files} == {
        "LICENSE", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"
    }  # fmt: skip
    (place / "snapshots" / commit / "config.json").unlink()
    (place / "snapshots" / commit / "config.json").write_text('{"quantization_config": {"quant_method": "nash_swarm"}}')
    with pytest.raises(UsageError, match="already packed"):
        load_source("org/name")
