"""Places that no output may take: the model and text that are read, the working directory, home."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from nash_swarm.errors import OutputError
from nash_swarm.files.known import holds_packed_model
from nash_swarm.names import BUILT_IN


def source_places(*given: Any) -> tuple[Path, ...]:
    """The files and folders on this machine that models and texts are read from, symbolic links followed.

    Args:
        given: what a user typed (a path, the id of a model in the hub's cache, a built-in name), a loaded model, or
            anything else, which has no place.
    """
    return tuple(dict.fromkeys(place for each in given for place in _places(each)))


def _places(given: Any) -> Iterator[Path]:
    if isinstance(given, (str, Path)):
        # a text itself may be given, too long for a path or with a NUL in it
        with suppress(OSError, ValueError, RuntimeError):
            yield from _named(str(given))
        return
    name = getattr(getattr(given, "config", None), "name_or_path", None)
    if isinstance(name, str) and name:
        # a packed model may be saved where it was loaded from
        yield from (place for place in _places(name) if not holds_packed_model(place))
    checkpoint = getattr(given, "nash_swarm_checkpoint", None)
    if checkpoint is not None:
        yield from {file.resolve().parent for file, _ in checkpoint.places.values()}


def _named(name: str) -> Iterator[Path]:
    path = Path(name).expanduser() if name.startswith("~") else Path(name)
    if name in BUILT_IN:
        found = importlib.util.find_spec(BUILT_IN[name][0])
        yield from (Path(place).resolve() for place in (found.submodule_search_locations if found else None) or ())
    elif path.exists():
        yield path.resolve()
    elif name.count("/") <= 1 and not name.startswith((".", "~", "/")):
        from huggingface_hub.constants import HF_HUB_CACHE

        place = Path(HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
        if place.exists():
            yield place.resolve()


def check_apart(target: Path, sources: Iterable[Path]) -> None:
    """Refuse to replace a folder that is in use as something else, or one that holds such a folder.

    Raises:
        OutputError: it is, or holds, the working directory, the user's home, or one of `sources`.
    """
    real = target.resolve()
    taken = [(place, "what is read") for place in sources]
    for find, what in ((Path.cwd, "the working directory"), (Path.home, "your home folder")):
        # a working directory may have been removed, a user may have no home
        with suppress(OSError, RuntimeError):
            taken.append((find().resolve(), what))
    for place, what in taken:
        if real == place:
            raise OutputError(f"{target} is {what}{_named_as(place, what)}; choose another folder")
        if real in place.parents:
            raise OutputError(f"{target} holds {what}{_named_as(place, what)}; choose another folder")


def check_no_input(target: Path, inputs: Iterable[Path]) -> None:
    """Refuse to replace a file that is read, or one in a folder that is read.

    Raises:
        OutputError: it is one.
    """
    for place in inputs:
        if place.is_dir() and place in target.resolve().parents:
            raise OutputError(f"{target} lies in the folder that is read; choose another place")
        if place.is_file() and target.samefile(place):
            raise OutputError(f"{target} is what is read; give another name")


def _named_as(place: Path, what: str) -> str:
    return f" ({place})" if what == "what is read" else ""
