"""Packed models unpacked, for comparing what both compute."""

from __future__ import annotations

import copy
from typing import Any

import torch

from nash_swarm.models.experts import prepare
from nash_swarm.models.walk import find_matrices
from nash_swarm.quantizers.runtime.modules import PackedWeight


@torch.no_grad()
def dense_copy(model: Any, packed: Any) -> Any:
    """The original model with the packed model's weights, unpacked."""
    copied = copy.deepcopy(prepare(model))
    modules = {name: module for name, module in packed.named_modules() if isinstance(module, PackedWeight)}
    for matrix in find_matrices(copied):
        if matrix.name in modules:
            dense = modules[matrix.name].dense()
            matrix.parameter.copy_(dense.T if matrix.kind == "conv1d" else dense)
    state = packed.state_dict()
    for name, tensor in copied.state_dict().items():
        if name in state:
            tensor.copy_(state[name])
    return copied
