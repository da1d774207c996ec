"""Dequantize and multiply: slow and for every device, granularity and type."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from nash_swarm.quantizers.formats.native import unpacking_weights
from nash_swarm.quantizers.formats.native.layout import TensorLayout
from nash_swarm.quantizers.formats.native.tensor import PackedTensor
from nash_swarm.quantizers.runtime.backends.base import Backend, Read, host_bytes, read_rows
from nash_swarm.quantizers.runtime.cpu.gathering import gather
from nash_swarm.quantizers.runtime.cpu.matrix import prepare


@dataclass(frozen=True, eq=False)
class Unpacking:
    """A matrix whose rows can be read.

    Attributes:
        layout: shape and agent grid.
        read: see `read_rows`.
    """

    layout: TensorLayout
    read: Read


class Reference(Backend):
    """Rows are unpacked on the CPU and copied to where they are wanted."""

    name = "reference"
    priority = 0

    def prepare(self, packed: torch.Tensor, layout: TensorLayout, strategies: tuple[int, ...]) -> Unpacking:
        """See `Backend`."""
        tensor = PackedTensor.read(host_bytes(packed), layout, strategies)
        read = partial(_read_weights, tensor) if layout.per_weight else partial(gather, prepare(tensor))
        return Unpacking(layout, read)

    def rows(self, matrix: Unpacking, ids: torch.Tensor) -> torch.Tensor:
        """See `Backend`."""
        return read_rows(matrix.read, ids, matrix.layout.columns)


def _read_weights(
    tensor: PackedTensor, wanted: npt.NDArray[np.int64], out: npt.NDArray[np.float32], first: int, past: int
) -> None:
    unpacking_weights.dequantize_rows(
        tensor.buffer, tensor.row_bits, tensor.widths, tensor.scales, tensor.zeros, tensor.permutation,
        tensor.layout.group_size, wanted, out, first, past,
    )  # fmt: skip
