"""A packed matrix bound to the compiled kernel of one activation mode, and the threads and memory it runs with."""

from __future__ import annotations

from typing import get_args

import numpy as np
import numpy.typing as npt
import torch

from nash_swarm.errors import UsageError
from nash_swarm.names import Mode
from nash_swarm.quantizers.formats.native.layout import TILE_ROWS
from nash_swarm.quantizers.runtime.cpu import tuning
from nash_swarm.quantizers.runtime.cpu.activation_rounding import rounding_bytes
from nash_swarm.quantizers.runtime.cpu.activations import activation_bytes
from nash_swarm.quantizers.runtime.cpu.aligned import aligned_empty, whole_lines
from nash_swarm.quantizers.runtime.cpu.compiled import kernel
from nash_swarm.quantizers.runtime.cpu.fused.layer_products import OneToken
from nash_swarm.quantizers.runtime.cpu.matrix import PackedMatrix
from nash_swarm.quantizers.runtime.cpu.remainders import remainder
from nash_swarm.quantizers.runtime.cpu.rounded_inputs import latest, scratch
from nash_swarm.quantizers.runtime.cpu.simd import paths
from nash_swarm.quantizers.runtime.cpu.sixteen_tokens import TOKENS
from nash_swarm.quantizers.runtime.cpu.workers.atomics import address
from nash_swarm.quantizers.runtime.cpu.workers.threads import share_compiled


def product_of(matrix: PackedMatrix, mode: str) -> Product:
    """The matrix' product in a mode, made and compiled when first asked for.

    Raises:
        UsageError: there is no such mode.
    """
    # two threads may make one each; the first one stays
    return matrix.products.get(mode) or matrix.products.setdefault(mode, Product(matrix, mode))


