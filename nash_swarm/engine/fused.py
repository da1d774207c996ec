"""What fused modules share: how a module becomes one, stays one in copies, and when its kernels stand in for it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from nash_swarm.compat.classes import combined
from nash_swarm.compat.torch_names import has_global_hook
from nash_swarm.engine.family import Family
from nash_swarm.quantizers.formats.native.layout import TensorLayout
from nash_swarm.quantizers.runtime.modules import PackedLinear
from nash_swarm.quantizers.runtime.ops import nobody_watches

if TYPE_CHECKING:
    from nash_swarm.engine.draw import Draw, Pairs

_CACHES = ("cache", "past_key_values")
"""What transformers calls the argument that holds keys and values, in newer and older releases."""


class Fused(nn.Module):
    """In front of a module's own class in the order of resolution; holds no state.

    Attributes:
        family: what the module is declared to be.
        cache_argument: what the module's own `forward` calls the argument that holds keys and values, if it has one.
    """

    family: ClassVar[Family]
    cache_argument: ClassVar[str]

    @classmethod
    def mismatch(cls, module: Any, family: Family) -> str | None:
        """In what a module, from outside, is not what its family declares; `None` if it is."""
        raise NotImplementedError

    def trial(self, draw: Draw) -> Pairs:
        """What the kernels give for a few inputs, each beside what the module's own code gives.

        Raises:
            NotFused: the kernels cannot do what the module does.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class _Facts:
    """Name and attributes of a module's class with kernels in front; the name stays, for code that goes by names."""

    family: Family

    def __call__(self, fused: Any, own: Any) -> tuple[str, dict[str, Any]]:
        names = {"__module__": own.__module__, "__qualname__": own.__qualname__, "family": self.family}
        return own.__name__, {**names, "cache_argument": cache_argument(own.forward)}


def put_in_front(fused: Any, module: Any, family: Family) -> None:
    """Have the module use kernels where they do what it does."""
    own: Any = type(module)
    module.__class__ = combined(fused, own, _Facts(family))


def take_away(module: Any) -> None:
    """Undo `put_in_front`."""
    module.__class__ = type(module).__bases__[1]


@cache
def arguments_of(forward: Callable[..., Any]) -> frozenset[str]:
    """Names of a method's arguments."""
    return frozenset(inspect.signature(forward).parameters)


@cache
def cache_argument(forward: Callable[..., Any]) -> str:
    """What a `forward` calls the argument that holds keys and values."""
    return next((name for name in _CACHES if name in arguments_of(forward)), _CACHES[-1])


def strange(module: Any, parts: Iterable[str], weights: Iterable[str] = (), other: Iterable[str] = ()) -> str | None:
    """What a module has, or lacks, against its declaration; `None` if it has the parts and weights and nothing else.

    Args:
        module: any.
        parts: children that are there.
        weights: parameters and buffers of its own.
        other: children that may be there.
    """
    children = set(module._modules)
    if missing := set(parts) - children:
        return f"it has no {min(missing)}"
    if more := children - set(parts) - set(other):
        return f"it has a {min(more)}"
    own = {name for name, held in (module._parameters | module._buffers).items() if held is not None}
    if missing := set(weights) - own:
        return f"it has no weight {min(missing)}"
    if more := own - set(weights):
        return f"it has a weight {min(more)}"
    return "its forward was replaced" if "forward" in vars(module) else None


def is_plain_inference(x: torch.Tensor) -> bool:
    """`is_plain_eager`, and no gradients are recorded."""
    return not torch.is_grad_enabled() and is_plain_eager(x)


def is_plain_eager(x: torch.Tensor) -> bool:
    """Whether x is contiguous float32 on the CPU, without compiling, tracing, profiling or global hooks."""
    return nobody_watches(x, x) and x.dtype is torch.float32 and x.is_contiguous() and not has_global_hook()


def is_packed(*layers: Any) -> bool:
    """Whether layers are packed ones without hooks, with widths that kernels know."""
    for layer in layers:
        if type(layer) is not PackedLinear or not isinstance(layer.layout, TensorLayout):
            return False
    return is_untouched(*layers)


def is_untouched(*modules: Any) -> bool:
    """Whether modules have neither hooks nor another `forward` of their own."""
    for module in modules:
        if module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__:
            return False
    return True
