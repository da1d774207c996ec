"""Checks of arguments of the Python interface: a wrong type raises `UsageError`."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterable
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from nash_swarm.errors import UsageError

_SHOWN = 40


def whole(name: str, value: Any, least: int) -> int:
    """`value` as an int; NumPy integers are accepted, bool is not.

    Raises:
        UsageError: it is not an integer, or less than `least`.
    """
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise UsageError(f"{name} must be a whole number, not {shown(value)}")
    if value < least:
        wanted = "positive" if least == 1 else f"at least {least}"
        raise UsageError(f"{name} must be {wanted}, not {value}")
    return int(value)


def number(name: str, value: Any) -> float:
    """`value` as a float; NumPy numbers are accepted, bool is not.

    Raises:
        UsageError: it is not a finite number.
    """
    if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value):
        raise UsageError(f"{name} must be a number, not {shown(value)}")
    return float(value)


def choice(name: str, value: Any, known: Collection[str]) -> str:
    """`value`, one of the `known` names.

    Raises:
        UsageError: it is not one of them.
    """
    if not isinstance(value, str) or value not in known:
        raise UsageError(f"{name} must be one of {', '.join(known)}, not {shown(value)}")
    return value


def place(name: str, value: Any) -> Path:
    """`value` as a path.

    Raises:
        UsageError: it is neither a string nor a path, or it is empty or contains a NUL character.
    """
    if not isinstance(value, (str, os.PathLike)) or isinstance(os.fspath(value), bytes):
        raise UsageError(f"{name} must be a path, not {shown(value)}")
    if not os.fspath(value) or "\0" in os.fspath(value):
        raise UsageError(f"{name} must be a path, not {os.fspath(value)!r}")
    return Path(value)


def widths(name: str, value: Any) -> tuple[int, ...]:
    """`value`, a tuple, list or array of integers, as a tuple of int.

    Raises:
        UsageError: it is not a collection of integers.
    """
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise UsageError(f"{name} must be bit-widths such as (2, 3, 4), not {shown(value)}")
    found = tuple(value)
    if not all(isinstance(one, Integral) and not isinstance(one, bool) for one in found):
        raise UsageError(f"{name} must be bit-widths such as (2, 3, 4), not {shown(value)}")
    return tuple(int(one) for one in found)


def instance(name: str, value: Any, kind: type, how: str) -> None:
    """Check that `value` is an instance of `kind`.

    Args:
        name: of the argument.
        value: its value.
        kind: the required class.
        how: how to get an instance, for the message.

    Raises:
        UsageError: it is not an instance.
    """
    if not isinstance(value, kind):
        raise UsageError(f"{name} must be of the kind {kind.__name__} ({how}), not {shown(value)}")


def model(value: Any) -> None:
    """Check that `value` is a loaded model of transformers.

    Raises:
        UsageError: it is not.
    """
    if not callable(getattr(value, "named_modules", None)) or not hasattr(value, "config"):
        raise UsageError(
            f"the model must be a loaded transformers model (AutoModelForCausalLM.from_pretrained), not {shown(value)}"
        )


def original(value: Any) -> None:
    """Check that `value` is a loaded model of transformers that is not quantized.

    Raises:
        UsageError: it is not a model, or is quantized.
    """
    model(value)
    if getattr(value, "nash_swarm_packed", None) is not None:
        raise UsageError("this model is already packed by nash-swarm; give the original model")
    if getattr(value, "is_quantized", False):
        config = getattr(value.config, "quantization_config", None)
        method = config.get("quant_method") if isinstance(config, dict) else getattr(config, "quant_method", None)
        by = f" (by {getattr(method, 'value', method)})" if method else ""
        raise UsageError(f"this model is already quantized{by}; give the original model")


def tokenizer(value: Any) -> None:
    """Check that `value` is a loaded tokenizer or `None`.

    Raises:
        UsageError: it is something else, such as the name of a tokenizer.
    """
    if value is not None and not callable(value):
        raise UsageError(f"the tokenizer must be a loaded one (AutoTokenizer.from_pretrained), not {shown(value)}")


def shown(value: Any) -> str:
    """The value, cut short, and its type, for an error message."""
    if value is None or isinstance(value, str):
        return repr(value)[:_SHOWN]
    plain = isinstance(value, (int, float, list, tuple, dict))
    return f"{type(value).__name__} {repr(value)[:_SHOWN]}" if plain else type(value).__name__
