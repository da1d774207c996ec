"""Numba's `njit` with a cache that works where neither the package's folder nor the user's home can be written.

Numba gives up on a function, at import, if it finds no folder that it could write compiled code to. And its cache
watches only the file that a function stands in, while functions and constants of other files are compiled into it: here
compiled code is valid as long as the file is unchanged, and all files of its package that it imports, directly or not.
Only imports at the top of a file count, and only absolute ones.
"""

from __future__ import annotations

import hashlib
import inspect
import re
import sys
import warnings
from collections.abc import Callable
from functools import cache as once
from pathlib import Path
from typing import Any

import numba
from numba.core import caching, config

from nash_swarm.compiled_places import places_of
from nash_swarm.errors import SlowerWarning, UsageError

_OURS = __name__.partition(".")[0]
_IMPORT = re.compile(r"^(?:from ([\w.]+) import (\([^)]*\)|.*)|import ([\w.]+))", re.MULTILINE)


def njit(*signature: Any, **options: Any) -> Any:
    """`numba.njit`, except that with `cache` compiled code is kept in one of the places of `compiled_places`.

    Never fails for lack of one: code is then compiled in every process, which a `SlowerWarning` says once.

    Args:
        signature: none, or the only one the function is for, which is then compiled at once.
        options: Numba's; `cache`: whether compiled code is kept for later processes.

    Raises:
        UsageError: Numba has been told to compile nothing.
    """
    if config.DISABLE_JIT:
        raise UsageError("NUMBA_DISABLE_JIT is set, and nash-swarm's kernels exist only compiled; unset it")
    if not options.pop("cache", False):
        return numba.njit(*signature, **options)

    def compiled(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(**options)(function)
        source = _source(function)
        if source is not None:
            dispatcher._cache = _KernelCache(function, source)
        for kinds in signature:
            dispatcher.compile(kinds)
            dispatcher.disable_compile()
        return dispatcher

    return compiled


class _Locator:
    """What Numba's cache asks about the source of a function."""

    def __init__(self, function: Any, source: Path) -> None:
        self._py_file = inspect.getfile(function)  # under Numba's name, for its warnings
        self._line = function.__code__.co_firstlineno
        self._source, self._package = source, (function.__module__ or "").partition(".")[0]
        self.places = places_of(Path(self._py_file).absolute().parent, config.CACHE_DIR)

    def get_cache_path(self) -> str:
        return str(self.places.read[-1].folder)

    def get_source_stamp(self) -> str:
        return source_stamp(self._source, self._package)

    def get_disambiguator(self) -> str:
        return str(self._line)


class _Entries(caching.CompileResultCacheImpl):
    """Names of a function's files, and compiled code in the form that they have it in."""

    def __init__(self, function: Any, source: Path) -> None:
        self._lineno = function.__code__.co_firstlineno
        self._locator = _Locator(function, source)
        name = f"{Path(inspect.getfile(function)).stem}.{function.__qualname__}"
        self._filename_base = self.get_filename_base(name, getattr(sys, "abiflags", ""))


class _KernelCache(caching.FunctionCache):
    """Compiled code of one function: read from any of its places, written to the last of them."""

    _cache_path: str | None

    def __init__(self, function: Any, source: Path) -> None:
        self._impl_class = lambda of: _Entries(of, source)
        super().__init__(function)
        self._places = self._impl.locator.places
        if self._places.written is None:
            self._cache_path = None
        base, stamp = self._impl.filename_base, self._impl.locator.get_source_stamp()
        self._files = [
            (place, caching.IndexDataCacheFile(str(place.folder), base, stamp)) for place in self._places.read
        ]

    def _load_overload(self, sig: Any, target_context: Any) -> Any:
        if not self._enabled:
            return None
        key = self._index_key(sig, target_context.codegen())
        for place, file in self._files:
            if place.safe() and (data := _read(file, key)) is not None:
                self._cache_path = str(place.folder)
                return self._impl.rebuild(target_context, data)
        return None

    def _save_overload(self, sig: Any, data: Any) -> None:
        if not self._enabled or not self._impl.check_cachable(data):
            return
        if self._places.trouble:
            _tell(self._places.trouble)
        if self._places.written is None:
            return
        place, file = self._files[-1]
        key, code = self._index_key(sig, data.codegen), self._impl.reduce(data)
        try:
            if not place.make():
                raise OSError("it can no longer be written, or not by this user alone")
            _write(file, key, code)
        except OSError as error:
            _tell(f"compiled code cannot be kept in {place.folder} ({error}): later processes compile anew")


def _read(file: Any, key: Any) -> Any:
    """Of a function's compiled code the one that has this key; None if there is none that can be read."""
    try:
        return file.load(key)
    except Exception:  # closed to this user, or damaged, which unpickling has many names for
        return None


def _write(file: Any, key: Any, code: Any) -> None:
    try:
        file.save(key, code)
    except OSError:
        raise
    except Exception:  # a damaged index is read before it is written
        file.flush()
        file.save(key, code)


def _source(function: Any) -> Path | None:
    """The file that a function's code comes from: its module, the archive around it, or a frozen program."""
    path = Path(inspect.getfile(function)).absolute()
    if getattr(sys, "frozen", False):
        return Path(sys.executable)
    return next((part for part in (path, *path.parents) if part.is_file()), None)


@once
def source_stamp(source: Path, package: str) -> str:
    """Digest of a file and of the loaded modules of these packages, `package` and ours, that it imports, and so on."""
    todo, digests = [source], dict[Path, str]()
    while todo:
        path = todo.pop()
        if path not in digests:
            digests[path], imported = _read_source(path)
            names = [name for name in imported if name.partition(".")[0] in (package, _OURS)]
            todo += [Path(file) for name in names if (file := getattr(sys.modules.get(name), "__file__", None))]
    return hashlib.sha256("".join(sorted(digests.values())).encode()).hexdigest()


@once
def _read_source(path: Path) -> tuple[str, tuple[str, ...]]:
    """Digest of a file's bytes, and the modules it may import: of `from a import b` these are a and a.b."""
    content = path.read_bytes()
    names = []
    if path.suffix == ".py":
        for module, taken, plain in _IMPORT.findall(content.decode(errors="replace")):
            names += [plain] if plain else [module, *(f"{module}.{name}" for name in re.findall(r"\w+", taken))]
    return hashlib.sha256(content).hexdigest(), tuple(names)


@once
def _tell(message: str) -> None:
    warnings.warn(message, SlowerWarning, stacklevel=2)
