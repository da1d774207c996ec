"""A number that changes with the source of what is compiled into the kernels.

Numba's disk cache watches only the file a compiled function stands in, not those of the functions inlined into it, so
the number is one of the compiled function's constants.
"""

from __future__ import annotations

import zlib
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).parent
_SOURCES = (
    "*.py", "fused/*.py", "simd/*.py", "workers/*.py", "../../formats/native/*.py",
)  # fmt: skip


@cache
def fingerprint() -> int:
    """CRC-32 of the source files, in order of their paths."""
    value = 0
    for path in sorted(path for pattern in _SOURCES for path in _FOLDER.glob(pattern)):
        value = zlib.crc32(path.read_bytes(), zlib.crc32(path.name.encode(), value))
    return value
