"""Packed matrices as dense ones: slow and for everybody, whatever the device, the granularity or the type asked for."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from nash_swarm.game.layout import TILE_ROWS
from nash_swarm.quantizers import buffers
from nash_swarm.quantizers.kernels.threads import share_rows
from nash_swarm.quantizers.packing import PackedTensor, description


def dense(packed: torch.Tensor, matrix: str) -> torch.Tensor:
    """The matrix, float32 (rows, columns), on the buffer's device.

    Raises:
        DataError: the buffer is not what `matrix` says.
    """
    parsed = _parsed(packed, matrix)
    layout = parsed.layout
    if layout.per_weight:
        return _weights(parsed, np.arange(layout.rows)).to(packed.device)
    from nash_swarm.quantizers.kernels import unpacking

    out = torch.empty(layout.rows, layout.columns)
    arguments = (*_sources(parsed), out.numpy())
    share_rows(layout.row_tiles, lambda first, past: unpacking.dequantize_tiles(*arguments, first, past))
    return out.to(packed.device)


def multiply(
    x: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None, matrix: str, activations: str
) -> torch.Tensor:
    """`x W^T + b`, exactly, whatever the activation mode; arguments as of `ops.linear`."""
    weight = dense(packed, matrix).to(x.device, x.dtype)
    return functional.linear(x, weight, None if bias is None else bias.to(x.dtype))


def rows(index: torch.Tensor, packed: torch.Tensor, matrix: str) -> torch.Tensor:
    """Rows `index` (any shape) of the matrix, float32 (*index, columns), on the index' device.

    Raises:
        DataError: the buffer is not what `matrix` says.
        IndexError: an index is outside the matrix.
    """
    layout, _ = description.read(matrix)
    wanted = index.detach().cpu().reshape(-1).numpy().astype(np.int64)
    if len(wanted) and not 0 <= wanted.min() <= wanted.max() < layout.rows:
        raise IndexError(f"{layout.name}: index outside 0..{layout.rows - 1}")
    memory = packed.detach().cpu()
    found = buffers.find(memory, matrix)
    if found.prepared is None:
        out = _weights(_parsed(memory, matrix), wanted)
    else:
        from nash_swarm.quantizers.kernels.gathering import gather

        out = torch.empty(len(wanted), layout.columns)
        arguments = (found.prepared, wanted, out.numpy())
        share_rows(len(wanted), lambda first, past: gather(*arguments, first, past))
    return out.reshape(*index.shape, layout.columns).to(index.device)


def _parsed(packed: torch.Tensor, matrix: str) -> PackedTensor:
    if packed.device.type == "cpu" and (kept := buffers.find(packed, matrix).parsed) is not None:
        return kept
    return buffers.parse(packed, matrix)


def _weights(parsed: PackedTensor, wanted: npt.NDArray[np.int64]) -> torch.Tensor:
    from nash_swarm.quantizers.kernels import unpacking_weights

    out = torch.empty(len(wanted), parsed.layout.columns)
    arguments = (
        parsed.buffer, parsed.row_bits, parsed.widths, parsed.scales, parsed.zeros, parsed.permutation,
        parsed.layout.group_size, wanted, out.numpy(),
    )  # fmt: skip
    share_rows(len(wanted), lambda first, past: unpacking_weights.dequantize_rows(*arguments, first, past))
    return out


def _sources(parsed: PackedTensor) -> tuple[object, ...]:
    from nash_swarm.quantizers.kernels import unpacking

    halves = parsed.buffer[: len(parsed.buffer) // 2 * 2].view(np.uint16)
    if parsed.scales.shape[0] != parsed.layout.row_tiles * TILE_ROWS:
        raise AssertionError("scales are padded to whole tiles")
    return (
        parsed.buffer, halves, unpacking.half_values(), parsed.offsets, parsed.widths, parsed.scales, parsed.zeros,
        parsed.permutation, parsed.layout.group_size,
    )  # fmt: skip
