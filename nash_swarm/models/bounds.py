"""What the configuration of a model claims, held against the size of its files before memory or time goes into it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook

from nash_swarm.compat.hf import computed_weights
from nash_swarm.errors import DataError

_COUNT = re.compile(r"layer|block|expert|stage|depth", re.IGNORECASE)
_MOST = 100_000
"""Layers or experts of a model; no list of that length is dangerous."""
_MODULES_A_TENSOR, _MODULES_BESIDE = 20, 1000
_BUFFERS_A_BYTE, _BUFFERS_BESIDE = 4, 1 << 26


def check_counts(values: Any) -> None:
    """Refuse a configuration (JSON values) with absurd numbers of layers, blocks or experts.

    transformers makes lists of that length while it reads the configuration.

    Raises:
        DataError: there is one.
    """
    left = [("", values)]
    while left:
        key, value = left.pop()
        if isinstance(value, dict):
            left += value.items()
        elif isinstance(value, list):
            left += [(key, inner) for inner in value]
        elif isinstance(value, int) and not -_MOST <= value <= _MOST and _COUNT.search(str(key)):
            raise DataError(f"config.json: {key} = {str(value)[:20]} is not plausible")


@contextmanager
def bounded_modules(tensors: int) -> Iterator[None]:
    """Refuse to build, while the context is open, models of many more modules than `tensors` weights could serve.

    Raises:
        DataError: one is being built.
    """
    left = _MODULES_BESIDE + _MODULES_A_TENSOR * tensors

    def count(*_: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise DataError(f"config.json asks for more layers than the {tensors} stored tensors can fill")

    handle = register_module_module_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def check_buffers(model: nn.Module, stored_bytes: int) -> None:
    """Refuse a model without memory whose buffers, which are computed and not stored, would dwarf its files.

    Raises:
        DataError: they would.
    """
    needed = sum(buffer.nbytes for buffer in model.buffers() if buffer.is_meta)
    if needed > _BUFFERS_BESIDE + _BUFFERS_A_BYTE * stored_bytes:
        raise DataError(f"config.json asks for {needed:,} bytes of buffers beside {stored_bytes:,} bytes of weights")


def check_weights_stored(model: nn.Module, elements: int, names: Collection[str] = ()) -> None:
    """Refuse a model that has more weights than its files: the rest would be made up.

    Args:
        model: a model without memory.
        elements: weights in the files.
        names: of the tensors in the files, where they are those of the model's.

    Raises:
        DataError: it has.
    """
    patterns = computed_weights(model)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    computed = sum(size for name, size in sizes.items() if any(pattern.search(name) for pattern in patterns))
    needed = sum(sizes.values()) - computed
    if computed * 4 > _BUFFERS_BESIDE + _BUFFERS_A_BYTE * elements:
        raise DataError(f"config.json asks for {computed:,} computed weights beside {elements:,} stored ones")
    if needed > elements:
        missing = sorted({name for name, _ in model.named_parameters()} - set(names)) if names else []
        example = f", without {missing[0]!r}" if missing else ""
        raise DataError(
            f"the model is incomplete: config.json asks for {needed:,} weights, the files hold {elements:,}{example}"
        )
