"""Memory that starts where a cache line does.

A vector that lies across two lines takes two loads; and a line that two threads write to passes back and forth between
their processors at every store, which has made products on two threads twenty times as slow as on one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

LINE = 128
"""Bytes that are written by different threads lie this far apart: two cache lines, which processors fetch in pairs."""


def aligned_empty(size: int) -> npt.NDArray[np.uint8]:
    """`size` bytes, not set, at a multiple of `LINE`."""
    memory = np.empty(size + LINE, np.uint8)
    start = -memory.ctypes.data % LINE
    return memory[start : start + size]


def whole_lines(size: int) -> int:
    """The smallest multiple of `LINE` that is at least `size`."""
    return -(-size // LINE) * LINE
