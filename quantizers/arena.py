"""All packed buffers of a model in one run of memory, so that its pages may be large and its cache lines are whole.

Generating a token reads every packed byte once. From the 4 kB pages of a mapped file, at whatever address safetensors
left a tensor, that takes a quarter longer. NumPy asks Linux for large pages for arrays of 4 MB or more.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from nash_swarm.quantizers.modules import PackedWeight

_LINE = 64
"""Bytes of a cache line, and of the kernels' vectors."""


def settle(model: nn.Module) -> None:
    """Copy the packed buffers that are on the CPU into one array, each at the start of a cache line."""
    modules = [module for module in model.modules() if isinstance(module, PackedWeight) and module.packed.is_cpu]
    places = np.cumsum([0] + [-(-module.packed.numel() // _LINE) * _LINE for module in modules])
    memory = np.empty(int(places[-1]) + _LINE, np.uint8)
    start = -memory.ctypes.data % _LINE
    for module, place in zip(modules, places.tolist(), strict=False):
        # a tensor over its own part of the array: views of one tensor would count changes together
        part = torch.from_numpy(memory[start + place : start + place + module.packed.numel()])
        module.packed = part.copy_(module.packed)
