"""Dequantize and multiply: slow and for every device, granularity and type."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch

from nash_swarm.quantizers.formats.base import Layout
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

    layout: Layout
    read: Read


class Reference(Backend):
    """Rows are unpacked on the CPU and copied to where they are wanted."""

    name = "reference"
    priority = 0

    def prepare(self, packed: torch.Tensor, layout: Layout, strategies: tuple[int, ...]) -> Unpacking:
        """See `Backend`."""
        tensor = layout.format.read(host_bytes(packed), layout, strategies)
        read = partial(gather, prepare(tensor)) if isinstance(tensor, PackedTensor) else tensor.read_rows
        return Unpacking(layout, read)

    def rows(self, matrix: Unpacking, ids: torch.Tensor) -> torch.Tensor:
        """See `Backend`."""
        return read_rows(matrix.read, ids, matrix.layout.columns)
