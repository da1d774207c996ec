"""The Numba kernels of `runtime.cpu`."""

from __future__ import annotations

from functools import partial

import torch

from nash_swarm.quantizers.formats.base import Layout
from nash_swarm.quantizers.formats.native.format import N16K32
from nash_swarm.quantizers.formats.native.layout import TensorLayout
from nash_swarm.quantizers.formats.native.tensor import PackedTensor
from nash_swarm.quantizers.runtime.backends.base import Backend, Capability, host_bytes, read_rows
from nash_swarm.quantizers.runtime.cpu.gathering import gather
from nash_swarm.quantizers.runtime.cpu.matrix import PackedMatrix, prepare
from nash_swarm.quantizers.runtime.cpu.product import product_of

_HALF = (torch.bfloat16, torch.float16)


class Cpu(Backend):
    """Multiplies with packed weights as they are; inputs of other types than three are multiplied with dense ones."""

    name = "cpu"
    priority = 100
    capability = Capability(
        devices=frozenset({"cpu"}), formats=frozenset({N16K32.name}),
        instructions=frozenset({"avx512vnni", "avx2", "generic"}),
    )  # fmt: skip

    def prepare(self, packed: torch.Tensor, layout: Layout, strategies: tuple[int, ...]) -> PackedMatrix:
        """See `Backend`."""
        assert isinstance(layout, TensorLayout)
        return prepare(PackedTensor.read(host_bytes(packed), layout, strategies))

    def linear(
        self, matrix: PackedMatrix, x: torch.Tensor, bias: torch.Tensor | None, activations: str
    ) -> torch.Tensor:
        """See `Backend`."""
        plain = x.dtype is torch.float32
        if not (plain or x.dtype in _HALF) or not x.is_cpu:
            return super().linear(matrix, x, bias, activations)
        product = matrix.products.get(activations) or product_of(matrix, activations)
        wide = x if plain and x.is_contiguous() else x.to(torch.float32).contiguous()
        out = wide.new_empty((*x.shape[:-1], matrix.rows))
        tokens = x.numel() // matrix.columns
        if tokens == 1:
            product.one(wide, out)
        elif tokens:
            product.many(x, wide, out, tokens)
        if bias is not None:
            out += bias
        return out if plain else out.to(x.dtype)

    def rows(self, matrix: PackedMatrix, ids: torch.Tensor) -> torch.Tensor:
        """See `Backend`."""
        return read_rows(partial(gather, matrix), ids, matrix.columns)
