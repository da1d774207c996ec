"""Packed bytes to the backend that multiplies with them: checked once, then found by their address.

Custom ops are told of a matrix by its bytes and one line of text alone, so that exported programs need nothing else;
what was learnt from the bytes is kept here until they are freed or changed. Only its address ties an entry to a buffer:
it does not keep it alive.

From `PackedLinear.forward` to the kernel there are these steps:

1. `ops.linear` decides whether torch's dispatcher has to see the call; if so, it comes back through the op's
   implementation;
2. `linear` here looks the bytes up (`find`), checks the input's columns, and calls
3. `Backend.linear` of the backend that took the matrix; on the CPU (`backends.cpu`) that makes the input float32, and
   the output, and calls
4. `Product.one` or `Product.many` (`cpu.product`), which have the memory and the threads, and call
5. the compiled `cpu.compiled.kernel`, on addresses.

A matrix is a `Packed` (the sections of the file) only while it is checked; then a `PackedMatrix` (the kernels'
tables), with a `Product` for each activation mode that has been asked for. It keeps the backend that took it: one that
is registered later gets matrices that are checked later.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from nash_swarm import registry
from nash_swarm.compat.torch_names import StorageWeakRef
from nash_swarm.errors import DataError, UsageError
from nash_swarm.quantizers.formats import description
from nash_swarm.quantizers.formats.base import Layout, Packed
from nash_swarm.quantizers.runtime.backends.base import Backend, instructions_of

_log = logging.getLogger("nash_swarm")


@dataclass(slots=True, eq=False)
class Found:
    """A packed matrix that has been checked.

    Attributes:
        backend: who multiplies with it.
        matrix: what that backend has made of the bytes.
        layout: shape and agent grid.
        columns: inputs.
        text: the line that describes it.
        version: of the tensor, when it was checked.
        size: bytes.
        storage: the memory, not kept alive.
    """

    backend: Backend
    matrix: Any
    layout: Layout
    columns: int
    text: str
    version: int
    size: int
    storage: StorageWeakRef


_found: dict[int, Found] = {}
_only: tuple[Backend, ...] | None = None


def linear(
    x: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None, matrix: str, activations: str
) -> torch.Tensor:
    """`x W^T + b`; arguments as of `ops.linear`."""
    found = find(packed, matrix)
    if x.ndim == 0 or x.shape[-1] != found.columns:
        check_columns(x, found.layout)
    return found.backend.linear(found.matrix, x, bias, activations)


def rows(index: torch.Tensor, packed: torch.Tensor, matrix: str, dtype: torch.dtype) -> torch.Tensor:
    """Rows `index` (any shape) of the matrix, (*index, columns), on the index' device.

    Raises:
        DataError: the bytes are not what `matrix` says.
        IndexError: an index is outside the matrix.
    """
    found = find(packed, matrix)
    layout, ids = found.layout, index.reshape(-1)
    if ids.dtype is not torch.int64 or not ids.is_contiguous():
        ids = ids.to(torch.int64).contiguous()
    if len(ids):
        known = ids.numpy() if ids.is_cpu else ids
        if known.min() < 0 or known.max() >= layout.rows:
            raise IndexError(f"{layout.name}: index outside 0..{layout.rows - 1}")
    out = found.backend.rows(found.matrix, ids).reshape(*index.shape, layout.columns)
    return out if out.dtype is dtype else out.to(dtype)


def dense(packed: torch.Tensor, matrix: str) -> torch.Tensor:
    """The matrix, float32 (rows, columns), on the bytes' device.

    Raises:
        DataError: the bytes are not what `matrix` says.
    """
    found = find(packed, matrix)
    return found.backend.rows(found.matrix, torch.arange(found.layout.rows, device=packed.device))


def check_columns(x: torch.Tensor, layout: Layout) -> None:
    """Refuse inputs of another number of columns.

    Raises:
        UsageError: x has not that many.
    """
    if x.ndim == 0 or x.shape[-1] != layout.columns:
        raise UsageError(f"{layout.name} takes inputs of {layout.columns} columns, not of the shape {tuple(x.shape)}")


def find(packed: torch.Tensor, matrix: str) -> Found:
    """What is known of packed bytes; they are checked now if they are new or have changed.

    Args:
        packed: uint8 (bytes,).
        matrix: from `description.describe`.

    Raises:
        DataError: the bytes are not what the line says.
    """
    found = _found.get(packed.data_ptr())
    if (
        found is not None
        and found.version == (-1 if packed.is_inference() else packed._version)
        and found.text == matrix
        and found.size == packed.numel()
        and not found.storage.expired()
    ):
        return found
    return _check(packed, matrix)


def parse(packed: torch.Tensor, matrix: str) -> Packed:
    """The sections of the bytes, on the CPU; not kept.

    Raises:
        DataError: the bytes are not what the line says.
    """
    layout, strategies = description.read(matrix)
    return layout.format.read(packed.detach().cpu().contiguous().numpy(), layout, strategies)


def choose(layout: Layout, device: torch.device) -> Backend:
    """The backend with the highest priority that supports matrices of a layout on a device.

    Raises:
        UsageError: there is none; the message says why.
    """
    reasons: list[str] = []
    for backend in _backends() if _only is None else _only:
        reason = backend.refusal(layout, device, instructions_of(device))
        if reason is None:
            if reasons:
                _log.debug("%s on %s: backend %s, as %s", layout.name, device, backend.name, "; ".join(reasons))
            return backend
        reasons.append(f"{backend.name} {reason}")
    raise UsageError(f"{layout.name}: no backend multiplies with it on {device}: {'; '.join(reasons)}")


@contextmanager
def only(backends: Sequence[Backend]) -> Iterator[None]:
    """Have no other backends than these, in this order, in the whole process.

    Raises:
        UsageError: there are none.
    """
    global _only
    if not backends:
        raise UsageError("no backends: without one no packed matrix can be multiplied with")
    before, _only = _only, tuple(backends)
    _found.clear()
    try:
        yield
    finally:
        _only = before
        _found.clear()


def _backends() -> tuple[Backend, ...]:
    made = [registry.create("backends", name) for name in registry.names("backends")]
    return tuple(sorted(made, key=lambda backend: -backend.priority))


def _check(packed: torch.Tensor, matrix: str) -> Found:
    layout, strategies = description.read(matrix)
    if packed.dtype != torch.uint8 or packed.ndim != 1 or not packed.is_contiguous():
        raise DataError(f"{layout.name}: a packed tensor is one contiguous run of bytes")
    # tensors made in inference mode do not count their changes
    version = -1 if packed.is_inference() else packed._version
    if not packed.numel():
        raise DataError(f"{layout.name}: the packed tensor is cut short (0 bytes)")
    backend = choose(layout, packed.device)
    prepared = backend.prepare(packed.detach(), layout, strategies)
    for place, other in list(_found.items()):
        if other.storage.expired():
            _found.pop(place, None)
    storage = StorageWeakRef(packed.untyped_storage())
    found = Found(backend, prepared, layout, layout.columns, matrix, version, packed.numel(), storage)
    _found[packed.data_ptr()] = found
    return found
