"""How much memory there is, and how much a model takes while it is measured and packed."""

from __future__ import annotations

import ctypes
import json
import math
import os
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

WORKING_MEMORY = 10**9
"""Bytes that Python, torch, the kernels and a few windows' activations take beside any model."""
_BYTES_A_PARAMETER = 8
"""In float32, and once more while its copy is packed."""


def memory_needed(folder: Path) -> int:
    """Bytes that compressing the model in a directory takes in memory; 0 if there are no safetensors files.

    Raises:
        DataError: it is one that is decoded (see `nash_swarm.models.decoding`), and its files are damaged.
    """
    from nash_swarm.models.decoding import DECODED, decoded_shapes, quantized_by

    values: Any = None
    with suppress(OSError, ValueError, RecursionError):
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if quantized_by(values) in DECODED:
        from nash_swarm.models.folders import stored_tensors

        shapes = decoded_shapes(stored_tensors(folder), values)
        return WORKING_MEMORY + sum(math.prod(shape) for _, shape in shapes.values()) * _BYTES_A_PARAMETER
    stored = sum(file.stat().st_size for file in folder.glob("*.safetensors")) if folder.is_dir() else 0
    # most checkpoints have 16 bits a parameter; for those with more this says too much, which is the safe side
    return WORKING_MEMORY + stored // 2 * _BYTES_A_PARAMETER if stored else 0


def available_memory() -> int:
    """Bytes that can be taken without swapping."""
    try:
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(encoding="ascii"))
    except OSError:
        found = None
    if found:
        return int(found[1]) * 1024
    # elsewhere than on Linux: half of what the machine has
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2 if hasattr(os, "sysconf") else 1 << 62


def return_unused_memory() -> None:
    """Give what is free inside this process back to the system, where the C library is one that keeps it (glibc).

    Before a stage that takes much: pieces that earlier stages have freed are too small for it, and count all the same.
    """
    if sys.platform.startswith("linux"):
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
