"""torch modules that hold packed weights: drop-in replacements for Linear, Conv1D, Embedding and a tied output head."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from nash_swarm.game.layout import TILE_ROWS, TensorLayout
from nash_swarm.quantizers.kernels.threads import share_rows
from nash_swarm.quantizers.packing import PackedTensor


class PackedWeight(nn.Module):
    """A packed matrix as one uint8 buffer, `packed`; subclasses say how it is used.

    Args:
        layout: shape and agent grid.
        strategies: bit-widths of the allocation.
        size: bytes of the buffer.
    """

    packed: torch.Tensor

    def __init__(self, layout: TensorLayout, strategies: tuple[int, ...], size: int) -> None:
        super().__init__()
        self.layout = layout
        self.strategies = strategies
        self.register_buffer("packed", torch.zeros(size, dtype=torch.uint8))
        self._parsed: tuple[tuple[int, int], PackedTensor] | None = None

    def tensor(self) -> PackedTensor:
        """The parsed buffer, checked against its size each time the buffer has changed.

        Raises:
            DataError: the buffer is not what the layout says.
        """
        version = (self.packed.data_ptr(), self.packed._version)
        if self._parsed is None or self._parsed[0] != version:
            buffer = np.ascontiguousarray(self.packed.detach().cpu().numpy())
            self._parsed = (version, PackedTensor.read(buffer, self.layout, self.strategies))
        return self._parsed[1]

    def dense(self) -> torch.Tensor:
        """The matrix, float32 (rows, columns), on the buffer's device."""
        from nash_swarm.quantizers.kernels import unpacking

        parsed = self.tensor()
        if self.layout.per_weight:
            return self._per_weight(np.arange(self.layout.rows)).to(self.packed.device)
        out = torch.empty(self.layout.rows, self.layout.columns)
        arguments = (*_sources(parsed), out.numpy())
        share_rows(self.layout.row_tiles, lambda first, past: unpacking.dequantize_tiles(*arguments, first, past))
        return out.to(self.packed.device)

    def rows(self, index: torch.Tensor) -> torch.Tensor:
        """Rows `index` (any shape) of the matrix, float32 (*index, columns).

        Raises:
            IndexError: an index is outside the matrix.
        """
        from nash_swarm.quantizers.kernels import unpacking

        wanted = index.detach().cpu().reshape(-1).numpy().astype(np.int64)
        if len(wanted) and not 0 <= wanted.min() <= wanted.max() < self.layout.rows:
            raise IndexError(f"{self.layout.name}: index outside 0..{self.layout.rows - 1}")
        parsed = self.tensor()
        shape = (*index.shape, self.layout.columns)
        if self.layout.per_weight:
            return self._per_weight(wanted).reshape(shape).to(index.device)
        out = torch.empty(len(wanted), self.layout.columns)
        unpacking.dequantize_rows(*_sources(parsed), wanted, out.numpy(), 0, len(wanted))
        return out.reshape(shape).to(index.device)

    def _per_weight(self, wanted: npt.NDArray[np.int64]) -> torch.Tensor:
        from nash_swarm.quantizers.kernels import unpacking_weights

        parsed = self.tensor()
        out = torch.empty(len(wanted), self.layout.columns)
        arguments = (
            parsed.buffer, parsed.row_bits, parsed.widths, parsed.scales, parsed.zeros, parsed.permutation,
            self.layout.group_size, wanted, out.numpy(),
        )  # fmt: skip
        share_rows(len(wanted), lambda first, past: unpacking_weights.dequantize_rows(*arguments, first, past))
        return out

    def extra_repr(self) -> str:
        """Shape, mean width and bytes, for `print(model)`."""
        layout = self.layout
        if self.packed.is_meta:
            return f"{layout.rows} x {layout.columns}, {len(self.packed)} bytes"
        bits = len(self.packed) * 8 / layout.weights
        return f"{layout.rows} x {layout.columns}, {bits:.2f} bits per weight, everything included"


class PackedLinear(PackedWeight):
    """`y = x W^T + b`; replaces `nn.Linear` and GPT-2's `Conv1D` (whose weight is stored transposed)."""

    bias: torch.Tensor | None

    def __init__(self, layout: TensorLayout, strategies: tuple[int, ...], size: int, bias: bool) -> None:
        super().__init__(layout, strategies, size)
        self.in_features, self.out_features = layout.columns, layout.rows
        self.register_parameter("bias", nn.Parameter(torch.zeros(layout.rows), requires_grad=False) if bias else None)

    @property
    def weight(self) -> torch.Tensor:
        """The dense weight (out_features, in_features): slow, for code that insists on reading it."""
        return self.dense()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in_features) to (..., out_features)."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return functional.linear(x, self.dense().to(x.dtype), bias)


class PackedEmbedding(PackedWeight):
    """Rows of a packed token or position matrix; only the rows asked for are unpacked."""

    def __init__(self, layout: TensorLayout, strategies: tuple[int, ...], size: int) -> None:
        super().__init__(layout, strategies, size)
        self.num_embeddings, self.embedding_dim = layout.rows, layout.columns

    @property
    def weight(self) -> torch.Tensor:
        """The dense matrix (num_embeddings, embedding_dim): slow, for code that insists on reading it."""
        return self.dense()

    def forward(self, index: torch.Tensor) -> torch.Tensor:
        """(...) token ids to (..., embedding_dim)."""
        return self.rows(index)


class TiedHead(nn.Module):
    """Output head that multiplies with the packed embedding it is tied to; owns no weights."""

    def __init__(self, embedding: PackedEmbedding) -> None:
        super().__init__()
        # a plain attribute would register the embedding a second time, under the head's name
        self._embedding: PackedEmbedding
        object.__setattr__(self, "_embedding", embedding)
        self.in_features, self.out_features = embedding.embedding_dim, embedding.num_embeddings

    @property
    def weight(self) -> torch.Tensor:
        """The dense matrix (out_features, in_features): slow, for code that insists on reading it."""
        return self._embedding.dense()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in_features) to (..., out_features)."""
        return functional.linear(x, self._embedding.dense().to(x.dtype))


def _sources(parsed: PackedTensor) -> tuple[object, ...]:
    from nash_swarm.quantizers.kernels import unpacking

    halves = parsed.buffer[: len(parsed.buffer) // 2 * 2].view(np.uint16)
    if parsed.scales.shape[0] != parsed.layout.row_tiles * TILE_ROWS:
        raise AssertionError("scales are padded to whole tiles")
    return (
        parsed.buffer, halves, unpacking.half_values(), parsed.offsets, parsed.widths, parsed.scales, parsed.zeros,
        parsed.permutation, parsed.layout.group_size,
    )  # fmt: skip
