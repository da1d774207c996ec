"""Files and folders that appear under their name only once they are complete.

They are written under a hidden name beside the target, locked for as long as they are being written. What a killed
process left is not locked any more, and goes the next time something is written to the same place.

What stands at the target is replaced only when that is asked for: a plain file, or a folder in which every entry is one
that nash-swarm writes (`nash_swarm.files.known`).
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nash_swarm.errors import DataError, OutputError, UsageError
from nash_swarm.files.known import PACKED_MODEL, TASK_FILES, FolderKind
from nash_swarm.files.places import check_apart, check_no_input

try:
    import fcntl
except ImportError:  # not on Windows, where leftovers of killed processes stay
    fcntl = None  # type: ignore[assignment]

_NEW, _OLD = ".tmp", ".old"
_LONGEST_NAME = 200
"""Bytes."""


@contextmanager
def new_file(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A temporary path beside `path` that is renamed to it when the block ends well and removed when it does not.

    Args:
        path: the file.
        overwrite: replace a plain file of that name.

    Raises:
        UsageError: there is such a file and `overwrite` is not set, or what is there is no plain file.
        DataError: the folder does not exist or cannot be written, the disk is full, or a file of that name has appeared
            in the meantime.
    """
    target = Path(path)
    clean_up(target)
    _refuse_file(target, overwrite)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{short_name(target.name)}.", suffix=_NEW, dir=target.parent)
    except OSError as error:
        raise DataError(f"cannot write {target}: {error.strerror}") from error
    temporary = Path(name)
    if not fcntl:
        os.close(handle)
    try:
        _lock(handle)
        yield temporary
        temporary.chmod(0o644)
        with _appeared():
            _refuse_file(target, overwrite)
        temporary.replace(target)
    except OSError as error:
        raise DataError(f"cannot write {target}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)
        if fcntl:
            os.close(handle)


def check_new_file(path: str | Path, *, overwrite: bool = False, inputs: Iterable[Path] = ()) -> None:
    """Refuse an output file before the work that would fill it.

    Args:
        path: the file.
        overwrite: whether a plain file of that name may be replaced.
        inputs: files and folders that are read; they and what they hold are never replaced, see `source_places`.

    Raises:
        UsageError: it is a folder, or there is a file that may not be replaced.
        DataError: its parent does not exist or cannot be written.
    """
    target = Path(path)
    if target.is_dir():
        raise UsageError(f"{target} is a folder; give the name of a file")
    if target.exists():
        check_no_input(target, inputs)
    _refuse_file(target, overwrite)
    _check_parent(target)


@contextmanager
def new_folder(
    path: str | Path, *, overwrite: bool = False, kind: FolderKind = PACKED_MODEL, sources: Iterable[Path] = ()
) -> Iterator[Path]:
    """A temporary folder beside `path` that is renamed to it when the block ends well and removed when it does not.

    Args:
        path, overwrite, kind, sources: see `check_new_folder`.

    Raises:
        UsageError: the folder may not be written, see `check_new_folder`.
        DataError: the parent folder does not exist or cannot be written, the disk is full, or something that may not be
            replaced has appeared in the meantime.
    """
    target = Path(path)
    sources = tuple(sources)
    clean_up(target)
    check_new_folder(target, overwrite=overwrite, kind=kind, sources=sources)
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{short_name(target.name)}.", suffix=_NEW, dir=target.parent))
    except OSError as error:
        raise DataError(f"cannot write {target}: {error.strerror}") from error
    handle = os.open(temporary, os.O_RDONLY) if fcntl else None
    try:
        _lock(handle)
        yield temporary
        temporary.chmod(0o755)
        with _appeared():
            check_new_folder(target, overwrite=overwrite, kind=kind, sources=sources)
        if target.exists():
            _exchange(temporary, target)
        else:
            temporary.replace(target)
    except OSError as error:
        raise DataError(f"cannot write {target}: {error.strerror}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def check_new_folder(
    path: str | Path, *, overwrite: bool = False, kind: FolderKind = PACKED_MODEL, sources: Iterable[Path] = ()
) -> None:
    """Refuse an output folder before the work that would fill it.

    Args:
        path: the folder.
        overwrite: whether a folder of that kind may be replaced, if every entry in it is one that nash-swarm writes.
        kind: what is to be written.
        sources: files and folders that are read; neither they nor what holds them is replaced, see `source_places`.

    Raises:
        UsageError: it is a file or a symbolic link; it is or holds the working directory, the user's home or a source;
            or it is not empty and `overwrite` is not set, or it holds what nash-swarm did not write.
        DataError: its parent does not exist or cannot be written.
    """
    target = Path(path)
    if target.is_symlink():
        raise OutputError(f"{target} is a symbolic link to {target.readlink()}; name a folder, or remove the link")
    if target.exists() and not target.is_dir():
        raise OutputError(f"{target} is a file; choose a folder for the {kind.noun}")
    if target.is_dir():
        check_apart(target, sources)
        if os.path.ismount(target):  # a container's volume, say
            raise OutputError(f"{target} is a mount point, which cannot be replaced; choose a folder inside it")
        try:
            if any(target.iterdir()):
                _refuse_folder(target, overwrite, kind)
        except OSError as error:
            raise DataError(f"cannot read {target}: {error.strerror}") from error
    _check_parent(target)


def short_name(name: str) -> str:
    """What hidden names for `name` begin with: itself, or its start and a digest if it leaves no room for more.

    File systems take names of 255 bytes; a hidden name has up to 36 more than what it is for.
    """
    data = os.fsencode(name)
    if len(data) <= _LONGEST_NAME:
        return name
    digest = hashlib.blake2b(data, digest_size=8).hexdigest()
    return f"{data[: _LONGEST_NAME - len(digest) - 1].decode(errors='ignore')}~{digest}"


def check_space(path: str | Path, size: int) -> None:
    """Refuse an output of `size` bytes before the work that would make it, if the disk has not got them.

    Raises:
        DataError: it has not.
    """
    with suppress(OSError):
        free = shutil.disk_usage(Path(path).absolute().parent).free
        if free < size:
            raise DataError(f"cannot write {path}: {size:,} bytes are needed and {free:,} are free on the disk")


def clean_up(path: str | Path) -> None:
    """Remove what killed processes left when they were writing `path`, and put back what they were replacing."""
    target = Path(path)
    # what tempfile makes of this name and of no other
    ours = re.compile(rf"\.{re.escape(short_name(target.name))}\.[a-z0-9_]{{8}}({re.escape(_NEW)}|{re.escape(_OLD)})")
    # without a listing there is nothing to clean up; what matters is found out by writing
    with suppress(OSError):
        for left in sorted(target.parent.iterdir()):
            if not ours.fullmatch(left.name) or in_use(left):
                continue
            if left.suffix == _OLD and not _was_ours(left):
                continue
            if left.suffix == _OLD and not os.path.lexists(target):
                left.replace(target)
            else:
                _remove(left)


def _refuse_file(target: Path, overwrite: bool) -> None:
    if target.is_symlink():
        raise OutputError(f"{target} is a symbolic link to {target.readlink()}; give the name of a plain file")
    if target.exists() and not target.is_dir():
        if not target.is_file():
            raise OutputError(f"{target} is no plain file; give the name of one")
        if not overwrite:
            raise OutputError(f"{target} exists; give another name or allow overwriting (--overwrite)")


def _refuse_folder(target: Path, overwrite: bool, kind: FolderKind) -> None:
    if not overwrite:
        raise OutputError(
            f"{target} is not empty; choose another folder or allow overwriting (--overwrite), which replaces nothing "
            f"but a {kind.noun} of nash-swarm"
        )
    if objection := kind.objection(target):
        raise OutputError(f"{target} is not replaced: {objection}; choose another folder or remove it yourself")


@contextmanager
def _appeared() -> Iterator[None]:
    """What may not be replaced and was not there before the work is no fault of who asked for it."""
    try:
        yield
    except OutputError as error:
        raise DataError(f"in the meantime something else was written to the output: {error}") from error


def _was_ours(left: Path) -> bool:
    """Whether a folder that was being replaced holds nothing but what nash-swarm writes."""
    if left.is_symlink() or not left.is_dir():
        return False
    return not any(left.iterdir()) or any(not kind.objection(left) for kind in (PACKED_MODEL, TASK_FILES))


def _exchange(temporary: Path, target: Path) -> None:
    """Put a folder in the place of another; killed in between, `clean_up` puts the other one back."""
    old = temporary.with_suffix(_OLD)
    target.replace(old)
    temporary.replace(target)
    _remove(old)


def _remove(left: Path) -> None:
    if left.is_dir():
        # under a name that is never put back, because it may be half gone when the process is killed
        gone = left.with_suffix(_NEW)
        if gone != left and not gone.exists():
            left = left.replace(gone)
        shutil.rmtree(left, ignore_errors=True)
    else:
        left.unlink(missing_ok=True)


def _lock(handle: int | None) -> None:
    if fcntl and handle is not None:
        # file systems without locks leave this process's files to those who clean up after it
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def in_use(left: Path) -> bool:
    """Whether a living process writes what has a temporary name; always if that cannot be told."""
    if not fcntl:
        return True
    try:
        handle = os.open(left, os.O_RDONLY)
    except OSError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def _check_parent(target: Path) -> None:
    if not target.parent.is_dir():
        raise DataError(f"the folder {target.parent} does not exist")
    if not os.access(target.parent, os.W_OK):
        raise DataError(f"cannot write {target}: the folder {target.parent} is read-only")
