"""Models built without memory for their weights, to look at their shapes or to read the weights later."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from nash_swarm.errors import UsageError
from nash_swarm.models.bounds import check_buffers
from nash_swarm.models.kinds import auto_class

_LARGE = 1 << 28
"""Elements from which on a new tensor is taken for a weight: experts that are fused in one."""
_NEW = frozenset({torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn})


def outline(config: Any, stored_bytes: int) -> Any:
    """A language model without memory for weights or buffers: names and shapes, to be held against its files.

    Raises:
        DataError: its buffers would dwarf `stored_bytes`, the bytes of its files.
    """
    with torch.device("meta"):
        model = auto_class(config).from_config(config, dtype=torch.float32)
    check_buffers(model, stored_bytes)
    return model.eval()


def skeleton(config: Any) -> Any:
    """A language model in eval mode without memory for its weights; buffers that are not stored hold their values.

    Modules compute their buffers as they always do when they are built. The configuration must have been held against
    the files (`outline`), since that takes memory.

    Raises:
        UsageError: a buffer is too large to be computed.
    """
    with torch.random.fork_rng(devices=[]), _weights_without_memory(), _LargeWithoutMemory():
        model = auto_class(config).from_config(config, dtype=torch.float32)
    stored = set(model.state_dict())
    for path, module in model.named_modules():
        for name, buffer in module._buffers.items():
            full = f"{path}.{name}" if path else name
            if buffer is not None and full in stored:
                module._buffers[name] = buffer.to("meta")
            elif buffer is not None and buffer.is_meta:
                raise UsageError(f"the buffer {full} of a {type(model).__name__} is too large to be made on the way")
    return model.eval()


@contextmanager
def _weights_without_memory() -> Iterator[None]:
    """Weights of modules that are built while the context is open lose their memory as soon as a module has them."""

    def drop(_module: nn.Module, _name: str, weight: nn.Parameter) -> Any:
        # one without memory may be a weight that is tied: it stays the very same
        return None if weight.is_meta else nn.Parameter(weight.detach().to("meta"), weight.requires_grad)

    handle = register_module_parameter_registration_hook(drop)
    try:
        yield
    finally:
        handle.remove()


class _LargeWithoutMemory(TorchFunctionMode):
    """Context in which very large new tensors never have memory."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """See `torch.overrides.TorchFunctionMode`."""
        kwargs = kwargs or {}
        if func in _NEW:
            made = func(*args, **{**kwargs, "device": "meta"})
            if made.numel() >= _LARGE:
                return made
        return func(*args, **kwargs)
