"""All packed buffers of a model in one run of memory, so that its pages may be large and its cache lines are whole.

Generating a token reads every packed byte once. From the 4 kB pages of a mapped file, at whatever address safetensors
left a tensor, that takes a quarter longer. NumPy asks Linux for large pages for arrays of 4 MB or more.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from nash_swarm.quantizers.runtime.cpu.aligned import aligned_empty, whole_lines
from nash_swarm.quantizers.runtime.modules import PackedWeight


def settle(model: nn.Module) -> None:
    """Copy the packed buffers that are on the CPU into one array, each at the start of a cache line."""
    modules = [module for module in model.modules() if isinstance(module, PackedWeight) and module.packed.is_cpu]
    places = np.cumsum([0] + [whole_lines(module.packed.numel()) for module in modules])
    memory = aligned_empty(int(places[-1]))
    for module, place in zip(modules, places.tolist(), strict=False):
        # a tensor over its own part of the array: views of one tensor would count changes together
        part = torch.from_numpy(memory[place : place + module.packed.numel()])
        module.packed = part.copy_(module.packed)
