"""The folder of a report: every finished piece of work is a file in it, named by a digest of all that determines it.

A run that was killed finds its files and repeats nothing; a run with other settings finds none of its own. A folder
with files of the same names that no report wrote is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nash_swarm.errors import DataError, OutputError, UsageError
from nash_swarm.files.atomic import in_use, new_file

KINDS = ("games", "cells", "allocations", "packings")
FILES = ("results.csv", "results.json", "report.md", "table.tex", "report.html", "figures")
"""What `write_report` writes beside finished work."""
_FINISHED = (".json", ".npz")
_TEMPORARY_FILE = re.compile(r"\..+\.(json|npz)\.[A-Za-z0-9_]+\.tmp")
_TEMPORARY_MODEL = re.compile(r"\.[a-z0-9_]{8}")


def key_of(values: Any) -> str:
    """16 hexadecimal digits that change with any of the JSON `values`."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def check_report_folder(path: str | Path, *, kinds: Sequence[str] = KINDS, files: Sequence[str] = FILES) -> None:
    """Refuse a folder whose files of a report's names no report of nash-swarm wrote.

    Other files beside them do not matter: nothing is removed.

    Args:
        path: the folder.
        kinds: of pieces of work, see `ReportFolder`; a folder that has all of them, with finished work and nothing else
            in them, is a report's.
        files: what is written beside them.

    Raises:
        UsageError: it is a file, or it is refused.
        DataError: it cannot be read.
    """
    target = Path(path)
    if target.exists() and not target.is_dir():
        raise UsageError(f"{target} is a file; choose a folder for the report")
    try:
        foreign = [
            f"{kind}/{entry.name}" if entry != target / kind else kind
            for kind in kinds
            for entry in _foreign(target / kind)
        ]
        if not all((target / kind).is_dir() for kind in kinds):
            foreign += [name for name in files if os.path.lexists(target / name)]
    except OSError as error:
        raise DataError(f"cannot read {target}: {error.strerror}") from error
    if foreign:
        raise OutputError(
            f"{target} holds {foreign[0]}, which was not written there by a report of this kind; choose another folder"
        )


def _foreign(place: Path) -> Sequence[Path]:
    """What is no finished piece of work where those are kept; hidden files are left alone."""
    if not os.path.lexists(place):
        return []
    if not place.is_dir():
        return [place]
    return [
        entry
        for entry in sorted(place.iterdir())
        if not entry.name.startswith(".") and (entry.suffix not in _FINISHED or not entry.is_file())
    ]


def _is_left(path: Path) -> bool:
    """Whether a killed run left it: a file, or the folder of a packed model, that was being written."""
    if path.is_symlink():
        return False
    if path.is_file():
        return bool(_TEMPORARY_FILE.fullmatch(path.name)) and not in_use(path)
    if not _TEMPORARY_MODEL.fullmatch(path.name):
        return False
    return all(inner.name == "model" or inner.name.startswith(".model.") for inner in path.iterdir())


class ReportFolder:
    """A report's folder.

    Attributes:
        path: where it is.
    """

    def __init__(self, path: str | Path, *, clean: bool = True, kinds: Sequence[str] = KINDS) -> None:
        """Make the folder where there is none.

        Args:
            path: where it is.
            clean: remove what an earlier run was killed in the middle of; not for workers, whose fellows are at work.
            kinds: of pieces of work, each in a folder of that name.

        Raises:
            UsageError: it is a file, or what kinds are named after is something else there.
            DataError: it cannot be made.
        """
        self.path = Path(path)
        check_report_folder(self.path, kinds=kinds, files=())
        try:
            for kind in kinds:
                (self.path / kind).mkdir(parents=True, exist_ok=True)
                for left in [*(self.path / kind).glob(".*")] if clean else ():
                    if not _is_left(left):
                        continue
                    if left.is_dir():
                        shutil.rmtree(left, ignore_errors=True)
                    else:
                        left.unlink(missing_ok=True)
        except OSError as error:
            raise DataError(f"cannot write {self.path}: {error.strerror}") from error

    def file(self, kind: str, key: str, suffix: str = ".json") -> Path:
        """Where a piece of work is, or will be."""
        return self.path / kind / f"{key}{suffix}"

    def find(self, kind: str, key: str) -> dict[str, Any] | None:
        """What `keep` kept; `None` if there is nothing, or nothing that can be read."""
        try:
            values = json.loads(self.file(kind, key).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return values if isinstance(values, dict) else None

    def find_or(self, kind: str, determined_by: Sequence[Any], work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What is kept of the work that these JSON values determine, or what `work` returns, kept from now on.

        Raises:
            DataError: the file cannot be written.
        """
        key = key_of(determined_by)
        values = self.find(kind, key)
        if values is None:
            values = work()
            self.keep(kind, key, values)
        return values

    def keep(self, kind: str, key: str, values: Mapping[str, Any]) -> None:
        """Keep a finished piece of work; its file appears whole or not at all.

        Raises:
            DataError: the file cannot be written.
        """
        with new_file(self.file(kind, key), overwrite=True) as temporary:
            temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