class Product:
    """Multiplies inputs with one matrix in one activation mode; everything is checked and compiled when it is made.

    `one` and `many` take tensors. The other methods take addresses and check nothing.

    Args:
        matrix: its buffer must stay alive.
        mode: how inputs are taken, see `names.Mode`.
        path: instructions, by name, see `simd.paths.choose`.

    Attributes:
        matrix: as given.
        lanes: tokens that the kernel takes at once, see `activations.panel`.
        alone: a product of one token is too small to be shared out between threads.

    Raises:
        UsageError: unknown mode, or instructions that this CPU lacks.
    """

    def __init__(self, matrix: PackedMatrix, mode: str = "int8", path: str | None = None) -> None:
        if mode not in get_args(Mode):
            raise UsageError(f"activations must be one of {', '.join(get_args(Mode))}, not {mode!r}")
        # cells of width 16 take the input as it is: a second product would count what the first has not left over
        self._twice = mode == "int16" and not matrix.halves
        self._exact = mode == "fp32" or (mode == "int16" and matrix.halves)
        layout, chosen = matrix.layout, paths.choose(path)
        self.matrix, self.lanes = matrix, tuning.TOKENS_AT_ONCE[chosen]
        self._kernel = kernel(chosen, self._exact)
        self._address = matrix.fields.ctypes.data
        self._tiles = layout.row_tiles
        stored = layout.groups * layout.group_size * (4 if self._exact else 1)
        self._chunk = max(64, tuning.CACHED // stored // 16 * 16)
        self._inputs = whole_lines(self.activation_bytes(1))
        self._room = self._inputs + self.work_bytes(1)
        self._key = (matrix.input_key, self._exact)
        self._spin_share = tuning.SPIN_SHARE // (TILE_ROWS * layout.columns) + 1
        self.alone = not self._twice and self._tiles < 2 * self._smallest_share(1)

    def one(self, x: torch.Tensor, out: torch.Tensor) -> None:
        """One token.

        Args:
            x: float32 of `columns` elements, contiguous and on the CPU.
            out: float32 of `rows` elements, likewise, written.
        """
        if self._twice or not (self.alone or torch.get_num_threads() == 1):
            self.many(x, x, out, 1)
            return
        # nearly every call while text is generated, which is why it does so little
        room = scratch.room(self._room)
        self._kernel(
            self._address, x.data_ptr(), room, out.data_ptr(), 1, self._chunk, room + self._inputs, 0, self._tiles
        )  # fmt: skip

    def many(self, original: torch.Tensor, x: torch.Tensor, out: torch.Tensor, tokens: int) -> None:
        """Any number of tokens.

        Args:
            original: the tensor that x is a contiguous float32 copy of, or x.
            x: float32, contiguous, `tokens` times `columns` elements.
            out: float32, contiguous, `tokens` times `rows` elements, written.
            tokens: at least 1.
        """
        inputs = latest.inputs.of(original, self._key)
        if inputs is None:
            inputs = self._rounded(x, tokens)
            latest.inputs.keep(original, self._key, inputs)
        if self._twice:
            # the remainders are tokens like others, so that the matrix is read once for both
            left = remainder(self.matrix, x.detach().view(tokens, -1).numpy(), inputs, self.lanes)
            both = torch.cat((x.view(tokens, -1), torch.from_numpy(left)))
            products = out.new_empty((2, tokens, out.shape[-1]))
            inputs = self._rounded(both, 2 * tokens)
            self.share(inputs.ctypes.data, products.data_ptr(), 2 * tokens)
            torch.add(products[0], products[1], out=out.view(tokens, -1))
        else:
            self.share(inputs.ctypes.data, out.data_ptr(), tokens)

    def compiled(self, bias: int) -> OneToken | None:
        """The product of one token on one thread, for compiled code to call; `None` where it is made of two.

        Args:
            bias: address of float32 (rows,), or 0.
        """
        if self._twice:
            return None
        return OneToken(
            address(self._kernel), self._address, self._chunk, self._tiles, self.matrix.layout.rows, bias,
            self.activation_bytes(1), self.work_bytes(1), self._key, self._spin_share,
        )  # fmt: skip

    def activation_bytes(self, tokens: int) -> int:
        """Room that the inputs of `tokens` tokens take."""
        layout = self.matrix.layout
        return activation_bytes(layout.columns, layout.group_size, tokens, self._exact, self.matrix.halves)

    def work_bytes(self, tokens: int) -> int:
        """Room that a call with `tokens` tokens needs for itself."""
        return max(self._product_bytes(tokens), self._rounding_bytes(tokens))

    def quantize(self, x: int, tokens: int, activations: int, work: int) -> None:
        """Round inputs.

        Args:
            x: address of float32 (tokens, columns).
            tokens: how many, at least 1.
            activations: address of `activation_bytes(tokens)` bytes, written.
            work: address of `work_bytes(tokens)` bytes of its own.
        """
        self._kernel(self._address, x, activations, 0, tokens, self._chunk, work, 0, -(-tokens // TOKENS))

    def multiply(self, activations: int, out: int, tokens: int, work: int, first: int, past: int) -> None:
        """Rows `16 * first` to `16 * past` of the product of rounded inputs into out, float32 (tokens, rows)."""
        self._kernel(self._address, 0, activations, out, tokens, self._chunk, work, first, past)

    def run(self, x: int, out: int, tokens: int, activations: int, work: int) -> None:
        """`quantize` and `multiply` of all tiles in one call."""
        self._kernel(self._address, x, activations, out, tokens, self._chunk, work, 0, self._tiles)

    def share_quantize(self, x: int, tokens: int, activations: int, smallest: int | None = None) -> None:
        """`quantize`, shared out between workers, at least `smallest` runs of 16 tokens to a share."""
        if smallest is None:
            seconds = TOKENS * self.matrix.layout.columns * tuning.SECONDS_PER_INPUT
            smallest = int(tuning.SHARE_SECONDS / seconds) + 1
        arguments = (self._address, x, activations, 0, tokens, self._chunk)
        workspace, runs = self._rounding_bytes(tokens), -(-tokens // TOKENS)
        share_compiled(self._kernel, arguments, runs, workspace=workspace, smallest=smallest)

    def share(self, activations: int, out: int, tokens: int, smallest: int | None = None) -> None:
        """`multiply` for all tiles, shared out between workers, at least `smallest` tiles to a share."""
        arguments = (self._address, 0, activations, out, tokens, self._chunk)
        smallest = smallest or self._smallest_share(tokens)
        share_compiled(self._kernel, arguments, self._tiles, workspace=self._product_bytes(tokens), smallest=smallest)

    def _rounded(self, x: torch.Tensor, tokens: int) -> npt.NDArray[np.uint8]:
        size = self.activation_bytes(tokens)
        if tokens < TOKENS:
            inputs = aligned_empty(whole_lines(size) + self.work_bytes(tokens))
            start = inputs.ctypes.data
            self.quantize(x.data_ptr(), tokens, start, start + whole_lines(size))
        else:
            inputs = aligned_empty(size)
            self.share_quantize(x.data_ptr(), tokens, inputs.ctypes.data)
        return inputs

    def _product_bytes(self, tokens: int) -> int:
        return 64 * (self.matrix.layout.group_size + min(tokens, self._chunk))

    def _rounding_bytes(self, tokens: int) -> int:
        return rounding_bytes(self.matrix.layout.columns, self.matrix.layout.group_size, tokens)

    def _smallest_share(self, tokens: int) -> int:
        """Tiles that are worth handing over to another thread."""
        weights = self.matrix.layout.columns * TILE_ROWS
        seconds = tuning.SECONDS_PER_WEIGHT + tuning.SECONDS_PER_PRODUCT * tokens
        return int(tuning.SHARE_SECONDS / (weights * seconds)) + 1
