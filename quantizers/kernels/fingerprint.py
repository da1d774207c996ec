"""A number that changes with the source of the kernels.

Numba's disk cache watches only the file a compiled function stands in, not those of the functions inlined into it, so
the number is one of the compiled function's constants.
"""

from __future__ import annotations

import zlib
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).parent


@cache
def fingerprint() -> int:
    """CRC-32 of every source file of this package, in order of their paths."""
    sources = sorted(path.relative_to(_FOLDER).as_posix() for path in _FOLDER.rglob("*.py"))
    value = 0
    for name in sources:
        value = zlib.crc32((_FOLDER / name).read_bytes(), zlib.crc32(name.encode(), value))
    return value
