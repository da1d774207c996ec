"""Files of a report that are text, and whether pictures can be drawn; imports nothing large."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

from nash_swarm import extras
from nash_swarm.errors import LeftOutWarning
from nash_swarm.files.atomic import new_file


def write_texts(texts: Mapping[str, str], folder: Path, *, overwrite: bool = False) -> list[Path]:
    """Write each text to the file of its name; returns the files.

    Raises:
        UsageError: there is a file of such a name and `overwrite` is not set.
        DataError: a file cannot be written.
    """
    for name, text in texts.items():
        with new_file(folder / name, overwrite=overwrite) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return [folder / name for name in texts]


def can_draw() -> bool:
    """Whether matplotlib is installed; warns that figures are left out if it is not."""
    if not extras.missing(("matplotlib",)):
        return True
    how = extras.how_to_install("report")
    warnings.warn(f"figures are left out: they need matplotlib; {how}", LeftOutWarning, stacklevel=3)
    return False
