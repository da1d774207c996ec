"""What a user's word for a model or a file stands for, told from names and first bytes before anything heavy."""

from __future__ import annotations

import os
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

from nash_swarm.errors import DataError, UsageError
from nash_swarm.files.folders import (
    PICKLED,
    Kind,
    is_pointer,
    kind_of_folder,
    pointer_problem,
    quantization_method,
    unpickled_problem,
)
from nash_swarm.names import BUILT_IN

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_LONGEST_HUB_ID = 96
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)
_HEAD = 256
"""Bytes at the start of a file that tell what it is."""
_USES = {
    Kind.GAME: "`nash-swarm solve` takes it",
    Kind.ALLOCATION: "`nash-swarm pack MODEL ALLOCATION` takes it",
    Kind.MODEL: "`nash-swarm measure` makes a game of it, and `nash-swarm compress` packs it",
    Kind.GGUF: "`nash-swarm measure` makes a game of it, and `nash-swarm compress` packs it",
    Kind.PACKED: "`nash-swarm generate`, `eval` and `inspect` take it",
}


@dataclass(frozen=True)
class Place:
    """What stands under a name.

    Attributes:
        name: as the user typed it.
        kind: what it is.
        path: where it is on this machine, `~` replaced; `None` for a built-in name and for a hub id.
        problem: one line on why it is nothing that nash-swarm reads, and what to do; empty for every other kind.
    """

    name: str
    kind: Kind
    path: Path | None
    problem: str = ""


def look(name: str | os.PathLike[str]) -> Place:
    """What stands under `name`: nothing is imported, no hub is asked, and no more than a few small files are read.

    Raises:
        UsageError: `name` is neither text nor a path.
    """
    if not isinstance(name, (str, os.PathLike)) or isinstance(os.fspath(name), bytes):
        raise UsageError(f"a model or file is named by text or a path, not by {type(name).__name__} {str(name)[:40]!r}")
    typed = os.fspath(name)
    if typed in BUILT_IN:
        return Place(typed, Kind.BUILT_IN, None)
    if not typed.strip() or "\0" in typed:
        return Place(typed, Kind.OTHER, None, f"{typed!r} names no model: it is empty or holds a NUL character")
    path = Path(typed).expanduser() if typed.startswith("~") else Path(typed)
    try:
        if path.is_dir():
            kind, problem = kind_of_folder(path)
            return Place(typed, kind, path, problem)
        if path.exists():
            kind, problem = _kind_of_file(path)
            return Place(typed, kind, path, problem)
    except OSError as error:
        return Place(typed, Kind.OTHER, path, f"{typed} cannot be read: {error.strerror}")
    problem = _missing(typed, path)
    return Place(typed, Kind.OTHER, path, problem) if problem else Place(typed, Kind.HUB, None)


def require_source(name: str | os.PathLike[str]) -> Place:
    """What stands under `name`, which must be a model that is not packed, or may be one on the hub.

    Raises:
        DataError: it is something else, or there is nothing; the message says what to do.
        UsageError: it is packed already.
    """
    place = look(name)
    if place.kind is Kind.PACKED:
        raise UsageError(f"{place.name} is already packed by nash-swarm; give the original model")
    if place.kind in (Kind.GAME, Kind.ALLOCATION):
        raise DataError(f"{place.name} is {place.kind.value}, not a model; {_USES[place.kind]}")
    if place.problem:
        raise DataError(place.problem)
    return place


def require_packed(name: str | os.PathLike[str]) -> Path:
    """The folder of a packed model.

    Raises:
        DataError: there is none under `name`; the message says what there is and what to do.
    """
    place = look(name)
    if place.kind is Kind.PACKED and place.path is not None:
        return place.path
    if place.kind is Kind.HUB or _is_absent(place):
        # no hub is asked for packed models
        raise DataError(
            f"no packed model at {place.name}: the path does not exist; a packed model is a folder, from "
            "`nash-swarm compress` or `pack`"
        )
    if place.problem:
        raise DataError(place.problem)
    if place.kind is Kind.MODEL and place.path is not None and (method := quantization_method(place.path)):
        raise DataError(f"config.json: {place.name} is no model packed by nash-swarm, but quantized by {method}")
    if place.kind in (Kind.MODEL, Kind.GGUF, Kind.BUILT_IN):
        raise DataError(
            f"{place.name} is no packed model; pack it first: nash-swarm compress {place.name} --bits 3.5 -o OUT"
        )
    raise DataError(f"{place.name} is {place.kind.value}, not a packed model; {_USES[place.kind]}")


