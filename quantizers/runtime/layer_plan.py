"""The packed matrices of a decoder layer bound to its kernels, as long as nothing of it changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nash_swarm.quantizers.runtime.cpu.fused.decoder_layer import PRODUCTS, layer_table
from nash_swarm.quantizers.runtime.cpu.fused.single_token import LANES
from nash_swarm.quantizers.runtime.cpu.matrix import PackedMatrix
from nash_swarm.quantizers.runtime.cpu.product import product_of
from nash_swarm.quantizers.runtime.products import matrix_of


@dataclass(frozen=True, eq=False)
class LayerPlan:
    """What the kernels of a layer are called with.

    Attributes:
        key: what it was made from; a plan with another key is another layer's, or this one's of another time.
        table: see `kernels.decoder_layer`; empty if the kernels cannot do what the layer does.
        address: of the table.
        room: bytes that a call needs for itself.
        work: bytes of them for products.
        shares: into how many the largest product can be cut for a crew of threads.
        rows: outputs of `q`, `k` and `v`.
        alone: its products are too small to be shared out between threads.
    """

    key: tuple[Any, ...]
    table: npt.NDArray[np.int64]
    address: int = 0
    room: int = 0
    work: int = 0
    shares: int = 1
    rows: tuple[int, int, int] = (0, 0, 0)
    alone: bool = True

    def __reduce__(self) -> tuple[Any, ...]:
        # addresses are of no use in a copy
        return LayerPlan, ((), np.empty(0, np.int64))


def plan_layer(
    known: LayerPlan | None,
    layers: Sequence[Any],
    norms: Sequence[tuple[torch.Tensor, float]],
    scale: float,
    size: int,
) -> LayerPlan:
    """The plan for one token; `known` if nothing has changed since that was made.

    Args:
        known: the layer's last plan.
        layers: `PackedLinear` of any granularity but `parameter`, in the order of `PRODUCTS`.
        norms: gains, float32, contiguous, on the CPU, and epsilons, as of `layer_table`.
        scale: of products of queries with keys.
        size: elements of a head.

    Raises:
        DataError: a layer's buffer is not what its layout says.
        UsageError: a layer's mode of activations is none.
    """
    matrices = [matrix_of(layer) for layer in layers]
    biases = [layer._parameters["bias"] for layer in layers]
    places = [None if bias is None else (bias.data_ptr(), bias.dtype, bias.shape) for bias in biases]
    gains = [(gain.data_ptr(), epsilon) for gain, epsilon in norms]
    key = (*matrices, *[layer.activations for layer in layers], *places, *gains, scale, size)
    if known is not None and known.key == key:
        return known
    found = [matrix for matrix in matrices if matrix is not None]
    if len(found) < len(layers):
        return LayerPlan(key, np.empty(0, np.int64))
    plain = all(bias is None or is_vector(bias, each.rows) for bias, each in zip(biases, found, strict=True))
    multipliers = [product_of(each, layer.activations) for each, layer in zip(found, layers, strict=True)]
    products = {
        name: multiplier.compiled(0 if place is None else place[0])
        for name, multiplier, place in zip(PRODUCTS, multipliers, places, strict=True)
    }
    hidden, inner = len(norms[0][0]), found[4].rows
    if not plain or None in products.values() or not _fit(found, hidden, size):
        return LayerPlan(key, np.empty(0, np.int64))
    rows = (found[0].rows, found[1].rows, found[2].rows)
    heads = (rows[0] // size, rows[1] // size)
    table, room = layer_table(products, gains, scale, hidden, inner, heads, size)  # type: ignore[arg-type]
    alone = all(multiplier.alone for multiplier in multipliers)
    made = [product for product in products.values() if product is not None]
    work, shares = max(product.work for product in made), max(product.tiles // product.smallest for product in made)
    return LayerPlan(key, table, table.ctypes.data, room, work, shares, rows, alone)


def is_vector(values: torch.Tensor, size: int) -> bool:
    """Whether these are `size` float32 that a kernel can read."""
    return values.dtype is torch.float32 and values.is_cpu and values.is_contiguous() and values.shape == (size,)


def _fit(found: Sequence[PackedMatrix], hidden: int, size: int) -> bool:
    """Whether outputs are inputs of the next, and whole vectors, as the kernels believe."""
    q, k, v, o, gate, up, down = found
    return (
        all(each.columns == hidden for each in (q, k, v, gate, up))
        and o.columns == q.rows
        and down.columns == gate.rows == up.rows
        and o.rows == down.rows == hidden
        and k.rows == v.rows
        and size % (2 * LANES) == q.rows % size == k.rows % size == 0
        and hidden % LANES == gate.rows % LANES == 0
    )
