"""A packed module's `weight`: shape and type are known at once, values are unpacked when somebody computes with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from nash_swarm.compat.hf import mark_initialized
from nash_swarm.compat.torch_names import without_subclasses, wrapper_subclass

_plain: Any = torch.Tensor
_FACTS = {
    fact.__get__
    for fact in (
        _plain.shape, _plain.dtype, _plain.device, _plain.layout, _plain.ndim, _plain.requires_grad, _plain.grad,
        _plain.is_meta, _plain.is_cpu, _plain.is_cuda, _plain.is_leaf, _plain.is_sparse,
    )
} | {_plain.size, _plain.dim, _plain.numel, _plain.is_floating_point, _plain.is_complex, _plain.__len__}  # fmt: skip


class DenseOnDemand(torch.Tensor):
    """A matrix that is unpacked each time values of it are needed.

    Model code reads `module.weight.dtype` or `.device` in the middle of its forward pass (Gemma, T5), where unpacking
    the whole matrix to answer would take longer than everything else.
    """

    _dense: Callable[[], torch.Tensor]

    @classmethod
    def of(cls, dense: Callable[[], torch.Tensor], shape: tuple[int, int], like: torch.Tensor) -> DenseOnDemand:
        """The matrix that `dense` returns: float32 of `shape` (rows, columns), on the device of `like`."""
        made: DenseOnDemand = wrapper_subclass(cls, shape, dtype=torch.float32, device=like.device)
        made._dense = dense
        mark_initialized(made)  # or a copy is filled
        return made

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        with without_subclasses():
            if func in _FACTS:
                return func(*args, **(kwargs or {}))
            return func(*_unpacked(args), **_unpacked(kwargs or {}))

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return func(*_unpacked(args), **_unpacked(kwargs or {}))


def _unpacked(values: Any) -> Any:
    if isinstance(values, DenseOnDemand):
        return values._dense()
    if isinstance(values, tuple | list):
        return type(values)(_unpacked(value) for value in values)
    if isinstance(values, dict):
        return {key: _unpacked(value) for key, value in values.items()}
    return values
