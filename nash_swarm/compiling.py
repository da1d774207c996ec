"""Numba's `njit` with a cache that works where neither the package's folder nor the user's home can be written.

Numba gives up on a function, at import, if it finds no folder that it could write compiled code to.
"""

from __future__ import annotations

import hashlib
import inspect
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
        self._source = source
        self.places = places_of(Path(self._py_file).absolute().parent, config.CACHE_DIR)

    def get_cache_path(self) -> str:
        return str(self.places.read[-1].folder)

    def get_source_stamp(self) -> str:
        status = self._source.stat()
        return _digest(self._source, status.st_mtime_ns, status.st_size)

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
def _digest(path: Path, changed: int, size: int) -> str:
    """Of a file's bytes; the other two, its status, only tell files of different times apart."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@once
def _tell(message: str) -> None:
    warnings.warn(message, SlowerWarning, stacklevel=2)
