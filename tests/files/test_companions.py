"""Small files of a source go with the packed model byte for byte; the rest of what is left out is said."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from support.models import tiny_llama
from support.tokenizer_files import KINDS, TEXT

import nash_swarm as ns
from nash_swarm.artifacts.packed_model import counted_bytes
from nash_swarm.errors import LeftOutWarning, UsageError
from nash_swarm.files import companions
from nash_swarm.files.companions import Companions, companions_of, copy_companions, is_companion
from nash_swarm.models.source import load_source

COPIED = (
    "LICENSE", "LICENSE.md", "license.txt", "NOTICE", "USE_POLICY.md", "tokenizer.model", "preprocessor_config.json",
    "processor_config.json", "special_tokens_map.json", "chat_template.jinja", "chat_template.json", "vocab.json",
    "merges.txt", "tokenizer.json", "tokenizer_config.json", "added_tokens.json", "tokenizer.model.v3", "spiece.model",
    "qwen.tiktoken", "tekken.json", "additional_chat_templates/tools.jinja",
)  # fmt: skip
NEVER = (
    "modeling_x.py", "LICENSE.py", "LICENSE.sh", "pytorch_model.bin", "model.safetensors", "training_args.bin",
    "tokenizer.model.pt", "config.json", "nash_swarm.json", "README.md", "original/tokenizer.model", "x/LICENSE",
    "notes.txt", "adapter_config.json",
)  # fmt: skip


@pytest.fixture(scope="module")
def packed() -> Any:
    model = tiny_llama(tied=True)
    game = ns.measure(model, damage="magnitude", text=None, quiet=True)
    return ns.pack(model, ns.solve(game, size=game.largest_bits() // 8, solver="greedy"), quiet=True)


def test_what_is_copied_goes_by_name() -> None:
    assert [name for name in COPIED if not is_companion(name)] == []
    assert [name for name in NEVER if is_companion(name)] == []


def test_files_of_a_folder_are_told_apart(tmp_path: Path) -> None:
    for name in ("LICENSE", "tokenizer.json", "x.py", "pytorch_model.bin", "README.md", ".gitattributes", "a.png"):
        (tmp_path / name).write_text(name)
    (tmp_path / "original").mkdir()
    (tmp_path / "USE_POLICY.md").mkdir()
    found = companions_of(tmp_path)
    assert [path.name for path in found.files] == ["LICENSE", "tokenizer.json"]
    assert found.left_out == ("USE_POLICY.md/", "a.png", "original/", "pytorch_model.bin", "x.py")
    assert found.told() == ("the files USE_POLICY.md/, a.png, original/, pytorch_model.bin, x.py",)
    assert Companions((), tuple("abcdefgh")).told() == ("the files a, b, c, d, e, f and 2 more",)
    assert Companions().told() == ()


def test_large_files_and_other_names_are_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(companions, "_LARGEST", 10)
    (tmp_path / "LICENSE").write_text("x" * 11)
    (tmp_path / "x.py").write_text("1")
    assert companions_of(tmp_path) == Companions((), ("LICENSE", "x.py"))
    for name in ("LICENSE", "x.py", "missing"):
        with pytest.raises(UsageError, match="no small file of a model"):
            copy_companions([tmp_path / name], tmp_path / "out")


def test_links_are_followed_and_become_files(tmp_path: Path) -> None:
    for name in ("blobs", "model", "out"):
        (tmp_path / name).mkdir()
    (tmp_path / "blobs" / "0123").write_bytes(b"free\r\n\0")
    (tmp_path / "model" / "LICENSE").symlink_to(tmp_path / "blobs" / "0123")
    (tmp_path / "model" / "NOTICE").symlink_to(tmp_path / "gone")
    found = companions_of(tmp_path / "model")
    copy_companions(found.files, tmp_path / "out")
    copied = tmp_path / "out" / "LICENSE"
    assert found.left_out == ("NOTICE",)
    assert not copied.is_symlink() and copied.read_bytes() == b"free\r\n\0" and copied.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("kind", KINDS)
def test_a_packed_models_tokenizer_is_its_sources(kind: str, packed: Any, tmp_path: Path) -> None:
    source = tmp_path / "source"
    tiny_llama(tied=True).save_pretrained(source)
    KINDS[kind](source)
    (source / "LICENSE").write_bytes(b"free\r\nfor all")
    loaded = load_source(source)
    out = ns.save(packed, tmp_path / "out", tokenizer=loaded.tokenizer, files=loaded.files)
    for path in loaded.files:
        assert (out / path.relative_to(source)).read_bytes() == path.read_bytes(), path
    copied = {str(path.relative_to(source)) for path in loaded.files}
    present = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    ours = {"README.md", "config.json", "generation_config.json", "model.safetensors", "nash_swarm.json"}
    assert present == copied | ours and "LICENSE" in copied and loaded.left_out == ()
    again = ns.load_tokenizer(out)
    assert type(again) is type(loaded.tokenizer)
    for text in (TEXT, "", "  two  spaces ", "<s>[CLS]", "unseen ✓"):
        assert again(text)["input_ids"] == loaded.tokenizer(text)["input_ids"]
    assert again.chat_template == loaded.tokenizer.chat_template
    assert counted_bytes(out) == sum((out / name).stat().st_size for name in ours)


def test_without_files_the_tokenizer_is_saved_by_transformers(packed: Any, tmp_path: Path) -> None:
    source = tmp_path / "source"
    tiny_llama(tied=True).save_pretrained(source)
    KINDS["fast"](source)
    (source / "LICENSE").write_text("free")
    tokenizer = load_source(source).tokenizer
    out = ns.save(packed, tmp_path / "out", tokenizer=tokenizer, files=[source / "LICENSE"])
    assert (out / "LICENSE").is_file() and (out / "tokenizer.json").is_file()
    assert ns.load_tokenizer(out)(TEXT)["input_ids"] == tokenizer(TEXT)["input_ids"]
    with pytest.raises(UsageError, match="no small file"):
        ns.save(packed, tmp_path / "other", files=[source / "model.safetensors"])
    assert not (tmp_path / "other").exists()


def test_what_is_left_out_is_one_warning(tmp_path: Path) -> None:
    tiny_llama(tied=True).save_pretrained(tmp_path / "model")
    for name in ("modeling_x.py", "pytorch_model.bin"):
        (tmp_path / "model" / name).write_text("x")
    (tmp_path / "model" / "original").mkdir()
    with pytest.warns(LeftOutWarning, match=r"model: the files modeling_x.py, original/, pytorch_model.bin$"):
        (told,) = load_source(tmp_path / "model").left_out
    assert told.endswith("model: the files modeling_x.py, original/, pytorch_model.bin")


def test_compress_and_pack_copy(bench: Any, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from nash_swarm.cli.main import app

    model = Path(shutil.copytree(bench.model, tmp_path / "model"))
    (model / "USE_POLICY.md").write_text("be kind")
    before = {path.name: path.read_bytes() for path in companions_of(model).files}
    assert set(before) == {"USE_POLICY.md", "tokenizer.json", "tokenizer_config.json"}
    settings: dict[str, Any] = {
        "text": str(bench.text),
        "windows": 1,
        "eval_windows": 0,
        "contest": False,
        "quiet": True,
    }
    ns.compress(str(model), out=tmp_path / "compressed", bits=6, quantizer="rtn", **settings)
    game = ns.measure(load_source(model).model, damage="magnitude", text=None, quiet=True)
    ns.save_allocation(ns.solve(game, bits=6, solver="greedy"), tmp_path / "a.json")
    words = ["pack", model, tmp_path / "a.json", "-o", tmp_path / "packed", "-q", "--quantizer", "rtn"]
    assert CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False).exit_code == 0
    for out in (tmp_path / "compressed", tmp_path / "packed"):
        assert {name: (out / name).read_bytes() for name in before} == before
