"""Cache folders for the compiled code of a source folder: those that are read, and the first that can be written.

The order is Numba's: the folder that `NUMBA_CACHE_DIR` names, `__pycache__` beside the source, the user's cache folder.
If none of them can be written (a container, a package manager's store, another user's installation), a folder in the
system's one for temporary files follows, which only this user can read or write. Compiled code in a read-only place is
used, so that an image can contain it.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import stat
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

VARIABLE = "NUMBA_CACHE_DIR"
_PRIVATE = 0o700
_OTHERS = 0o077
_WRITTEN_BY_OTHERS = 0o022
_TEMPORARY = ("TMPDIR", "TEMP", "TMP")
_USUAL = ("/tmp", "/var/tmp", "/usr/tmp")


@dataclass(frozen=True)
class Place:
    """A folder with compiled code of one source folder.

    Attributes:
        folder: where the files are.
        private: the parent folder that must belong to this user alone, because others could put their code into it;
            None where the installation or the user has chosen the folder.
    """

    folder: Path
    private: Path | None = None

    def safe(self) -> bool:
        """Whether the code in it may be loaded."""
        return self.private is None or is_private(self.private)

    def make(self) -> bool:
        """Create the folder if it does not exist; returns whether files can be written to it and loaded from it."""
        try:
            if self.private is not None and not make_private(self.private):
                return False
            self.folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.folder).close()
        except OSError:
            return False
        return True


@dataclass(frozen=True)
class Places:
    """The places of one source folder.

    Attributes:
        read: all places, in the order of reading.
        written: the last of them, if it can be written.
        trouble: one line for the user if it is not the expected one; empty otherwise.
    """

    read: tuple[Place, ...]
    written: Place | None
    trouble: str


@cache
def places_of(source: Path, chosen: str) -> Places:
    """The places of a source folder, absolute. chosen: the value of `NUMBA_CACHE_DIR` in Numba's configuration."""
    read: list[Place] = []
    refused: list[str] = []
    for name, folder in _usual(source, chosen):
        place = Place(folder)
        read.append(place)
        if place.make():
            # any of the three is expected, unless the user has chosen one
            return Places(tuple(read), place, _trouble(refused[:1], str(folder)) if chosen and refused else "")
        refused.append(name)
    root, lasting = _private_root()
    if root is not None:
        place = Place(root / _subfolder(source), root)
        if place.make():
            kept = str(root) if lasting else f"{root} until this process ends"
            return Places((*read, place), place, _trouble(refused, kept))
    return Places(tuple(read), None, _trouble(refused, ""))


def is_private(folder: Path) -> bool:
    """Whether the path is a folder and not a link, belongs to this user, and is closed to all others."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    if not stat.S_ISDIR(found.st_mode):
        return False
    # on Windows temporary folders are inside the user's own, and modes have no meaning
    return not hasattr(os, "getuid") or (found.st_uid == os.getuid() and not found.st_mode & _OTHERS)


def make_private(folder: Path) -> bool:
    """Create a folder for this user alone if it does not exist; returns whether it exists now."""
    try:
        folder.mkdir(mode=_PRIVATE)
    except FileExistsError:
        pass
    except OSError:
        return False
    return is_private(folder)


def _usual(source: Path, chosen: str) -> list[tuple[str, Path]]:
    from numba.misc.appdirs import AppDirs

    places = [(f"{VARIABLE} ({chosen})", Path(chosen).absolute() / _subfolder(source))] if chosen else []
    places.append(("the folder of the package", source / "__pycache__"))
    user = Path(AppDirs(appname="numba", appauthor=False).user_cache_dir)
    # a relative path means that no home is known: "~" would become a folder of the working directory
    return [*places, (str(user), user / _subfolder(source))] if user.is_absolute() else places


def _subfolder(source: Path) -> str:
    return f"{source.name}_{hashlib.sha256(str(source).encode()).hexdigest()[:40]}"


@cache
def _private_root() -> tuple[Path | None, bool]:
    """A private folder in the system's one for temporary files, and whether later processes will find it."""
    try:
        temporary = Path(tempfile.gettempdir()).absolute()
        mode = temporary.stat().st_mode
        if temporary == Path.cwd() and not _asked_for(temporary):
            return None, False  # Python's last resort is the working directory, possibly a project
    except OSError:  # none can be written, or the working directory does not exist any more
        return None, False
    if hasattr(os, "getuid") and mode & _WRITTEN_BY_OTHERS and not mode & stat.S_ISVTX:
        return None, False  # any user could replace our folder
    root = temporary / (f"nash-swarm-{os.getuid()}" if hasattr(os, "getuid") else "nash-swarm")
    if make_private(root):
        return root, True
    try:
        root = Path(tempfile.mkdtemp(prefix="nash-swarm-"))
    except OSError:
        return None, False
    atexit.register(_remove, root, os.getpid())
    return root, False


def _asked_for(folder: Path) -> bool:
    named = [*(os.environ[name] for name in _TEMPORARY if os.environ.get(name)), *_USUAL]
    return any(Path(name).absolute() == folder for name in named)


def _remove(folder: Path, process: int) -> None:
    # forked children run this handler, too
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


def _trouble(refused: list[str], kept: str) -> str:
    what = f"{' and '.join(refused)} cannot be written"
    if kept:
        return f"{what}: compiled code is kept in {kept} (set {VARIABLE} to a folder of your choice)"
    return f"{what}, nor can a folder for temporary files: every process compiles anew (set {VARIABLE} to one that can)"
