"""The folder of a report: every finished piece of work is a file in it, named by a digest of all that determines it.

A run that was killed finds its files and repeats nothing; a run with other settings finds none of its own.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nash_swarm.errors import DataError, UsageError
from nash_swarm.files.atomic import new_file

KINDS = ("games", "cells", "allocations", "packings")


def key_of(values: Any) -> str:
    """16 hexadecimal digits that change with any of the JSON `values`."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


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
            UsageError: it is a file.
            DataError: it cannot be made.
        """
        self.path = Path(path)
        if self.path.is_file():
            raise UsageError(f"{self.path} is a file; choose a folder for the report")
        try:
            for kind in kinds:
                (self.path / kind).mkdir(parents=True, exist_ok=True)
                for left in (self.path / kind).glob(".*") if clean else ():
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

    def keep(self, kind: str, key: str, values: Mapping[str, Any]) -> None:
        """Keep a finished piece of work; its file appears whole or not at all.

        Raises:
            DataError: the file cannot be written.
        """
        with new_file(self.file(kind, key)) as temporary:
            temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
