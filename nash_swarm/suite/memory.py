"""Peak memory of this process."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

_STATUS = Path("/proc/self/status")
_FORGET = Path("/proc/self/clear_refs")


def peak_memory() -> int:
    """Bytes. On Linux not from `getrusage`, where a new process starts with its parent's."""
    if _STATUS.exists():
        return status("VmHWM")
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def forget_peak() -> None:
    """Start counting peak memory again, where the system can (Linux)."""
    with suppress(OSError):  # not everybody may: /proc can be read-only
        if _FORGET.exists():
            _FORGET.write_text("5")


def status(name: str) -> int:
    """Bytes that Linux states under a name: `VmRSS`, `VmHWM` (its peak)."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024
