"""What `overwrite` replaces: folders in which every entry is one that nash-swarm writes, and files that were named."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import transformers
from support.bench import Bench
from support.folders import contents, packed_folder

import nash_swarm as ns
from nash_swarm.errors import DataError, OutputError
from nash_swarm.files.atomic import check_new_file, check_new_folder, clean_up, new_file, new_folder
from nash_swarm.files.known import PACKED_MODEL, TASK_FILES
from nash_swarm.files.places import source_places
from nash_swarm.game import Allocation, BitGame
from nash_swarm.models.source import load_source


def test_a_saved_model_with_its_tokenizer_is_replaced(tmp_path: Path, packed: Any, bench: Bench) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(bench.model)
    tokenizer.chat_template = {"default": "{{ messages }}", "tools": "{{ tools }}"}
    out = ns.save(packed, tmp_path / "out", tokenizer=tokenizer)
    assert (out / "additional_chat_templates" / "tools.jinja").is_file()
    ns.save(packed, out, overwrite=True)
    assert "tokenizer.json" not in contents(out) and list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(
    "name",
    [
        "LICENSE", "LICENSE.txt", "NOTICE", "USE_POLICY.md", "tokenizer.model", "preprocessor_config.json",
        "special_tokens_map.json", "chat_template.jinja", "vocab.json", "merges.txt", "added_tokens.json",
        "model-00001-of-00002.safetensors", "model.safetensors.index.json",
    ],
)  # fmt: skip
def test_files_that_go_with_a_model_do_not_matter(tmp_path: Path, name: str) -> None:
    check_new_folder(packed_folder(tmp_path / "out", **{name: ""}), overwrite=True)


def test_what_the_report_says_does_not_matter(tmp_path: Path) -> None:
    out = packed_folder(tmp_path / "out", **{"modeling_odd.py": ""})
    for report in ("{", "[]", json.dumps({"copied": ["modeling_odd.py"]})):
        (out / "nash_swarm.json").write_text(report)
        with pytest.raises(OutputError, match=r"holds modeling_odd\.py"):
            check_new_folder(out, overwrite=True)


@pytest.mark.parametrize("name", ["notice of termination.pdf", "license-keys.csv", "copying-thesis.docx"])
def test_letters_that_begin_like_a_licence_stay(tmp_path: Path, name: str) -> None:
    out = packed_folder(tmp_path / "out", **{name: "mine"})
    with pytest.raises(OutputError, match="which nash-swarm did not write"):
        check_new_folder(out, overwrite=True)


def _thesis(out: Path) -> None:
    (out / "thesis.tex").write_text("years of work")


def _folder(out: Path) -> None:
    (out / "chapters").mkdir()


def _inside_templates(out: Path) -> None:
    (out / "additional_chat_templates").mkdir()
    (out / "additional_chat_templates" / "thesis.tex").write_text("years of work")


def _hidden(out: Path) -> None:
    (out / ".git").mkdir()


def _link(out: Path) -> None:
    (out / "README.md").symlink_to(out / "config.json")


def _folder_of_a_known_name(out: Path) -> None:
    (out / "LICENSE").mkdir()


def _no_packed_model(out: Path) -> None:
    (out / "config.json").write_text(json.dumps({"model_type": "llama"}))


def _damaged(out: Path) -> None:
    (out / "config.json").write_text("{")


def _only_words(out: Path) -> None:
    (out / "config.json").unlink()
    (out / "model.safetensors").unlink()
    (out / "README.md").write_text("mine")
    (out / "LICENSE").write_text("mine")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_thesis, "thesis.tex"), (_folder, "chapters"), (_inside_templates, "additional_chat_templates/thesis.tex"),
        (_hidden, ".git"), (_link, "README.md"), (_folder_of_a_known_name, "LICENSE"),
        (_no_packed_model, "no packed model"), (_damaged, "no packed model"), (_only_words, "no packed model"),
    ],
)  # fmt: skip
def test_anything_else_keeps_the_folder_as_it_is(tmp_path: Path, change: Callable[[Path], None], words: str) -> None:
    out = packed_folder(tmp_path / "out")
    change(out)
    before = contents(tmp_path)
    with pytest.raises(OutputError, match=f"{words}.*choose another folder or remove it yourself"):
        check_new_folder(out, overwrite=True)
    with pytest.raises(OutputError, match=words), new_folder(out, overwrite=True):
        raise AssertionError("must not get as far")
    assert contents(tmp_path) == before and (out / "chapters").is_dir() == (change is _folder)


def test_each_kind_of_folder_is_replaced_by_its_own_kind_only(tmp_path: Path) -> None:
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    for name in ("questions.jsonl", "last-word.yaml", "cloze.yaml"):
        (tasks / name).touch()
    check_new_folder(tasks, overwrite=True, kind=TASK_FILES)
    with pytest.raises(OutputError, match=r"cloze.yaml"):
        check_new_folder(tasks, overwrite=True)
    packed = packed_folder(tmp_path / "packed")
    with pytest.raises(OutputError, match=r"config.json"):
        check_new_folder(packed, overwrite=True, kind=TASK_FILES)
    (tasks / "questions.jsonl").unlink()
    with pytest.raises(OutputError, match="no set of task files"):
        check_new_folder(tasks, overwrite=True, kind=TASK_FILES)


@pytest.mark.parametrize("what", ["packed", "empty", "missing"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_links_are_never_followed(tmp_path: Path, what: str, overwrite: bool) -> None:
    place = tmp_path / "place"
    if what != "missing":
        place.mkdir()
    if what == "packed":
        packed_folder(place)
    link = tmp_path / "link"
    link.symlink_to(place)
    before = contents(tmp_path)
    with pytest.raises(OutputError, match="is a symbolic link"), new_folder(link, overwrite=overwrite):
        pass
    file = tmp_path / "file"
    file.write_text("kept")
    (tmp_path / "link.npz").symlink_to(file)
    with pytest.raises(OutputError, match="is a symbolic link"), new_file(tmp_path / "link.npz", overwrite=overwrite):
        pass
    (tmp_path / "link.npz").unlink()
    assert file.read_text() == "kept"
    file.unlink()
    assert contents(tmp_path) == before and link.is_symlink()


def test_a_folder_in_use_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = packed_folder(tmp_path / "a" / "here")
    monkeypatch.chdir(here)
    for out in (".", here, "../here"):
        with pytest.raises(OutputError, match="is the working directory"):
            check_new_folder(out, overwrite=True)
    empty = tmp_path / "b"
    empty.mkdir()
    monkeypatch.chdir(empty)
    with pytest.raises(OutputError, match="is the working directory"):
        check_new_folder(".")
    for out in ("..", "/"):
        with pytest.raises(OutputError, match="holds "):
            check_new_folder(out, overwrite=True)
    home = packed_folder(tmp_path / "c" / "home")
    monkeypatch.setenv("HOME", str(home))
    with pytest.raises(OutputError, match="is your home folder"):
        check_new_folder(home, overwrite=True)
    with pytest.raises(OutputError, match="holds your home folder"):
        check_new_folder(home.parent, overwrite=True)


def test_what_is_read_is_not_replaced(tmp_path: Path) -> None:
    """Not even where it looks like a packed model."""
    place = packed_folder(tmp_path / "models" / "one")
    (tmp_path / "link").symlink_to(place)
    for given in (place, str(place), tmp_path / "link", place / "config.json"):
        sources = source_places(given)
        assert sources
        with pytest.raises(OutputError, match="what is read"):
            check_new_folder(place, overwrite=True, sources=sources)
        with pytest.raises(OutputError, match="holds what is read"):
            check_new_folder(place.parent, overwrite=True, sources=sources)
    check_new_folder(place / "inside", sources=source_places(place))


def test_places_of_what_is_read(tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    assert source_places(str(bench.model), None, "a text\0 itself", "x" * 5000, 3) == (bench.model.resolve(),)
    assert source_places(load_source(str(bench.model)).model) == (bench.model.resolve(),)
    cached = tmp_path / "models--some--model"
    cached.mkdir()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert source_places("some/model") == (cached.resolve(),) and source_places("some/other") == ()


def test_the_source_survives_every_writer(
    tmp_path: Path, bench: Bench, packed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Path(shutil.copytree(bench.model, tmp_path / "models" / "model"))
    before = contents(tmp_path)
    source = load_source(str(model))
    budget: dict[str, Any] = {"bits": 6, "text": str(bench.text), "overwrite": True, "quiet": True}
    monkeypatch.chdir(tmp_path)
    for given in (str(model), "models/model", source):
        for out in (model, model.parent, Path("models/../models/model"), tmp_path):
            with pytest.raises(OutputError, match=r"what is read|holds|is the working directory"):
                ns.compress(given, out=out, **budget)
    with pytest.raises(OutputError):
        ns.save(packed, model, overwrite=True)
    packed_source = ns.pack(source.model, ns.solve(_game(source.model), bits=6), quantizer="rtn", quiet=True)
    with pytest.raises(OutputError, match="what is read"):
        ns.save(packed_source, model, overwrite=True)
    assert contents(tmp_path) == before
    # inside it there is room, and nothing else changes
    ns.save(packed_source, model / "packed")
    ns.save(packed_source, model / "packed", overwrite=True)
    assert before.items() <= contents(tmp_path).items()


def _game(model: Any) -> BitGame:
    return ns.measure(model, damage="magnitude", text=None, quiet=True)


def test_a_packed_model_is_saved_where_it_was_loaded_from(tmp_path: Path, packed: Any) -> None:
    out = ns.save(packed, tmp_path / "out")
    before = contents(out)
    again = ns.load(out)
    ns.save(again, out, overwrite=True)
    assert contents(out)["model.safetensors"] == before["model.safetensors"]


def test_existing_files_are_replaced_only_on_request(tmp_path: Path, game: BitGame, allocation: Allocation) -> None:
    writers: dict[str, Callable[..., Path]] = {
        "game.npz": lambda path, **more: ns.save_game(game, path, **more),
        "allocation.json": lambda path, **more: ns.save_allocation(allocation, path, **more),
    }
    for name, write in writers.items():
        path = tmp_path / name
        path.write_text("hours of measuring")
        with pytest.raises(OutputError, match=r"exists.*--overwrite"):
            write(path)
        assert path.read_text() == "hours of measuring"
        write(path, overwrite=True)
        assert path.stat().st_size > 18
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(writers)


def test_an_input_is_not_replaced_even_on_request(tmp_path: Path) -> None:
    game = tmp_path / "game.npz"
    game.write_text("game")
    os.link(game, tmp_path / "same.npz")
    inputs = source_places(game)
    for path in (game, tmp_path / "same.npz", tmp_path / "x" / ".." / "game.npz"):
        (tmp_path / "x").mkdir(exist_ok=True)
        with pytest.raises(OutputError, match="is what is read"):
            check_new_file(path, overwrite=True, inputs=inputs)
    with pytest.raises(OutputError, match="in the folder that is read"):
        check_new_file(game, overwrite=True, inputs=source_places(tmp_path))
    check_new_file(tmp_path / "new.npz", inputs=source_places(tmp_path))


def test_only_plain_files_are_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/null"), Path("/dev/stdout")):
        with pytest.raises(OutputError, match=r"no plain file|symbolic link"):
            check_new_file(path, overwrite=True)
        with pytest.raises(OutputError, match=r"no plain file|symbolic link"), new_file(path, overwrite=True):
            pass
    assert pipe.is_fifo() and Path("/dev/null").is_char_device()


def test_what_appears_during_the_work_stays(tmp_path: Path) -> None:
    """A data error: what was measured is kept for the next run."""
    with pytest.raises(DataError, match="in the meantime"), new_file(tmp_path / "a") as temporary:
        temporary.write_text("ours")
        (tmp_path / "a").write_text("theirs")
    with pytest.raises(DataError, match="in the meantime"), new_folder(tmp_path / "b") as temporary:
        (temporary / "x").touch()
        (tmp_path / "b").mkdir()
        _thesis(tmp_path / "b")
    packed_folder(tmp_path / "c")
    with pytest.raises(DataError, match="in the meantime"), new_folder(tmp_path / "c", overwrite=True) as temporary:
        (temporary / "x").touch()
        _thesis(tmp_path / "c")
    assert {"a", "b/thesis.tex", "c/thesis.tex", "c/config.json", "c/model.safetensors"} == contents(tmp_path).keys()


def test_cleaning_up_removes_no_older_folder_with_something_else_in_it(tmp_path: Path) -> None:
    """What looks like a folder that was being replaced may be a copy that a user made."""
    copy = tmp_path / ".out.20260101.old"
    copy.mkdir()
    _thesis(copy)
    (tmp_path / ".out.20260102.old").write_text("a file")
    before = contents(tmp_path)
    clean_up(tmp_path / "out")
    assert contents(tmp_path) == before
    with new_folder(tmp_path / "out") as temporary:
        (temporary / "x").touch()
    assert contents(tmp_path) == before | {"out/x": b""}


def test_what_tokenizers_write_is_known() -> None:
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

    names: set[str] = set()
    for kind in TOKENIZER_MAPPING_NAMES.values():
        with suppress(ImportError):  # some need a package that is not here
            names |= set(getattr(getattr(transformers, str(kind), None), "vocab_files_names", {}).values())
    assert len(names) > 5
    unknown = {name for name in names if not PACKED_MODEL.files(name)}
    assert not unknown
