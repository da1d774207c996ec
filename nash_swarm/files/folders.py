"""What kind of folder a user named: a model's, a packed one's, or one that holds something else, which is named."""

from __future__ import annotations

import json
from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import Any

from nash_swarm.files.known import METHOD

_POINTER = b"version https://git-lfs.github.com/spec/v"
_ADAPTER = "adapter_config.json"
_INDEX = "model.safetensors.index.json"
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
"""How files of pickled weights end."""
_OTHERS = (
    ("TensorFlow", ("*.h5", "*.ckpt.index", "saved_model.pb")),
    ("Flax", ("*.msgpack",)),
    ("ONNX", ("*.onnx", "onnx/*.onnx")),
)
"""Formats of weights that are not read, and what their files are called."""
_SHOWN = 3
_TO_SAFETENSORS = (
    "convert it once, where you trust its pickled files: AutoModelForCausalLM.from_pretrained(FOLDER)"
    ".save_pretrained(NEW) in transformers writes safetensors"
)


class Kind(Enum):
    """What stands under a name; the value says it in words."""

    BUILT_IN = "a built-in model"
    HUB = "a model of the hub"
    MODEL = "a model folder"
    GGUF = "a GGUF file"
    PACKED = "a model packed by nash-swarm"
    GAME = "a game (from `nash-swarm measure`)"
    ALLOCATION = "an allocation (from `nash-swarm solve`)"
    OTHER = "none of these"


def kind_of_folder(folder: Path) -> tuple[Kind, str]:
    """What a folder holds, and one line on why it is no model; the line is empty if it is one, packed or not."""
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        return Kind.OTHER, f"the folder {folder} cannot be read: {error.strerror}"
    if not names:
        return Kind.OTHER, f"the folder {folder} is empty: it has no config.json"
    config = folder / "config.json"
    if not config.is_file():
        return Kind.OTHER, _without_config(folder, names)
    if is_pointer(config):
        return Kind.OTHER, pointer_problem(config)
    values = _read(config)
    if values is None:
        return Kind.OTHER, f"{config} cannot be read: it is damaged or no JSON object"
    if problem := _pointers(folder):
        return Kind.OTHER, problem
    quantized = values.get("quantization_config")
    if isinstance(quantized, dict) and quantized.get("quant_method") == METHOD:
        return Kind.PACKED, ""
    if problem := _missing_shards(folder):
        return Kind.OTHER, problem
    if not {"model.safetensors", _INDEX} & set(names):
        return Kind.OTHER, _without_safetensors(folder, names)
    return Kind.MODEL, ""


def quantization_method(folder: Path) -> str:
    """What a folder's `config.json` says the model was quantized by, such as `gptq`; empty if by nothing."""
    values = (_read(folder / "config.json") or {}).get("quantization_config")
    if not values:
        return ""
    return str((values.get("quant_method") if isinstance(values, dict) else None) or "an unnamed method")[:40]


def is_pointer(file: Path) -> bool:
    """Whether a file is what git leaves in the place of a large file that has not been fetched."""
    try:
        with file.open("rb") as stream:
            return stream.read(len(_POINTER)) == _POINTER
    except OSError:
        return False


def pointer_problem(file: Path) -> str:
    """What to do about such a file."""
    return f"{file} is a Git LFS pointer, not the file itself; fetch it: git -C {file.parent} lfs pull"


def unpickled_problem(file: Path) -> str:
    """Why a file of pickled weights is not read, and what to do."""
    return f"{file} holds pickled weights, which can run code and are never read; {_TO_SAFETENSORS}"


