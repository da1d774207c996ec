"""Files and folders that appear under their name only once they are complete."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nash_swarm.errors import DataError, UsageError


@contextmanager
def new_file(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that is renamed to it when the block ends well and removed when it does not.

    Raises:
        DataError: the folder does not exist or cannot be written.
    """
    target = Path(path)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
        os.close(handle)
    except OSError as error:
        raise DataError(f"cannot write {target}: {error.strerror}") from error
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(target)
    except OSError as error:
        raise DataError(f"cannot write {target}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


def check_new_file(path: str | Path) -> None:
    """Refuse an output file before the work that would fill it.

    Raises:
        UsageError: it is a folder.
        DataError: its parent does not exist.
    """
    target = Path(path)
    if target.is_dir():
        raise UsageError(f"{target} is a folder; give the name of a file")
    _check_parent(target)


@contextmanager
def new_folder(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder beside `path` that is renamed to it when the block ends well and removed when it does not.

    Raises:
        UsageError: the folder exists, is not empty, and `overwrite` is not set.
        DataError: the parent folder does not exist or cannot be written.
    """
    target = Path(path)
    check_new_folder(target, overwrite=overwrite)
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
    except OSError as error:
        raise DataError(f"cannot write {target}: {error.strerror}") from error
    try:
        yield temporary
        temporary.chmod(0o755)
        if target.exists():
            old = temporary.with_suffix(".old")
            target.replace(old)
            temporary.replace(target)
            shutil.rmtree(old)
        else:
            temporary.replace(target)
    except OSError as error:
        raise DataError(f"cannot write {target}: {error.strerror}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_new_folder(path: str | Path, *, overwrite: bool = False) -> None:
    """Refuse an output folder before the work that would fill it.

    Raises:
        UsageError: it is a file, or a non-empty folder and `overwrite` is not set.
        DataError: its parent does not exist.
    """
    target = Path(path)
    if target.is_file():
        raise UsageError(f"{target} is a file; choose a folder for the packed model")
    if target.is_dir() and any(target.iterdir()) and not overwrite:
        raise UsageError(f"{target} is not empty; choose another folder or allow overwriting (--overwrite)")
    _check_parent(target)


def _check_parent(target: Path) -> None:
    if not target.parent.is_dir():
        raise DataError(f"the folder {target.parent} does not exist")
