"""Asking the hub for a model: once and with a short patience, before transformers asks with its long one."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

from nash_swarm.errors import DataError
from nash_swarm.files.companions import is_companion

_PATIENCE = 8.0
"""Seconds until the hub must have begun to answer."""


def find_on_hub(name: str) -> Path | None:
    """Make sure that the hub, or its cache on this machine, has a model with safetensors weights of that name.

    Returns the cached folder if the hub cannot be asked, else `None`: transformers fetches the model itself.

    Raises:
        DataError: there is no folder and no such model on the hub, or the hub cannot be asked; said within seconds.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    neither = f"there is no folder {name} here, and"
    try:
        found = HfApi().model_info(name, timeout=_PATIENCE)
    except GatedRepoError as error:
        raise DataError(
            f"{neither} the hub gives {name} only to those who agreed to its terms (hf auth login)"
        ) from error
    except RepositoryNotFoundError as error:
        raise DataError(f"{neither} the hub has no model {name}, or it is private (hf auth login)") from error
    except Exception as error:  # of the HTTP library, of the operating system, or the hub's own
        folder = _cached(name)
        if folder is None:
            lines = str(error).strip().splitlines()
            raise DataError(
                f"{neither} the hub cannot be asked for {name}: {lines[0] if lines else type(error).__name__}"
            ) from error
        return folder
    files = [sibling.rfilename for sibling in found.siblings or ()]
    weights = [file for file in files if fnmatchcase(file, "*.safetensors") and "/" not in file]
    if files and all(file.startswith("adapter_") for file in weights):
        _refuse(name, files)
    return None


def fetch_companions(name: str) -> Path | None:
    """The folder in the hub's cache of a model that has been loaded by name, with its small files fetched too.

    `None` if that folder cannot be told or the files cannot be fetched.
    """
    from huggingface_hub import HfApi, snapshot_download

    if (folder := _cached(name)) is None:
        return None
    try:
        found = HfApi().model_info(name, timeout=_PATIENCE)
        files = [sibling.rfilename for sibling in found.siblings or () if is_companion(sibling.rfilename)]
        return Path(snapshot_download(name, revision=folder.name, allow_patterns=files)) if files else folder
    except Exception:  # without the hub what is in the cache is all there is
        return folder


def _cached(name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json")
    return Path(found).parent if isinstance(found, str) else None


def _refuse(name: str, files: list[str]) -> None:
    if "adapter_config.json" in files:
        raise DataError(f"{name} on the hub is a LoRA adapter, not a model; merge it into its base model first (peft)")
    ggufs = [file for file in files if file.lower().endswith(".gguf")]
    if ggufs:
        raise DataError(f"{name} on the hub has GGUF files only; download one and give it, such as {ggufs[0]}")
    if "model_index.json" in files:
        raise DataError(f"{name} on the hub is a diffusers pipeline, not a language model")
    if "config.json" in files:
        raise DataError(
            f"{name} on the hub has no safetensors weights; pickled ones can run code and are never read: convert it "
            "once with transformers (from_pretrained, save_pretrained)"
        )
    raise DataError(f"{name} on the hub is no model that transformers reads: it has no config.json")
