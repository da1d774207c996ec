"""Products of packed matrices with activations: the interface of the kernels.

`quantize_activations` and `multiply` check what they are given. `Runner` is for loops that make hundreds of calls a
token: everything is checked and compiled when it is made, and a call is one compiled function on raw addresses.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from nash_swarm.errors import DataError, UsageError
from nash_swarm.quantizers.formats.native.layout import TILE_ROWS
from nash_swarm.quantizers.runtime.cpu.activation_rounding import rounding_bytes
from nash_swarm.quantizers.runtime.cpu.activations import activation_bytes
from nash_swarm.quantizers.runtime.cpu.compiled import TOKENS_AT_ONCE, Kernel, kernel
from nash_swarm.quantizers.runtime.cpu.fused.layer_products import OneToken
from nash_swarm.quantizers.runtime.cpu.prepared import Prepared
from nash_swarm.quantizers.runtime.cpu.simd import paths
from nash_swarm.quantizers.runtime.cpu.sixteen_tokens import TOKENS
from nash_swarm.quantizers.runtime.cpu.workers.atomics import address
from nash_swarm.quantizers.runtime.cpu.workers.threads import share_compiled

Mode = Literal["int8", "fp32"]
"""Activations rounded to int8 per token and group, or taken as they are."""

_CACHED = 1 << 19
"""Bytes of activations that stay in the second cache while a range of tiles passes over them."""
_CREW_SHARE = 1 << 16
"""Weights of one token's product that are worth handing over to a thread that is waiting for them."""


@dataclass(frozen=True, eq=False)
class Activations:
    """Inputs as the kernels want them; every matrix with the same `input_key` can use them.

    Attributes:
        data: the block of memory that `kernels.activations` describes, uint8.
        tokens: how many.
        mode: int8 or fp32.
        path: instructions that they are laid out for, by name.
        input_key: of the matrices that they fit.
    """

    data: npt.NDArray[np.uint8]
    tokens: int
    mode: Mode
    path: str
    input_key: Any


