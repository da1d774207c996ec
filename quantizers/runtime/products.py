"""Products of one token with several packed matrices, past torch's dispatcher: for `nash_swarm.engine`."""

from __future__ import annotations

from typing import Any

import torch

from nash_swarm.quantizers.runtime import dispatch
from nash_swarm.quantizers.runtime.cpu.matrix import PackedMatrix
from nash_swarm.quantizers.runtime.cpu.product import product_of


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
    rounded = False
    for layer in layers:
        found = dispatch.find(layer._buffers["packed"], layer.matrix)
        if x.numel() != found.columns:
            dispatch.check_columns(x, found.layout)
        matrix, activations, bias = found.matrix, layer.activations, layer._parameters["bias"]
        if type(matrix) is not PackedMatrix:
            products.append(found.backend.linear(matrix, x.view(-1), bias, activations))
            continue
        product = matrix.products.get(activations) or product_of(matrix, activations)
        out = x.new_empty(matrix.rows)
        product.one(x, out, again=rounded)
        if bias is not None:
            out += bias
        products.append(out)
        rounded = True
    return products


def matrix_of(layer: Any) -> PackedMatrix | None:
    """The kernels' matrix of a `PackedLinear`; `None` if another backend multiplies with it.

    Raises:
        DataError: the layer's buffer is not what its layout says.
    """
    matrix = dispatch.find(layer._buffers["packed"], layer.matrix).matrix
    return matrix if type(matrix) is PackedMatrix else None
