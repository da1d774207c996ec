"""Names of torch that its documentation does not promise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from nash_swarm.compat.versions import using

with using("torch"):
    from torch.multiprocessing.reductions import StorageWeakRef as StorageWeakRef
    from torch.nn.modules.module import _has_any_global_hook as _global_hook

    _torch: Any = torch._C
    has_global_hook: Callable[[], bool] = _global_hook
    """Whether a hook is registered for all modules."""
    dispatch_modes: Callable[[], int] = _torch._len_torch_dispatch_stack
    """How many dispatch modes are active."""
    transforms: Callable[[], Any] = _torch._functorch.peek_interpreter_stack
    """The innermost transform of `torch.func` that is active, or `None`."""
    tracing: Callable[[], bool] = _torch._is_tracing
    """Whether `torch.jit` traces."""
    profiling: Callable[[], bool] = _torch._autograd._profiler_enabled
    """Whether the profiler runs."""
    without_subclasses: Callable[[], Any] = _torch.DisableTorchFunctionSubclass
    """Context in which `__torch_function__` of subclasses is not called."""
    wrapper_subclass: Callable[..., Any] = torch.Tensor._make_wrapper_subclass
    """A tensor of a subclass that has a shape and a type but no values."""


def copy_buffers(original: nn.Module, module: nn.Module) -> None:
    """Register the buffers of `original` with `module`, each persistent where it was.

    Raises:
        ApiChangedError: torch keeps them elsewhere.
    """
    with using("torch"):
        for name, buffer in original._buffers.items():
            module.register_buffer(name, buffer, persistent=name not in original._non_persistent_buffers_set)


def tables(module: nn.Module) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The tables in which a module keeps its parameters, buffers and children; what is put there is the module's.

    Raises:
        ApiChangedError: torch keeps them elsewhere.
    """
    with using("torch"):
        return module._parameters, module._buffers, module._modules


def blank_tables(module: nn.Module) -> None:
    """Give a module tables of its own without parameters, and with the children that it has.

    Raises:
        ApiChangedError: as `tables`.
    """
    _, _, children = tables(module)
    module._parameters, module._modules = {}, dict(children)
