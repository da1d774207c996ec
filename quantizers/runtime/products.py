"""Products of inputs of any shape and floating-point type with packed matrices on the CPU."""

from __future__ import annotations

from typing import Any

import torch

from nash_swarm.errors import UsageError
from nash_swarm.quantizers.runtime import buffers, dense

_FAST = (torch.float32, torch.bfloat16, torch.float16)


def multiply(
    x: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None, matrix: str, activations: str
) -> torch.Tensor:
    """`x W^T + b`; arguments as of `ops.linear`."""
    found = buffers.find(packed, matrix)
    shape, columns = x.shape, found.columns
    if x.ndim == 0 or shape[-1] != columns:
        check_columns(x, found.layout.name, columns)
    if found.prepared is None or x.dtype not in _FAST:
        return dense.multiply(x, packed, bias, matrix, activations)
    multiplier = found.multipliers.get(activations) or found.multiplier(activations)
    plain = x.dtype is torch.float32
    wide = x if plain and x.is_contiguous() else x.to(torch.float32).contiguous()
    out = wide.new_empty((*shape[:-1], found.rows))
    tokens = x.numel() // columns
    if tokens == 1:
        multiplier.one(wide, out)
    elif tokens:
        multiplier.many(x, wide, out, tokens)
    if bias is not None:
        out += bias
    return out if plain else out.to(x.dtype)


def one_token(x: torch.Tensor, *layers: Any) -> list[torch.Tensor]:
    """Products of one token with matrices that read it alike; where they take their inputs alike it is rounded once.

    Args:
        x: float32 of `in_features` elements, contiguous and on the CPU.
        layers: `PackedLinear` of any granularity but `parameter`.

    Returns:
        For each layer float32 (out_features,).

    Raises:
        DataError: a layer's buffer is not what its layout says.
        UsageError: x has another number of columns.
    """
    products: list[torch.Tensor] = []
    for layer in layers:
        found = buffers.find(layer._buffers["packed"], layer.matrix)
        if x.numel() != found.columns:
            check_columns(x, found.layout.name, found.columns)
        activations, bias = layer.activations, layer._parameters["bias"]
        multiplier = found.multipliers.get(activations) or found.multiplier(activations)
        out = x.new_empty(found.rows)
        multiplier.one(x, out, again=bool(products))
        if bias is not None:
            out += bias
        products.append(out)
    return products


def check_columns(x: torch.Tensor, name: str, columns: int) -> None:
    """Refuse inputs of another number of columns.

    Raises:
        UsageError: x has not that many.
    """
    if x.ndim == 0 or x.shape[-1] != columns:
        raise UsageError(f"{name} takes inputs of {columns} columns, not of the shape {tuple(x.shape)}")
