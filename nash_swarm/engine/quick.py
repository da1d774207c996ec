"""What the quick modules share: how a module becomes one, stays one in copies, and when it may be quick."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn
from torch.nn.modules.module import _has_any_global_hook

from nash_swarm.engine.recognise import Pattern, cache_argument
from nash_swarm.quantizers.formats.native.layout import TensorLayout
from nash_swarm.quantizers.runtime.modules import PackedLinear
from nash_swarm.quantizers.runtime.ops import nobody_watches

if TYPE_CHECKING:
    from nash_swarm.engine.trial import Draw, Pairs


class Quick(nn.Module):
    """In front of a module's own class in the order of resolution; holds no state.

    Attributes:
        pattern: what modules of the kind look like from outside.
        cache_argument: what the module's own `forward` calls the argument that holds keys and values, if it has one.
    """

    pattern: ClassVar[Pattern]
    cache_argument: ClassVar[str]

    @classmethod
    def resembles(cls, module: Any) -> bool:
        """Whether the module is of this kind, or of one that is near: whose `mismatch` a user may want to know."""
        return cls.pattern.resembles(module)

    @classmethod
    def mismatch(cls, module: Any) -> str | None:
        """Why a module, from outside, is none of this kind; `None` if it is."""
        return cls.pattern.mismatch(module)

    def trial(self, draw: Draw) -> Pairs:
        """What the quick way gives for a few inputs, each beside what the module's own code gives.

        Raises:
            NotQuick: the kernels cannot do what the module does.
        """
        raise NotImplementedError

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        quick, own = type(self).__bases__
        # no module has the class by its name
        return _revive, (quick, own), self.__getstate__()  # type: ignore[no-untyped-call]


@cache
def _combined(quick: Any, own: Any) -> Any:
    # the name stays, for code that goes by names
    names = {"__module__": own.__module__, "__qualname__": own.__qualname__}
    return type(own.__name__, (quick, own), {**names, "cache_argument": cache_argument(own.forward)})


def _revive(quick: Any, own: Any) -> nn.Module:
    kind = _combined(quick, own)
    module: nn.Module = kind.__new__(kind)
    return module


def put_in_front(quick: Any, module: Any) -> None:
    """Have the module take the quick way where it may."""
    own: Any = type(module)
    module.__class__ = _combined(quick, own)


def take_away(module: Any) -> None:
    """Undo `put_in_front`."""
    module.__class__ = type(module).__bases__[1]


def unseen(x: torch.Tensor) -> bool:
    """`unnoticed`, and no gradients are recorded."""
    return not torch.is_grad_enabled() and unnoticed(x)


def unnoticed(x: torch.Tensor) -> bool:
    """Whether x is contiguous float32 on the CPU, and nobody would notice what is not called on the way."""
    return nobody_watches(x, x) and x.dtype is torch.float32 and x.is_contiguous() and not _has_any_global_hook()


def bare(*layers: Any) -> bool:
    """Whether layers are packed ones that nobody has hooked into, with widths that kernels know."""
    for layer in layers:
        if type(layer) is not PackedLinear or not isinstance(layer.layout, TensorLayout):
            return False
    return untouched(*layers)


def untouched(*modules: Any) -> bool:
    """Whether nobody has hooked into modules or given one another `forward`."""
    for module in modules:
        if module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__:
            return False
    return True
