"""A prepared matrix, its kernels, and the threads and memory they run with."""

from __future__ import annotations

import threading
import weakref
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from nash_swarm.quantizers.formats.native.layout import TILE_ROWS
from nash_swarm.quantizers.runtime.cpu.aligned import aligned_empty, whole_lines
from nash_swarm.quantizers.runtime.cpu.fused.layer_products import OneToken
from nash_swarm.quantizers.runtime.cpu.matmul import Runner
from nash_swarm.quantizers.runtime.cpu.prepared import Prepared
from nash_swarm.quantizers.runtime.cpu.remainders import remainder
from nash_swarm.quantizers.runtime.cpu.sixteen_tokens import TOKENS

Mode = Literal["int8", "int16", "fp32"]
"""How inputs are taken: rounded to int8; as the sum of two such roundings, of the input and of what the first leaves
over; or as they are."""

_SHARE_SECONDS = 30e-6
"""What a share of the rows must take to be worth handing over to another thread."""
_SECONDS_PER_WEIGHT, _SECONDS_PER_PRODUCT, _SECONDS_PER_INPUT = 2e-11, 8e-12, 1e-10
"""Of one core, in order of magnitude: to read a packed weight, to multiply it with a token, and to round an input."""


class Multiplier:
    """Multiplies tensors with one matrix in one activation mode; compiles the kernels if they are not yet.

    Args:
        prepared: the matrix; whoever calls keeps its buffer alive.
        mode: how inputs are taken.

    Attributes:
        alone: a product of one token is too small to be shared out between threads.
    """

    def __init__(self, prepared: Prepared, mode: Mode) -> None:
        # cells of width 16 take the input as it is: a second product would count what the first has not left over
        self._twice = mode == "int16" and not prepared.halves
        self._runner = Runner(prepared, "int8" if self._twice or mode == "int8" else "fp32")
        self._tiles = prepared.layout.row_tiles
        self._inputs = whole_lines(self._runner.activation_bytes(1))
        self._room = self._inputs + self._runner.work_bytes(1)
        self.alone = not self._twice and self._tiles < 2 * self._smallest_share(1)
        self._key = (prepared.input_key, self._runner.mode)
        seconds = TOKENS * prepared.layout.columns * _SECONDS_PER_INPUT
        self._smallest_run = int(_SHARE_SECONDS / seconds) + 1

    def one(self, x: torch.Tensor, out: torch.Tensor, again: bool = False) -> None:
        """One token.

        Args:
            x: float32 of `columns` elements, contiguous and on the CPU.
            out: float32 of `rows` elements, likewise, written.
            again: x is what the calling thread's last product was of, and has not changed.
        """
        if self._twice or not (self.alone or torch.get_num_threads() == 1):
            _scratch.holds = None
            self.many(x, x, out, 1)
            return
        # nearly every call while text is generated, which is why it does so little
        room = _scratch.room(self._room)
        if again and _scratch.holds == self._key:
            self._runner.multiply(room, out.data_ptr(), 1, room + self._inputs, 0, self._tiles)
            return
        self._runner.run(x.data_ptr(), out.data_ptr(), 1, room, room + self._inputs)
        _scratch.holds = self._key

    def compiled(self, bias: int) -> OneToken | None:
        """The product of one token on one thread, for compiled code to call; `None` where it is made of two.

        Args:
            bias: address of float32 (rows,), or 0.
        """
        return None if self._twice else self._runner.one_token(bias, self._key)

    def many(self, original: torch.Tensor, x: torch.Tensor, out: torch.Tensor, tokens: int) -> None:
        """Any number of tokens.

        Args:
            original: the tensor that x is a contiguous float32 copy of, or x.
            x: float32, contiguous, `tokens` times `columns` elements.
            out: float32, contiguous, `tokens` times `rows` elements, written.
            tokens: at least 1.
        """
        inputs = _latest.inputs.of(original, self._key)
        if inputs is None:
            inputs = self._quantize(x, tokens)
            _latest.inputs.keep(original, self._key, inputs)
        if self._twice:
            # the remainders are tokens like others, so that the matrix is read once for both
            left = remainder(self._runner.prepared, x.detach().view(tokens, -1).numpy(), inputs, self._runner.lanes)
            both = torch.cat((x.view(tokens, -1), torch.from_numpy(left)))
            products = out.new_empty((2, tokens, out.shape[-1]))
            self._multiply(self._quantize(both, 2 * tokens), products, 2 * tokens)
            torch.add(products[0], products[1], out=out.view(tokens, -1))
        else:
            self._multiply(inputs, out, tokens)

    def _quantize(self, x: torch.Tensor, tokens: int) -> npt.NDArray[np.uint8]:
        size = self._runner.activation_bytes(tokens)
        if tokens < TOKENS:
            inputs = aligned_empty(whole_lines(size) + self._runner.work_bytes(tokens))
            address = inputs.ctypes.data
            self._runner.quantize(x.data_ptr(), tokens, address, address + whole_lines(size))
        else:
            inputs = aligned_empty(size)
            self._runner.share_quantize(x.data_ptr(), tokens, inputs.ctypes.data, self._smallest_run)
        return inputs

    def _multiply(self, inputs: npt.NDArray[np.uint8], out: torch.Tensor, tokens: int) -> None:
        self._runner.share(inputs.ctypes.data, out.data_ptr(), tokens, self._smallest_share(tokens))

    def _smallest_share(self, tokens: int) -> int:
        """Tiles that are worth handing over to another thread."""
        weights = self._runner.prepared.layout.columns * TILE_ROWS
        return int(_SHARE_SECONDS / (weights * (_SECONDS_PER_WEIGHT + _SECONDS_PER_PRODUCT * tokens))) + 1


class _Scratch(threading.local):
    """Memory of a thread, for one token.

    Attributes:
        holds: the kind of inputs that stand at its beginning, those of the thread's last product.
    """

    memory: npt.NDArray[np.uint8] = np.empty(0, np.uint8)
    address: int = 0
    holds: Any = None

    def room(self, size: int) -> int:
        """Address of at least `size` bytes."""
        if size > len(self.memory):
            self.memory = aligned_empty(size)
            self.address = self.memory.ctypes.data
            self.holds = None
        return self.address


class _Inputs:
    """The rounded inputs of the latest product, for siblings that read the same tensor: q, k and v, or gate and up.

    They are not used once the tensor has been changed, and forgotten as soon as it is.
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
        """Remember `data` as long as x lives."""
        if not x.is_inference():  # such tensors do not count their changes
            self._tensor, self._state, self._data = weakref.ref(x, self._forget), _state(x, key), data

    def _forget(self, tensor: weakref.ref[torch.Tensor] | None = None) -> None:
        # tensors die in any thread: this may be about one that has been replaced since
        if tensor is None or self._tensor is tensor:
            self._tensor = self._state = self._data = None


def _state(x: torch.Tensor, key: Any) -> Any:
    return x.data_ptr(), x._version, x.shape, x.stride(), key


class _Latest(threading.local):
    def __init__(self) -> None:
        self.inputs = _Inputs()


_scratch = _Scratch()
_latest = _Latest()