def _is_absent(place: Place) -> bool:
    """Whether there is nothing at a path that could have been given otherwise."""
    try:
        return place.path is not None and not place.path.exists() and "with slashes" not in place.problem
    except OSError:
        return False


def check_kind(name: str | os.PathLike[str], wanted: Kind) -> None:
    """Refuse a file that is certainly something else than `wanted`, a game or an allocation.

    What cannot be told, a damaged file say, passes: whoever reads it knows more.

    Raises:
        DataError: it is something else, or it is not there.
    """
    place = look(name)
    if place.kind is wanted:
        return
    what = wanted.value
    if place.path is None or not place.path.exists():
        raise DataError(f"no file {place.name}; {what} is needed here")
    if place.path.is_dir() and place.kind is Kind.OTHER:
        raise DataError(f"{place.name} is a folder; {what} is needed here")
    if place.kind is not Kind.OTHER:
        raise DataError(f"{place.name} is {place.kind.value}, but {what} is needed here; {_USES[place.kind]}")


def _kind_of_file(path: Path) -> tuple[Kind, str]:
    if not path.is_file():
        return Kind.OTHER, f"{path} is neither a file nor a folder"
    if is_pointer(path):
        return Kind.OTHER, pointer_problem(path)
    with path.open("rb") as stream:
        head = stream.read(_HEAD)
    suffix = path.suffix.lower()
    if suffix == ".gguf" or head.startswith(b"GGUF"):
        return _kind_of_gguf(path)
    if _is_game(path):
        return Kind.GAME, ""
    if head.lstrip().startswith(b"{") and _is_allocation(path):
        return Kind.ALLOCATION, ""
    if suffix == ".safetensors":
        return Kind.OTHER, f"{path} is one file of a model; give its folder, {path.parent}, with config.json in it"
    if suffix in PICKLED:
        return Kind.OTHER, unpickled_problem(path)
    if suffix in (".onnx", ".h5", ".msgpack", ".tflite", ".pb"):
        return Kind.OTHER, f"{path} is a model in a format that is not read; give a folder with safetensors weights"
    if path.name == "config.json":
        return Kind.OTHER, f"{path} is a model's configuration; give its folder, {path.parent}"
    return (
        Kind.OTHER,
        f"{path} is a file, but no GGUF file; give a model's folder, with a config.json, or a .gguf file",
    )


def _kind_of_gguf(path: Path) -> tuple[Kind, str]:
    if part := _PART.search(path.name):
        number, of = int(part[1]), int(part[2])
        if of > 1:
            return Kind.OTHER, (
                f"{path} is part {number} of {of} of a split GGUF file; join them first with llama.cpp: "
                f"llama-gguf-split --merge {_PART.sub(f'-00001-of-{part[2]}.gguf', path.name)} WHOLE.gguf"
            )
    return Kind.GGUF, ""


def _is_game(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as opened:
            return {"facts.npy", "damage.npy", "memory.npy"} <= set(opened.namelist())
    except (OSError, ValueError, zipfile.BadZipFile, RuntimeError):
        return False


def _is_allocation(path: Path) -> bool:
    """Whether the names that only an allocation has stand at the start of the file."""
    with path.open("rb") as stream:
        start = stream.read(1 << 16)
    return b'"solver"' in start and b'"certificate"' in start and b'"budget"' in start


def _missing(typed: str, path: Path) -> str:
    """Why a name under which there is nothing is no hub id either; empty if it may be one."""
    if path.suffix.lower() == ".gguf":
        return f"no GGUF file at {typed}"
    slashed = typed.replace("\\", "/")
    if slashed != typed and Path(slashed).exists():
        return f"no model at {typed}: the path does not exist; write it with slashes, {slashed}"
    is_path = path.is_absolute() or typed.startswith((".", "~")) or typed.endswith("/") or "\\" in typed
    if is_path or not _HUB_ID.fullmatch(typed) or len(typed) > _LONGEST_HUB_ID or "--" in typed or ".." in typed:
        return f"no model at {typed}: the path does not exist"
    parent = Path(typed).parent
    if parent != Path() and parent.is_dir() and not _is_cached(typed):
        return (
            f"no model at {typed}: the folder {parent} exists and has no {Path(typed).name} in it (to ask the hub for "
            f"{typed}, run this in another folder)"
        )
    return ""


def _is_cached(name: str) -> bool:
    """Whether the hub's cache on this machine has that model."""
    home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    cache = os.environ.get("HF_HUB_CACHE") or Path(home) / "hub"
    return (Path(cache) / f"models--{name.replace('/', '--')}").is_dir()
