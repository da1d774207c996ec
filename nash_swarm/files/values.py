"""JSON values: back into dataclasses, believing nothing, and without what JSON cannot say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar, get_type_hints

from nash_swarm.errors import DataError

T = TypeVar("T")


def record(kind: type[T], values: Any) -> T:
    """An instance of the dataclass `kind`, its plain fields held to their types.

    Raises:
        DataError: a value has another type, or the fields are not those of `kind`.
    """
    hints = get_type_hints(kind)
    for name, value in table(values).items():
        wanted = hints.get(name)
        fits = isinstance(value, wanted) if wanted in (bool, int, str) else not isinstance(value, (list, dict))
        if wanted is float:
            fits = isinstance(value, (int, float))
        if not fits or (wanted is not bool and isinstance(value, bool)):
            raise DataError(f"{kind.__name__}: {value!r} is no {name}")
    try:
        return kind(**values)
    except TypeError as error:
        raise DataError(f"{kind.__name__}: {error}") from error


def table(values: Any) -> dict[str, Any]:
    """`values`, which must be a JSON object.

    Raises:
        DataError: they are not.
    """
    if not isinstance(values, dict):
        raise DataError(f"{str(values)[:40]} is no table of values")
    return values


def finite(values: Any) -> Any:
    """JSON values with `None` where a number is none that JSON has: NaN and the infinities."""
    if isinstance(values, Mapping):
        return {key: finite(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values
