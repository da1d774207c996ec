"""Directories of models: which tensors their files hold, and where the hub's are on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nash_swarm.compat.hf import cached_in_hub
from nash_swarm.compat.versions import check_api
from nash_swarm.errors import DataError

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"


def stored_tensors(folder: Path) -> dict[str, tuple[Path, tuple[int, ...]]]:
    """File and shape of every tensor in a directory's safetensors files, from their headers.

    Raises:
        DataError: there are none, they are damaged, or the index names files outside the directory.
    """
    from safetensors import safe_open

    files = {_SINGLE}
    if not (folder / _SINGLE).is_file():
        try:
            files = set(json.loads((folder / _INDEX).read_text(encoding="utf-8"))["weight_map"].values())
        except FileNotFoundError:
            raise DataError(f"{folder} has no safetensors weights") from None
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(f"{folder / _INDEX} cannot be read: {error}") from error
    found: dict[str, tuple[Path, tuple[int, ...]]] = {}
    for file in sorted(files, key=str):
        if not isinstance(file, str) or Path(file).name != file:
            raise DataError(f"{folder / _INDEX}: {file!r} is no file of this directory")
        try:
            with safe_open(folder / file, framework="pt") as opened:
                found |= {name: (folder / file, tuple(opened.get_slice(name).get_shape())) for name in opened.keys()}  # noqa: SIM118
        except Exception as error:  # safetensors raises its own kind
            check_api(error)
            raise DataError(f"{folder / file} is damaged or cut short: {error}") from error
    return found


def read_generation(model: Any, folder: Path) -> None:
    """What `from_pretrained` does with a directory's settings for generation."""
    from transformers import GenerationConfig

    if (folder / "generation_config.json").is_file() and model.can_generate():
        model.generation_config = GenerationConfig.from_pretrained(folder)


def folder_of(name: str) -> Path:
    """The directory of a model: itself, or where what the hub has of it is kept on this machine."""
    if (Path(name) / "config.json").is_file():
        return Path(name)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, allow_patterns=["*.safetensors", "*.json"]))


def stored_names(name: str, info: Mapping[str, Any]) -> Iterable[str]:
    """Names of the tensors a model was loaded from; of one from the hub at least those that had no place."""
    if (Path(name) / "config.json").is_file():
        return stored_tensors(Path(name))
    try:
        return stored_tensors(Path(cached_in_hub(name, "config.json") or name).parent)
    except Exception as error:  # files may be kept elsewhere
        check_api(error)
    return sorted(info["unexpected_keys"])
