"""The packed matrices of a decoder layer as a table that its kernels read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nash_swarm.quantizers.runtime import dispatch
from nash_swarm.quantizers.runtime.cpu.fused.decoder_layer import layer_table
from nash_swarm.quantizers.runtime.cpu.fused.single_token import LANES
from nash_swarm.quantizers.runtime.cpu.matrix import PackedMatrix
from nash_swarm.quantizers.runtime.cpu.product import product_of


@dataclass(frozen=True, eq=False)
class LayerParts:
    """What a layer consists of.

    Attributes:
        projections: `PackedLinear` of any granularity but `parameter`, as all here: of queries, keys and values; or one
            whose rows are those of the three.
        output: of what the attention gives.
        gates: gate and up; or one whose rows are those of both.
        down: of the gated values.
        norms: gains, float32, contiguous, on the CPU, and epsilons, by `decoder_layer.NORMS`; two of them at least.
        groups: query heads of a key head.
        size: elements of a head.
        scale: of products of queries with keys.
        rotary: elements of a head, its first ones, that are rotated.
        positions: which of the token's cosines and sines.
        window: how many tokens are seen at most, the new one included; 0 if all.
        activation: `single_token.SILU` or another one of its kinds.
    """

    projections: tuple[Any, ...]
    output: Any
    gates: tuple[Any, ...]
    down: Any
    norms: Mapping[str, tuple[torch.Tensor, float]]
    groups: int
    size: int
    scale: float
    rotary: int
    positions: int
    window: int
    activation: int

    @property
    def heads(self) -> tuple[int, int]:
        """Of queries, and of keys."""
        rows = sum(layer.out_features for layer in self.projections)
        keys = rows // (self.size * (self.groups + 2))
        return self.groups * keys, keys


@dataclass(frozen=True, eq=False)
class LayerPlan:
    """What the kernels of a layer are called with.

    Attributes:
        parts: of the layer; the table has their addresses.
        hidden: elements of a token.
        table: see `decoder_layer.layer_table`.
        room: bytes that a call needs for itself.
        work: bytes of them for products.
        shares: into how many the largest product can be cut for workers.
    """

    parts: LayerParts
    hidden: int
    table: npt.NDArray[np.int64]
    room: int
    work: int
    shares: int


def plan_layer(parts: LayerParts) -> LayerPlan | None:
    """The plan for one token; `None` if the kernels cannot do what the layer does.

    Raises:
        DataError: a layer's buffer is not what its layout says.
        UsageError: a layer's mode of activations is none.
    """
    named = dict(zip("qkv", parts.projections, strict=False)) | {"o": parts.output, "down": parts.down}
    named |= dict(zip(("gate", "up"), parts.gates, strict=False))
    products, hidden, inner = {}, parts.output.out_features, parts.down.in_features
    for name, layer in named.items():
        found, bias = matrix_of(layer), layer._parameters["bias"]
        if found is None or (bias is not None and not is_vector(bias, found.rows)):
            return None
        product = product_of(found, layer.activations).compiled(0 if bias is None else bias.data_ptr())
        if product is None:
            return None
        products[name] = product
    if not _fit(parts, hidden, inner):
        return None
    norms = {place: (gain.data_ptr(), epsilon) for place, (gain, epsilon) in parts.norms.items()}
    settings = {
        "hidden": hidden, "inner": inner, "queries": parts.heads[0], "keys": parts.heads[1], "head": parts.size,
        "rotary": parts.rotary, "positions": parts.positions, "window": parts.window, "activation": parts.activation,
    }  # fmt: skip
    table, room = layer_table(products, norms, settings, parts.scale)
    work = max(product.work for product in products.values())
    shares = max(product.tiles // product.smallest for product in products.values())
    return LayerPlan(parts, hidden, table, room, work, shares)


def is_vector(values: torch.Tensor, size: int) -> bool:
    """Whether these are `size` float32 that a kernel can read."""
    return values.dtype is torch.float32 and values.is_cpu and values.is_contiguous() and values.shape == (size,)


def _fit(parts: LayerParts, hidden: int, inner: int) -> bool:
    """Whether outputs are inputs of the next, and whole vectors, as the kernels believe."""
    (queries, keys), size = parts.heads, parts.size
    wide, narrow = queries * size, keys * size
    projected, gated = ([layer.out_features for layer in group] for group in (parts.projections, parts.gates))
    sizes = {"queries": size, "keys": size}
    return (
        all(layer.in_features == hidden for layer in (*parts.projections, *parts.gates))
        and projected in ([wide, narrow, narrow], [wide + 2 * narrow])
        and gated in ([inner, inner], [2 * inner])
        and parts.output.in_features == wide
        and parts.down.out_features == hidden
        and size % (2 * LANES) == parts.rotary % (2 * LANES) == hidden % LANES == inner % LANES == 0
        and 0 < parts.rotary <= size
        and parts.window >= 0
        and all(is_vector(gain, sizes.get(place, hidden)) for place, (gain, _) in parts.norms.items())
    )


def matrix_of(layer: Any) -> PackedMatrix | None:
    """The kernels' matrix of a `PackedLinear`; `None` if another backend multiplies with it.

    Raises:
        DataError: the layer's buffer is not what its layout says.
    """
    matrix = dispatch.find(layer._buffers["packed"], layer.matrix).matrix
    return matrix if type(matrix) is PackedMatrix else None
