"""What stands under a name that a user typed: told at once, with what to do, before anything heavy."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from nash_swarm.artifacts.packed_config import METHOD
from nash_swarm.errors import DataError, UsageError
from nash_swarm.files.named import Kind, check_kind, look, require_packed, require_source

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 10\n"
Make = Callable[[Path], None]


def write(*names: str, text: str = "x") -> Make:
    def make(folder: Path) -> None:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")

    return make


def config(values: object = None) -> Make:
    return write("config.json", text=json.dumps({"model_type": "llama"} if values is None else values))


def both(*makes: Make) -> Make:
    def make(folder: Path) -> None:
        for one in makes:
            one(folder)

    return make


FOLDERS: dict[str, tuple[Make, list[str]]] = {
    "empty": (write(), ["is empty", "no config.json"]),
    "adapter": (
        write("adapter_config.json", "adapter_model.safetensors", text='{"base_model_name_or_path": "org/base"}'),
        ["LoRA adapter for org/base", "merge_and_unload"],
    ),
    "adapter beside a config": (
        both(config(), write("adapter_config.json", "adapter_model.bin", text="{}")), ["LoRA adapter"],
    ),
    "gguf": (write("a-Q4_K.gguf", "b.GGUF"), ["GGUF", "give the file", "a-Q4_K.gguf", "b.GGUF"]),
    "gguf beside a config": (both(config(), write("model.gguf")), ["give the file", "model.gguf"]),
    "pickled": (both(config(), write("pytorch_model.bin")), ["pickled weights", "never read", "save_pretrained"]),
    "pickled, no config": (write("model.pth"), ["no config.json", "pickled weights"]),
    "tensorflow": (both(config(), write("tf_model.h5")), ["TensorFlow", "safetensors"]),
    "flax": (both(config(), write("flax_model.msgpack")), ["Flax", "safetensors"]),
    "onnx": (write("onnx/model.onnx"), ["ONNX", "no config.json"]),
    "onnx beside a config": (both(config(), write("model.onnx")), ["ONNX"]),
    "diffusers": (write("model_index.json", "unet/config.json"), ["diffusers", "no config.json"]),
    "sentence-transformers": (
        write("modules.json", "0_Transformer/config.json"), ["sentence-transformers", "0_Transformer"],
    ),
    "original format": (write("params.json", "consolidated.00.pth"), ["params.json", "transformers' format"]),
    "hub cache": (write("refs/main", "snapshots/abc/config.json"), ["hub's cache", "snapshots/abc"]),
    "weights alone": (write("model.safetensors"), ["weights (model.safetensors) but no config.json"]),
    "config alone": (config(), ["no safetensors weights"]),
    "folder of folders": (write("inner/config.json"), ["did you mean", "inner"]),
    "something else": (write("notes.txt"), ["no model directory", "no config.json"]),
    "pointer for weights": (
        both(config(), write("model.safetensors", text=POINTER)),
        ["model.safetensors is a Git LFS pointer", "lfs pull"],
    ),
    "pointer for a tokenizer": (
        both(config(), write("model.safetensors"), write("tokenizer.json", text=POINTER)),
        ["tokenizer.json is a Git LFS pointer", "lfs pull"],
    ),
    "pointer for sentencepiece": (
        both(config(), write("model.safetensors"), write("tokenizer.model", text=POINTER)), ["tokenizer.model", "lfs"],
    ),
    "pointer for a config": (write("config.json", text=POINTER), ["config.json is a Git LFS pointer"]),
    "damaged config": (both(write("config.json", text="{"), write("model.safetensors")), ["config.json cannot be"]),
    "pointer in a packed model": (
        both(
            config({"quantization_config": {"quant_method": METHOD}}), write("model.safetensors", text=POINTER),
        ),
        ["model.safetensors is a Git LFS pointer"],
    ),
    "missing shards": (
        both(
            config(), write("model-00001-of-00002.safetensors"),
            write(
                "model.safetensors.index.json",
                text=json.dumps(
                    {"weight_map": {name: f"model-0000{name}-of-00002.safetensors" for name in ("1", "2")}}
                ),
            ),
        ),
        ["incomplete", "1 of 2 files", "model-00002-of-00002.safetensors"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_that_are_no_model_are_named(name: str, tmp_path: Path) -> None:
    make, words = FOLDERS[name]
    folder = tmp_path / "given"
    folder.mkdir()
    make(folder)
    for require in (require_source, require_packed):
        with pytest.raises(DataError) as raised:
            require(str(folder))
        message = str(raised.value)
        assert all(word in message for word in words) and str(folder) in message, message
        assert "\n" not in message


FILES: dict[str, tuple[str, bytes, list[str]]] = {
    "split gguf": ("m-00002-of-00003.gguf", b"GGUF", ["part 2 of 3", "llama-gguf-split --merge", "m-00001-of-00003"]),
    "one safetensors file": ("model.safetensors", b"\0" * 20, ["one file of a model", "give its folder"]),
    "pickle": ("pytorch_model.bin", b"PK\3\4", ["pickled weights"]),
    "onnx": ("m.onnx", b"\x08", ["format that is not read"]),
    "config": ("config.json", b"{}", ["configuration", "give its folder"]),
    "anything": ("notes.txt", b"hello", ["no GGUF file"]),
    "pointer": ("m.gguf", POINTER.encode(), ["Git LFS pointer", "lfs pull"]),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_no_model_are_named(name: str, tmp_path: Path) -> None:
    file, content, words = FILES[name]
    (tmp_path / file).write_bytes(content)
    with pytest.raises(DataError) as raised:
        require_source(tmp_path / file)
    assert all(word in str(raised.value) for word in words), raised.value


@pytest.mark.parametrize("name", ["m.gguf", "M.GGUF", "sha256-0123"])
def test_gguf_files_are_known_by_their_names_in_any_case_and_by_their_first_bytes(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"GGUF\3\0\0\0")
    assert require_source(tmp_path / name).kind is Kind.GGUF


def test_models_packed_and_not(tmp_path: Path) -> None:
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    for folder, values in ((plain, None), (packed, {"quantization_config": {"quant_method": METHOD}})):
        folder.mkdir()
        both(config(values), write("model.safetensors"))(folder)
    assert require_source(plain).kind is Kind.MODEL and require_packed(packed) == packed
    with pytest.raises(DataError, match="no packed model; pack it first: nash-swarm compress"):
        require_packed(plain)
    config({"quantization_config": {"quant_method": "gptq"}})(plain)
    with pytest.raises(DataError, match="no model packed by nash-swarm, but quantized by gptq"):
        require_packed(plain)
    with pytest.raises(UsageError, match="already packed by nash-swarm; give the original"):
        require_source(packed)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("./model", "does not exist"), ("../x/y", "does not exist"), ("/no/such/place", "does not exist"),
        ("~/no-such-model", "does not exist"), ("models/x", "the folder models exists"), ("a/b/c", "does not exist"),
        ("models\\x", "does not exist"), ("models\\there", "models/there"), ("missing/", "does not exist"),
        ("bad name", "does not exist"), ("m.gguf", "no GGUF file"), ("", "names no model"), ("a\0b", "NUL"),
        ("x" * 5000, "name too long"),
    ],
)  # fmt: skip
def test_a_name_that_can_only_be_a_path_is_refused_without_asking_a_hub(
    name: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "there").mkdir(parents=True)
    with pytest.raises(DataError, match="(?i)" + words):
        require_source(name)


@pytest.mark.parametrize("name", ["gpt2", "org/name", "org/name-1.5_b"])
def test_a_name_that_may_be_on_the_hub_is_left_to_it(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert require_source(name).kind is Kind.HUB
    with pytest.raises(DataError, match="a packed model is a folder"):
        require_packed(name)


def test_a_cached_model_counts_more_than_a_folder_of_its_makers_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "org").mkdir()
    assert look("org/name").kind is Kind.OTHER
    (tmp_path / "cache" / "models--org--name").mkdir(parents=True)
    assert look("org/name").kind is Kind.HUB


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    both(config(), write("model.safetensors"))(tmp_path)
    assert require_source("~").path == tmp_path


def test_games_and_allocations_in_each_others_place(tmp_path: Path) -> None:
    game, allocation, model = tmp_path / "a", tmp_path / "b", tmp_path / "model"
    with zipfile.ZipFile(game, "w") as opened:
        for name in ("facts.npy", "damage.npy", "memory.npy"):
            opened.writestr(name, b"")
    allocation.write_text(json.dumps({"format": 1, "solver": "", "budget": {}, "certificate": {}}))
    model.mkdir()
    both(config(), write("model.safetensors"))(model)
    check_kind(game, Kind.GAME)
    check_kind(allocation, Kind.ALLOCATION)
    for name, wanted, words in [
        (allocation, Kind.GAME, "is an allocation .*, but a game .* is needed here"),
        (game, Kind.ALLOCATION, "is a game .*, but an allocation .* is needed here"),
        (model, Kind.GAME, "is a model folder, but a game .* `nash-swarm measure` makes a game of it"),
        (tmp_path, Kind.GAME, "is a folder; a game"),
        (tmp_path / "none", Kind.ALLOCATION, "no file .*none; an allocation"),
    ]:
        with pytest.raises(DataError, match=words):
            check_kind(name, wanted)
    with pytest.raises(DataError, match=r"is a game .*, not a model; `nash-swarm solve` takes it"):
        require_source(game)
    with pytest.raises(DataError, match=r"is an allocation .*, not a packed model"):
        require_packed(allocation)


@pytest.mark.parametrize("wrong", [None, 3, ["model"], b"model"])
def test_names_of_another_type(wrong: object) -> None:
    with pytest.raises(UsageError, match="named by text or a path"):
        look(wrong)  # type: ignore[arg-type]


def test_looking_imports_nothing_heavy() -> None:
    code = (
        "import sys; from nash_swarm.files.named import look; look('org/name'); look('.')\n"
        "print([name for name in ('torch', 'numpy', 'transformers', 'huggingface_hub') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("adapter_config.json", "adapter_model.safetensors"), "LoRA adapter"),
        (("consolidated.safetensors",), "weights under another name"),
        (("weights.pkl",), "pickled weights"),
    ],
)
def test_weights_under_other_names(names: tuple[str, ...], words: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    write(*names)(tmp_path)
    with pytest.raises(DataError, match=words):
        require_source(tmp_path)
