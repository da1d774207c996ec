"""Classes made of two others at run time, whose objects can be copied and pickled although no module has their name."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

Facts = Callable[[Any, Any], tuple[str, dict[str, Any]]]
"""Name and attributes of a class, from its two bases; a function of a module, which can be pickled by name."""


@cache
def combined(first: Any, second: Any, facts: Facts) -> Any:
    """The class with the bases `first` and `second`; the same one for the same arguments."""
    name, attributes = facts(first, second)
    return type(name, (first, second), {**attributes, "__reduce_ex__": _reduce, "nash_swarm_facts_of": (facts,)})


def _reduce(made: Any, protocol: Any) -> tuple[Any, ...]:
    kind: Any = type(made)
    return _blank, (*kind.__bases__, *kind.nash_swarm_facts_of), made.__getstate__()


def _blank(first: Any, second: Any, facts: Facts) -> Any:
    kind = combined(first, second, facts)
    return kind.__new__(kind)
