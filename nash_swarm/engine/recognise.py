"""What a module looks like from outside, held against what its quick form stands in for.

transformers repeats the same few lines in a hundred architectures and rewrites them from release to release, so modules
are known by their parts, their settings and the arguments of their `forward`, not by names of classes or by source
text. Whether they also compute the same is tried out with numbers, see `trial`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

_CACHES = ("cache", "past_key_values")
"""What transformers calls the argument that holds keys and values, in newer and older releases."""
_ANY = frozenset(
    {"training", "config", "layer_idx", "layer_type", "attention_type", "hidden_size", "intermediate_size"}
)


@dataclass(frozen=True)
class Pattern:
    """What modules of one kind have in common.

    Attributes:
        parts: children that are there.
        may: children that may be there.
        weights: parameters and buffers of its own that the quick form takes into account; there are no others.
        settings: attributes whose values the quick form respects; any other must be `None`, `False` or a function.
        arguments: of `forward`, in any order; `cache` stands for either of its names. If empty: one of any name.
        harmless: other arguments that `forward` may have, which do not change what one token's answer is.
    """

    parts: frozenset[str] = frozenset()
    may: frozenset[str] = frozenset()
    weights: frozenset[str] = frozenset()
    settings: frozenset[str] = frozenset()
    arguments: frozenset[str] = frozenset()
    harmless: frozenset[str] = frozenset()

    def resembles(self, module: Any) -> bool:
        """Whether the module has the parts, whatever else it has: it is of this kind, or of one that is near."""
        return bool(self.parts) and self.parts <= set(module._modules)

    def mismatch(self, module: Any) -> str | None:
        """The first thing in which the module is not of this kind; `None` if it is."""
        children = frozenset(module._modules)
        if missing := self.parts - children:
            return f"it has no {min(missing)}"
        if other := children - self.parts - self.may:
            return f"it has a {min(other)}"
        own = {name for name, held in (module._parameters | module._buffers).items() if held is not None}
        if own := own - self.weights:
            return f"it has a weight {min(own)}"
        if "forward" in vars(module):
            return "its forward was replaced"
        arguments = arguments_of(type(module).forward)
        if not self.arguments and len(arguments) != 1:
            return "its forward takes more than hidden states"
        if missing := self.arguments - arguments:
            return f"its forward takes no {min(missing)}"
        if self.arguments and (other := arguments - self.arguments - self.harmless):
            return f"its forward takes {min(other)}"
        return None if not self.settings else self._setting(module)

    def _setting(self, module: Any) -> str | None:
        known = self.settings | _ANY
        for name, value in vars(module).items():
            on = value is not None and value is not False and not callable(value)
            if on and not name.startswith("_") and name not in known:
                return f"it has a setting {name}"
        return None


@cache
def arguments_of(forward: Callable[..., Any]) -> frozenset[str]:
    """Names of a method's arguments but `self`, and but those that take any name; the cache's is `cache`."""
    parameters = list(inspect.signature(forward).parameters.values())[1:]
    named = (p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL))
    return frozenset("cache" if name in _CACHES else name for name in named)


@cache
def cache_argument(forward: Callable[..., Any]) -> str:
    """What a `forward` calls the argument that holds keys and values."""
    parameters = inspect.signature(forward).parameters
    return next((name for name in _CACHES if name in parameters), _CACHES[-1])