def _without_config(folder: Path, names: list[str]) -> str:
    if _ADAPTER in names:
        return _adapter(folder)
    if problem := _pointers(folder):
        return problem
    if "model_index.json" in names:
        return f"{folder} is a diffusers pipeline (model_index.json), not a language model: it has no config.json"
    if ggufs := sorted(path.name for path in folder.iterdir() if path.suffix.lower() == ".gguf"):
        return _ggufs(folder, ggufs, " and no config.json")
    inner = [name for name in names if (folder / name / "config.json").is_file()]
    if "modules.json" in names and inner:
        return f"{folder} is a sentence-transformers folder; give the model inside it: {folder / inner[0]}"
    if "modules.json" in names:
        return f"{folder} is a sentence-transformers folder without a transformers model: it has no config.json"
    if (folder / "snapshots").is_dir():
        found = sorted(path.parent for path in folder.glob("snapshots/*/config.json"))
        where = found[-1] if found else "none is complete"
        return f"{folder} is a folder of the hub's cache and has no config.json; give a snapshot in it: {where}"
    if "params.json" in names:
        return (
            f"{folder} has params.json and no config.json: this is the original format of its makers; give the "
            "model in transformers' format"
        )
    if other := _other_format(folder):
        return (
            f"{folder} holds a model in {other} format and has no config.json; give transformers' own, as safetensors"
        )
    if weights := [name for name in names if name.endswith(".safetensors")]:
        return f"{folder} has weights ({weights[0]}) but no config.json; copy the one that belongs to them beside them"
    if pickled := [name for name in names if name.endswith(PICKLED)]:
        return f"{folder} has no config.json, and {unpickled_problem(folder / pickled[0])}"
    if inner:
        return f"{folder} is no model directory: it has no config.json; did you mean {folder / inner[0]}?"
    return f"{folder} is no model directory: it has no config.json"


def _without_safetensors(folder: Path, names: list[str]) -> str:
    pickled = [name for name in names if name.endswith(PICKLED) and not name.startswith("training_args")]
    if _ADAPTER in names:
        return _adapter(folder)
    if pickled:
        return f"{folder} has no safetensors weights: {unpickled_problem(folder / pickled[0])}"
    if ggufs := [name for name in names if name.lower().endswith(".gguf")]:
        return _ggufs(folder, ggufs)
    if other := _other_format(folder):
        return (
            f"{folder} has no safetensors weights, only {other} ones; load it with transformers (from_tf or from_flax "
            "in transformers 4) and save_pretrained it, or fetch the safetensors files"
        )
    if weights := [name for name in names if name.endswith(".safetensors")]:
        return (
            f"{folder} has weights under another name ({weights[0]}); transformers' are model.safetensors, "
            f"or files that are listed in {_INDEX}"
        )
    return f"{folder} has a config.json but no safetensors weights; fetch them too"


def _adapter(folder: Path) -> str:
    base = (_read(folder / _ADAPTER) or {}).get("base_model_name_or_path")
    on = f" for {str(base)[:100]}" if base else ""
    return (
        f"{folder} is a LoRA adapter{on}, not a model; merge it first: peft's "
        "AutoPeftModelForCausalLM.from_pretrained(FOLDER).merge_and_unload().save_pretrained(NEW)"
    )


def _ggufs(folder: Path, names: list[str], but: str = "") -> str:
    return f"{folder} has GGUF files and no safetensors weights{but}; give the file: {_some(folder, names)}"


def _other_format(folder: Path) -> str:
    return next((name for name, patterns in _OTHERS if any(any(folder.glob(one)) for one in patterns)), "")


def _pointers(folder: Path) -> str:
    """The problem with a file that has not been fetched: weights or a tokenizer's."""
    files = [*folder.glob("*.safetensors"), *folder.glob("*.gguf"), *folder.glob("*.model"), *folder.glob("*.json")]
    return next((pointer_problem(file) for file in sorted(files) if is_pointer(file)), "")


def _missing_shards(folder: Path) -> str:
    """The problem with weights in several files of which some are not there."""
    values = (_read(folder / _INDEX) or {}).get("weight_map")
    if not isinstance(values, dict) or (folder / "model.safetensors").is_file():
        return ""
    wanted = {name for name in values.values() if isinstance(name, str)}
    missing = sorted(name for name in wanted if not (folder / Path(name).name).is_file())
    if not missing or not any(folder.glob("*.safetensors")):
        return ""
    return (
        f"{folder} is incomplete: {len(missing)} of {len(wanted)} files of weights are missing, {_some(None, missing)}"
    )


def _some(folder: Path | None, names: Iterable[str]) -> str:
    every = [name if folder is None else str(folder / name) for name in names]
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return ", ".join(every[:_SHOWN]) + more


def _read(file: Path) -> dict[str, Any] | None:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None
