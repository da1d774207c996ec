"""Records of the scripts (see `nash_swarm.suite.record`), and paths of outputs that overwrite nothing of the user's."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nash_swarm.suite import record

FIGURES = '"command": "python '
"""The mark of every file that `write_json` writes."""


def origin(*packages: str) -> dict[str, Any]:
    """Where the figures of this script come from."""
    return record.origin(shlex.join(["python", os.path.relpath(sys.argv[0]), *sys.argv[1:]]), *packages)


def write_json(path: str | Path | None, values: Mapping[str, Any]) -> None:
    """Write or replace the record in one step; nothing without a path."""
    if path:
        record.save_record(path, values, overwrite=True)


def take_up(path: Path | None, values: dict[str, Any]) -> None:
    """Put the rows of an earlier run that wrote the file among the values, and the loss of its original model.

    Raises:
        SystemExit: its damage was another one.
    """
    if path is None or not path.exists():
        return
    kept = record.load_record(path)
    if (damage := kept.get("damage", values["damage"])) != values["damage"]:
        raise SystemExit(f"{path} has figures of damage {damage}; name another file")
    values |= {"rows": kept["rows"], "reference_loss": kept["reference_loss"]}


def new_file(text: str) -> Path:
    """The path of an output, for argparse: refused where there is something, before the work."""
    path = Path(text)
    if os.path.lexists(path):
        raise argparse.ArgumentTypeError(f"{path} exists; name another file, or remove it")
    return path


def new_pictures(text: str) -> Path:
    """The path of pictures without its suffix, for argparse: refused where there is one of them."""
    for suffix in (".png", ".svg"):
        new_file(str(Path(text).with_suffix(suffix)))
    return Path(text)


def new_folder(text: str) -> Path:
    """The path of an output, for argparse: refused where there is anything but an empty folder."""
    path = Path(text)
    if path.is_symlink() or (path.exists() and (not path.is_dir() or any(path.iterdir()))):
        raise argparse.ArgumentTypeError(f"{path} is no empty folder; name another one")
    return path


def own_file(mark: str) -> Callable[[str], Path]:
    """The path of an output that an earlier run may have written, for argparse: such a file has `mark` in it."""

    def read(text: str) -> Path:
        path = Path(text)
        if not path.is_file() or path.is_symlink() or mark not in path.read_text(encoding="utf-8", errors="replace"):
            return new_file(text)
        return path

    return read
