"""A tokenizer that is not there, one that is damaged, and one that needs a package: three different things."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import transformers
from support.models import tiny_llama
from support.tokenizer_files import KINDS

from nash_swarm.artifacts.packed_model import load_tokenizer
from nash_swarm.errors import DataError
from nash_swarm.models import tokenizing
from nash_swarm.models.source import load_source


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_llama(tied=True).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_no_tokenizer_is_none(folder: Path) -> None:
    assert load_source(folder).tokenizer is None and load_tokenizer(folder) is None


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("tokenizer.json", b'{"version": "1.0", ', ["tokenizer.json is damaged", "no JSON"]),
        ("tokenizer.json", b"", ["tokenizer.json is damaged", "empty"]),
        ("tokenizer.json", b"[]", ["tokenizer.json is damaged", "no JSON object"]),
        (
            "tokenizer.json",
            b'{"version": "1.0", "model": {"type": "NoSuch"}}',
            ["tokenizer.json is damaged or of a newer"],
        ),
        ("tokenizer_config.json", b"\xff\xfe{", ["tokenizer_config.json is damaged"]),
    ],
)
def test_damaged_files_are_named(file: str, content: bytes, words: list[str], folder: Path) -> None:
    KINDS["fast"](folder)
    (folder / file).write_bytes(content)
    for load in (load_source, load_tokenizer):
        with pytest.raises(DataError) as raised:
            load(folder)
        message = str(raised.value)
        assert all(word in message for word in words) and "\n" not in message, message


def test_a_vocabulary_that_is_missing_is_named(folder: Path) -> None:
    KINDS["fast"](folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(DataError, match=r"incomplete: there is special_tokens_map.json but no vocabulary"):
        load_source(folder)


@pytest.mark.parametrize("package", ["sentencepiece", "tiktoken", "protobuf"])
def test_a_missing_package_is_named(package: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"IQ== 0\nIg== 1\n" if package == "tiktoken" else b"\n\x0e\n\x05<unk>"
    (folder / "tokenizer.model").write_bytes(content)

    def fail(*_: Any, **__: Any) -> None:
        try:
            raise ImportError(f"requires the {package} library")
        except ImportError as error:
            raise ValueError("couldn't instantiate the backend tokenizer") from error

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", fail)
    monkeypatch.setattr(tokenizing, "_installed", lambda module: False)
    with pytest.raises(DataError, match=f"needs {package}; run: pip install {package}$"):
        load_source(folder)


@pytest.mark.skipif(find_spec("sentencepiece") is not None, reason="sentencepiece is installed")
def test_transformers_own_words_for_a_missing_package_are_understood(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    (folder / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    with pytest.raises(DataError, match=r"needs sentencepiece( and protobuf)?; run: pip install sentencepiece"):
        load_source(folder)
    assert capfd.readouterr().err == ""


def test_a_tokenizer_with_code_of_its_own_says_so(folder: Path) -> None:
    KINDS["fast"](folder)
    path = folder / "tokenizer_config.json"
    values = json.loads(path.read_text(encoding="utf-8")) | {
        "tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}
    }  # fmt: skip
    path.write_text(json.dumps(values), encoding="utf-8")
    (folder / "own.py").write_text("raise SystemExit('run')")
    with pytest.raises(DataError, match="comes with Python code of its own; --trust-remote-code"):
        load_tokenizer(folder)
