"""Packed matrices as dense ones: slow and for everybody, whatever the device, the granularity or the type asked for."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from nash_swarm.quantizers.formats import description
from nash_swarm.quantizers.runtime import buffers
from nash_swarm.quantizers.runtime.cpu.workers.threads import Work, share_rows


def dense(packed: torch.Tensor, matrix: str) -> torch.Tensor:
    """The matrix, float32 (rows, columns), on the buffer's device.

    Raises:
        DataError: the buffer is not what `matrix` says.
    """
    layout, _ = description.read(matrix)
    return _unpack(packed, matrix, np.arange(layout.rows)).to(packed.device)


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
    return _unpack(packed, matrix, wanted).reshape(*index.shape, layout.columns).to(index.device)


def _unpack(packed: torch.Tensor, matrix: str, wanted: npt.NDArray[np.int64]) -> torch.Tensor:
    memory = packed.detach().cpu()
    found = buffers.find(memory, matrix)
    out = torch.empty(len(wanted), found.columns)
    kernel: Work
    if found.prepared is not None:
        from nash_swarm.quantizers.runtime.cpu.gathering import gather

        kernel = partial(gather, found.prepared, wanted, out.numpy())
    else:
        assert found.parsed is not None
        kernel = partial(found.parsed.read_rows, wanted, out.numpy())
    share_rows(len(wanted), kernel)
    return out