@dataclass(frozen=True, eq=False)
class Runner:
    """A matrix bound to its compiled kernel; calls take raw addresses and check nothing.

    Attributes:
        prepared: the matrix.
        mode: int8 or fp32.
        path: instructions, by name, see `simd.paths.choose`.
        lanes: tokens that the kernel takes at once, see `activations.panel`.

    Raises:
        UsageError: unknown mode, or instructions that this CPU lacks.
    """

    prepared: Prepared
    mode: Mode = "int8"
    path: str | None = None
    lanes: int = field(init=False, repr=False)
    _kernel: Kernel = field(init=False, repr=False)
    _address: int = field(init=False, repr=False)
    _chunk: int = field(init=False, repr=False)
    _tiles: int = field(init=False, repr=False)
    _smallest_share: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise UsageError(f"unknown activations {self.mode!r}; choose one of {', '.join(get_args(Mode))}")
        layout = self.prepared.layout
        stored = layout.groups * layout.group_size * (4 if self.mode == "fp32" else 1)
        path = paths.choose(self.path)
        values = {
            "lanes": TOKENS_AT_ONCE[path],
            "_kernel": kernel(path, self.mode == "fp32"),
            "_address": self.prepared.fields.ctypes.data,
            "_chunk": max(64, _CACHED // stored // 16 * 16),
            "_tiles": layout.row_tiles,
            "_smallest_share": _CREW_SHARE // (TILE_ROWS * layout.columns) + 1,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        return Runner, (self.prepared, self.mode, self.path)  # a copy has addresses of its own

    def activation_bytes(self, tokens: int) -> int:
        """Room that the inputs of `tokens` tokens take."""
        layout = self.prepared.layout
        return activation_bytes(layout.columns, layout.group_size, tokens, self.mode == "fp32", self.prepared.halves)

    def work_bytes(self, tokens: int) -> int:
        """Room that a call with `tokens` tokens needs for itself."""
        return max(self._product_bytes(tokens), self._rounding_bytes(tokens))

    def _product_bytes(self, tokens: int) -> int:
        return 64 * (self.prepared.layout.group_size + min(tokens, self._chunk))

    def _rounding_bytes(self, tokens: int) -> int:
        return rounding_bytes(self.prepared.layout.columns, self.prepared.layout.group_size, tokens)

    def run(self, x: int, out: int, tokens: int, activations: int, work: int) -> None:
        """The whole product.

        Args:
            x: address of float32 (tokens, columns).
            out: address of float32 (tokens, rows), written.
            tokens: how many, at least 1.
            activations: address of `activation_bytes(tokens)` bytes, written: the inputs for further matrices.
            work: address of `work_bytes(tokens)` bytes of its own.
        """
        self._kernel(self._address, x, activations, out, tokens, self._chunk, work, 0, self._tiles)

    def quantize(self, x: int, tokens: int, activations: int, work: int) -> None:
        """Only the inputs; arguments as of `run`."""
        self._kernel(self._address, x, activations, 0, tokens, self._chunk, work, 0, -(-tokens // TOKENS))

    def share_quantize(self, x: int, tokens: int, activations: int, smallest: int) -> None:
        """`quantize`, shared out between torch's threads, at least `smallest` runs of 16 tokens to a share."""
        arguments = (self._address, x, activations, 0, tokens, self._chunk)
        workspace, runs = self._rounding_bytes(tokens), -(-tokens // TOKENS)
        share_compiled(self._kernel, arguments, runs, workspace=workspace, smallest=smallest)

    def multiply(self, activations: int, out: int, tokens: int, work: int, first_tile: int, past_tile: int) -> None:
        """Only the product, rows `16 * first_tile` to `16 * past_tile`, of inputs made by `run` or `quantize`."""
        self._kernel(self._address, 0, activations, out, tokens, self._chunk, work, first_tile, past_tile)

    def share(self, activations: int, out: int, tokens: int, smallest: int) -> None:
        """`multiply` for all tiles, shared out between torch's threads, at least `smallest` tiles to a share."""
        arguments = (self._address, 0, activations, out, tokens, self._chunk)
        share_compiled(self._kernel, arguments, self._tiles, workspace=self._product_bytes(tokens), smallest=smallest)

    def one_token(self, bias: int, input_kind: Any) -> OneToken:
        """The product of one token, for compiled code to call; arguments as of `OneToken`."""
        return OneToken(
            address(self._kernel), self._address, self._chunk, self._tiles, self.prepared.layout.rows, bias,
            self.activation_bytes(1), self.work_bytes(1), input_kind, self._smallest_share,
        )  # fmt: skip


def quantize_activations(
    prepared: Prepared, x: npt.NDArray[np.float32], mode: Mode = "int8", path: str | None = None
) -> Activations:
    """Inputs of `prepared`, and of every matrix with its `input_key`, from float32 x (tokens, columns).

    Raises:
        UsageError: unknown mode or path.
        DataError: x has another type, shape or memory layout.
    """
    _check("activations", x, prepared.layout.columns)
    runner = Runner(prepared, mode, path)
    tokens = len(x)
    data = np.empty(runner.activation_bytes(tokens), np.uint8)
    work = np.empty(runner.work_bytes(tokens), np.uint8)
    if tokens:
        runner.quantize(x.ctypes.data, tokens, data.ctypes.data, work.ctypes.data)
    return Activations(data, tokens, mode, paths.NAMES[paths.choose(path)], prepared.input_key)


def multiply(
    prepared: Prepared,
    activations: Activations,
    out: npt.NDArray[np.float32],
    first_tile: int,
    past_tile: int,
) -> None:
    """Rows `16 * first_tile` to `16 * past_tile` of the product into out, float32 (tokens, rows); no bias.

    Releases the GIL; threads may share out the tiles of one product.

    Raises:
        DataError: the activations belong to another kind of input, out has another type, shape or memory layout, or the
            tiles are not there.
    """
    if activations.input_key != prepared.input_key:
        raise DataError(
            f"{prepared.layout.name}: these activations were made for matrices with other groups or columns"
        )
    _check("output", out, prepared.layout.rows)
    if len(out) != activations.tokens or not out.flags.writeable:
        raise DataError(f"the output must be writable and have {activations.tokens} tokens, not {len(out)}")
    if not 0 <= first_tile <= past_tile <= prepared.layout.row_tiles:
        raise DataError(f"tiles {first_tile}..{past_tile} of {prepared.layout.row_tiles}")
    runner = Runner(prepared, activations.mode, activations.path)
    if len(activations.data) < runner.activation_bytes(activations.tokens):
        raise DataError("the activations are cut short")
    if activations.tokens:
        work = np.empty(runner.work_bytes(activations.tokens), np.uint8)
        addresses = (activations.data.ctypes.data, out.ctypes.data)
        runner.multiply(*addresses, activations.tokens, work.ctypes.data, first_tile, past_tile)


def _check(what: str, array: Any, width: int) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != np.float32 or array.ndim != 2 or array.shape[1] != width:
        raise DataError(f"the {what} must be float32 of shape (tokens, {width})")
    if not array.flags.c_contiguous:
        raise DataError(f"the {what} must be one run of memory")
