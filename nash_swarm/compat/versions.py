"""Which releases of other libraries the package was tried with, and the error that names one that differs."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nash_swarm.errors import ApiChangedError

_LIBRARIES = ("transformers", "torch", "peft")
_PACKAGE = str(Path(__file__).parents[1])
_SIGNATURE = re.compile(r"unexpected keyword argument|positional argument|missing \d+ required|multiple values")


def tried(library: str) -> str:
    """The range of versions in the metadata of nash-swarm, such as ``>=5.8.1,<5.25``; empty where there is none."""
    try:
        requirements = importlib.metadata.requires("nash-swarm") or ()
    except importlib.metadata.PackageNotFoundError:
        return ""
    for requirement in requirements:
        match = re.match(r"([A-Za-z0-9._-]+)\s*(.*)", requirement.partition(";")[0].strip())
        if match and match[1] == library:
            return match[2].strip(" ()")
    return ""


def changed(library: str, error: BaseException) -> ApiChangedError:
    """An error that names the library, its installed version, the range that was tried, and what is missing."""
    try:
        version = importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        version = "of unknown version"
    lines = str(error).strip().splitlines()
    return ApiChangedError(
        f"{library} {version} does not work as expected ({type(error).__name__}: {lines[0] if lines else ''}); "
        f"nash-swarm was tried with {library} {tried(library) or 'of another version'}"
    )


@contextmanager
def using(library: str) -> Iterator[None]:
    """Take a missing name or another signature, while the context is open, for a change of the library.

    Raises:
        ApiChangedError: there was one.
    """
    try:
        yield
    except (AttributeError, ImportError, TypeError) as error:
        raise changed(library, error) from error


def check_api(error: BaseException) -> None:
    """Tell a changed library from damaged data, for handlers that turn any exception into a `DataError`.

    A name that a library's module or class lacks, and a call from here whose arguments do not fit, come from the
    library. Everything that its own code raises on the way may come from the data.

    Raises:
        ApiChangedError: `error` is of the first kind.
    """
    if isinstance(error, ApiChangedError):
        raise error
    if isinstance(error, ImportError) and (library := _library(error.name)) and "cannot import name" in str(error):
        raise changed(library, error) from error
    if isinstance(error, AttributeError) and isinstance(error.obj, type(importlib) | type):
        name = getattr(error.obj, "__module__", None) or getattr(error.obj, "__name__", None)
        if library := _library(name):
            raise changed(library, error) from error
    if isinstance(error, TypeError) and _SIGNATURE.search(str(error)) and _raised_here(error):
        raise changed("transformers", error) from error


def _library(module: str | None) -> str | None:
    top = (module or "").partition(".")[0]
    return top if top in _LIBRARIES else None


def _raised_here(error: BaseException) -> bool:
    """Whether the innermost frame is this package's: arguments are bound in the frame of the caller."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return frame is not None and frame.tb_frame.f_code.co_filename.startswith(_PACKAGE)
