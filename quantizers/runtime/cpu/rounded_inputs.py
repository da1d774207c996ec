"""Inputs that a thread has rounded for one product, for siblings that read the same: q, k and v, or gate and up."""

from __future__ import annotations

import threading
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nash_swarm.quantizers.runtime.cpu.aligned import aligned_empty


class _Scratch(threading.local):
    """Memory of a thread, for one token."""

    memory: npt.NDArray[np.uint8] = np.empty(0, np.uint8)
    address: int = 0

    def room(self, size: int) -> int:
        """Address of at least `size` bytes."""
        if size > len(self.memory):
            self.memory = aligned_empty(size)
            self.address = self.memory.ctypes.data
        return self.address


class _Inputs:
    """The rounded inputs of the latest product of several tokens.

    They are not used once the tensor has been changed, and dropped as soon as it is freed.
    """

    def __init__(self) -> None:
        self._tensor: weakref.ref[torch.Tensor] | None = None
        self._state: Any = None
        self._data: npt.NDArray[np.uint8] | None = None

    def of(self, x: torch.Tensor, key: Any) -> npt.NDArray[np.uint8] | None:
        """The rounded x, if it is the tensor that came last, unchanged, for matrices that take their inputs alike."""
        if self._tensor is None or self._tensor() is not x or self._state != _state(x, key):
            return None
        return self._data

    def keep(self, x: torch.Tensor, key: Any, data: npt.NDArray[np.uint8]) -> None:
        """Keep `data` as long as x lives."""
        if not x.is_inference():  # such tensors do not count their changes
            self._tensor, self._state, self._data = weakref.ref(x, self._drop), _state(x, key), data

    def _drop(self, tensor: weakref.ref[torch.Tensor] | None = None) -> None:
        # tensors are freed in any thread: this may be about one that has been replaced since
        if tensor is None or self._tensor is tensor:
            self._tensor = self._state = self._data = None


def _state(x: torch.Tensor, key: Any) -> Any:
    return x.data_ptr(), x._version, x.shape, x.stride(), key


class _Latest(threading.local):
    def __init__(self) -> None:
        self.inputs = _Inputs()


scratch = _Scratch()
latest = _Latest()
