"""Packed buffers in memory: checked once, then found by their address until they are freed or changed.

Custom ops are told of a matrix by its bytes and one line of text alone, so that exported programs need nothing else;
what was learnt from the bytes is kept here. Only its address ties an entry to a buffer: it does not keep it alive.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from typing import cast, get_args

import numpy as np
import torch
from torch.multiprocessing.reductions import StorageWeakRef

from nash_swarm.errors import DataError, UsageError
from nash_swarm.quantizers.formats import description
from nash_swarm.quantizers.formats.base import Layout, Packed
from nash_swarm.quantizers.formats.native.tensor import PackedTensor
from nash_swarm.quantizers.runtime.cpu.prepared import Prepared, prepare
from nash_swarm.quantizers.runtime.multiplier import Mode, Multiplier


@dataclass(slots=True, eq=False)
class Buffer:
    """A packed matrix that has been checked.

    Attributes:
        layout: shape and agent grid.
        rows: outputs.
        columns: inputs.
        prepared: what the kernels that multiply need; `None` in formats for which there are none.
        parsed: the sections, of a format without kernels.
        matrix: the line that describes it.
        version: of the tensor, when it was checked.
        size: bytes.
        storage: the memory, not kept alive.
        multipliers: the matrix bound to its kernels, by activation mode, as far as they have been asked for.
    """

    layout: Layout
    rows: int
    columns: int
    prepared: Prepared | None
    parsed: Packed | None
    matrix: str
    version: int
    size: int
    storage: StorageWeakRef
    multipliers: dict[str, Multiplier] = field(default_factory=dict)

    def multiplier(self, activations: str) -> Multiplier:
        """The matrix bound to the kernels of an activation mode, compiled now if they are not yet.

        Raises:
            UsageError: there is no such mode.
        """
        if activations not in get_args(Mode):
            raise UsageError(f"activations must be one of {', '.join(get_args(Mode))}, not {activations!r}")
        assert self.prepared is not None
        made = Multiplier(self.prepared, cast(Mode, activations))
        return self.multipliers.setdefault(activations, made)


_buffers: dict[int, Buffer] = {}


def find(packed: torch.Tensor, matrix: str) -> Buffer:
    """What is known of a packed matrix on the CPU; it is checked now if it is new or has changed.

    Args:
        packed: uint8 (bytes,).
        matrix: from `description.describe`.

    Raises:
        DataError: the bytes are not what the line says.
    """
    found = _buffers.get(packed.data_ptr())
    if (
        found is not None
        and found.version == (-1 if packed.is_inference() else packed._version)
        and found.matrix == matrix
        and found.size == packed.numel()
        and not found.storage.expired()
    ):
        return found
    return _check(packed, matrix)


def parse(packed: torch.Tensor, matrix: str) -> Packed:
    """The parsed buffer, on the CPU; not kept.

    Raises:
        DataError: the bytes are not what the line says.
    """
    layout, strategies = description.read(matrix)
    return layout.format.read(packed.detach().cpu().contiguous().numpy(), layout, strategies)


def _version(packed: torch.Tensor) -> int:
    # tensors made in inference mode do not count their changes
    return -1 if packed.is_inference() else packed._version


def _check(packed: torch.Tensor, matrix: str) -> Buffer:
    layout, strategies = description.read(matrix)
    if packed.dtype != torch.uint8 or packed.ndim != 1 or not packed.is_contiguous():
        raise DataError(f"{layout.name}: a packed tensor is one contiguous run of bytes")
    version, address, size = _version(packed), packed.data_ptr(), packed.numel()
    if not size:
        raise DataError(f"{layout.name}: the packed tensor is cut short (0 bytes)")
    # an array over the bare address: torch's own view of the tensor would keep its memory alive with the entry
    memory = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
    tensor = layout.format.read(memory, layout, strategies)
    prepared = prepare(tensor) if isinstance(tensor, PackedTensor) else None
    for place, other in list(_buffers.items()):
        if other.storage.expired():
            _buffers.pop(place, None)
    found = Buffer(
        layout, layout.rows, layout.columns, prepared, tensor if prepared is None else None, matrix, version, size,
        StorageWeakRef(packed.untyped_storage()),
    )  # fmt: skip
    _buffers[address] = found
    return found
